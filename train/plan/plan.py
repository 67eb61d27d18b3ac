"""What a run will take, before it is run: `worldtrace train CONFIG --dry-run`. No GPU, no data, no weights; seconds.

Every line says where its number comes from: `exact` (counted on the model or the config), `counted` (operations and
tensors, by formulas that tests compare with torch), `measured` (docs/benchmarks.md) or `assumed`. How fast a GPU works,
links run and disks write was assumed; MFU is an argument for that reason: give the one you measured.
"""

from dataclasses import dataclass

from model import WTConfig
from model.flops import Flops, flops, tokens_of, training_flops
from train.config import Config
from train.config.shape import shape_of
from train.plan import gpus as known
from train.plan import memory
from train.plan.gpus import Gpu
from train.plan.memory import Mode, Placement

MFU = 0.40  # assumed part of the peak: what the project wants of an H100 at least
LINKS = 0.80  # assumed part of the data sheet's bandwidth that collectives and the optimizer's kernels get
PER_NODE = 8  # assumed GPUs in a machine, where there are more than so many
STAGING = 25e9  # bytes/s, assumed: from a GPU to the memory of its node
DISK = 2e9  # bytes/s, assumed: from a node to the storage of checkpoints
# Pixels a side -> (samples a second that one core reads, decodes and augments, photometry left to the GPU; bytes of one
# on disk). Rendered objects, measured on one core of a busy machine: tests/benchmarks/augment.py, docs/benchmarks.md.
MEASURED = {196: (195.0, 16.3e3), 504: (59.0, 62.5e3)}


@dataclass(frozen=True)
class Communication:
    """Of one rank and step, seconds. `hidden` is what computing covers, `shown` what is left of the sum."""

    gather: float  # weights, whenever a block is about to compute
    reduce: float  # gradients, to the ranks that keep them
    replicas: float  # gradients, between groups that hold the same weights
    bytes_link: float
    bytes_network: float
    shown: float

    @property
    def all(self) -> float:
        return self.gather + self.reduce + self.replicas


@dataclass(frozen=True)
class Plan:
    """All that `table` prints. Bytes, seconds, FLOP; of one GPU, where nothing else is said."""

    settings: Config
    config: WTConfig
    gpu: Gpu
    per_node: int
    mfu: float
    mode: Mode
    on: Placement
    counted: memory.Parameters
    tokens: int  # of one sample, over all layers and frames
    forward: float  # FLOP of one sample, encoder included
    training: float  # FLOP of one sample in training, what is recomputed not counted
    again: float  # FLOP of one sample that recomputation adds
    recomputed: int  # blocks
    memory: dict[str, int]
    compute: float  # seconds of a step
    update: float
    communication: Communication

    @property
    def nodes(self) -> int:
        return -(-self.on.world // self.per_node)

    @property
    def usable(self) -> float:
        """Bytes of a GPU that tensors get."""
        return self.gpu.memory * (1 - memory.GAPS) - memory.RESERVED

    @property
    def fits(self) -> bool:
        return sum(self.memory.values()) <= self.usable

    @property
    def step(self) -> float:
        """Seconds of a step; waiting for data not counted."""
        return self.compute + self.communication.shown + self.update

    @property
    def samples_per_second(self) -> float:
        """Of all GPUs."""
        return self.settings.data.batch / self.step

    @property
    def achieved(self) -> float:
        """The MFU that the step time comes to."""
        return self.samples_per_second * self.training / (self.on.world * self.gpu.flops)

    @property
    def hours(self) -> float:
        return self.settings.steps * self.step / 3600

    @property
    def checkpoint(self) -> int:
        """Bytes of one: weights, averages, moments."""
        return memory.FLOAT * (self.counted.all + 3 * self.counted.trained)

    @property
    def frames_per_node(self) -> float:
        """Images a second that a node has to read and decode."""
        return self.samples_per_second * self.settings.data.frames / self.nodes

    @property
    def read(self) -> float:
        """Bytes a second that a node reads, if its dataset was rendered at `data.size`."""
        return self.frames_per_node * _by_pixels(self.settings.data.size, {n: m[1] for n, m in MEASURED.items()})

    @property
    def cores(self) -> float:
        """Cores of a node that decoding and augmentation keep busy."""
        return self.frames_per_node * _by_pixels(self.settings.data.size, {n: 1 / m[0] for n, m in MEASURED.items()})


def _by_pixels(size: int, known_at: dict[int, float]) -> float:
    """What was measured at two sizes, on the straight line through both over the number of pixels."""
    (a, at_a), (b, at_b) = known_at.items()
    return max(0.0, at_a + (at_b - at_a) * (size**2 - a**2) / (b**2 - a**2))


def plan(settings: Config, gpus: int = 1, gpu: str = "h100", mfu: float = MFU, per_node: int = PER_NODE) -> Plan:
    """What the run of `settings` takes on `gpus` GPUs of a kind (a name of train/plan/gpus.py).

    ValueError, one sentence: an unknown GPU, a batch that the GPUs do not divide, what a training refuses (shape_of).
    """
    for name, value in (("--gpus", gpus), ("GPUs per node", per_node)):
        if value < 1:
            raise ValueError(f"{name}: {value} given; at least 1 is needed")
    if not 0 < mfu <= 1:
        raise ValueError(f"--mfu: {mfu:g} given; it is a part of the peak, above 0 and at most 1")
    device = known.find(gpu)
    if settings.compute.peak is not None:
        device = Gpu(**{**vars(device), "flops": settings.compute.peak})
    data, config = settings.data, shape_of(settings)
    per_node = min(per_node, gpus)
    on = memory.placement(settings, gpus, per_node)
    mode: Mode = "eager" if settings.compute.compile is False else "compiled"
    half = settings.precision == "bf16"

    counted = memory.parameters(config)
    recomputed = memory.recompute(settings, config, on, device.memory, mode)
    items = {
        **memory.persistent(settings, counted, on),
        **memory.passing(settings, config, counted, on),
        "activations": memory.activations(config, data.size, data.frames, on.micro_batch, half, mode, recomputed),
    }
    work = flops(config, data.size, data.size, data.frames)
    training = training_flops(config, data.size, data.size, data.frames)
    again = _again(config, data.frames, work, recomputed)
    samples = on.micro_batch * settings.accumulation
    compute = samples * (training + again) / (mfu * device.flops)
    return Plan(
        settings,
        config,
        device,
        per_node,
        mfu,
        mode,
        on,
        counted,
        tokens_of(config, data.size, data.size, data.frames),
        work.forward,
        training,
        again,
        recomputed,
        items,
        compute,
        _update(counted, on, device),
        _communication(settings, counted, on, device, per_node, compute),
    )


def _again(config: WTConfig, frames: int, work: Flops, recomputed: int) -> float:
    """Operations that the first `recomputed` blocks of a sample's forward pass take."""
    shapes = [shape for _, shape in memory.units(config, frames)]
    dense = (work.parts["projections"] + work.parts["mlp"]) / len(shapes)
    return sum(dense + work.parts[shape] / shapes.count(shape) for shape in shapes[:recomputed])


def _update(counted: memory.Parameters, on: Placement, device: Gpu) -> float:
    """Seconds of AdamW, clipping and averaging: they move bytes and compute next to nothing.

    A weight is read and written, so are two moments and an average; its gradient is read for the norm and once more.
    """
    return counted.trained / on.shard * memory.FLOAT * (4 * 2 + 2) / (LINKS * device.bandwidth)


def _communication(
    settings: Config, counted: memory.Parameters, on: Placement, device: Gpu, per_node: int, compute: float
) -> Communication:
    """What FSDP2 sends, and the time it takes at LINKS of the data sheet.

    Each micro-batch gathers all weights for the forward pass and those that are trained for the backward one. The last
    one reduces the gradients to their shards, then sums them over the groups. A rank receives what it does not hold:
    (S - 1) / S of it. Where a group spans nodes, what comes from other nodes comes over the network, once for all ranks
    of a node; the sum over R groups moves 2 (R - 1) / R of a shard.

    Copying engines work beside computing: of each micro-batch what exceeds its computing shows, and the first block's
    gather and the last one's reduction, which nothing covers.
    """
    if on.world == 1:
        return Communication(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    shard, groups = on.shard, on.world // on.shard
    within = min(shard, per_node)
    link, network = LINKS * device.link, LINKS * device.network

    def seconds(count: float) -> tuple[float, float, float]:
        """(seconds, bytes over links, bytes over the network) that a rank takes to gather or reduce so many weights."""
        size = count * memory.FLOAT
        near, far = size * (within - 1) / shard, size * (shard - within) / shard
        # what came over the network to one rank of a node goes on to the others over links
        return max((near + far * (within - 1) / within) / link, far / within / network), near, far / within

    forward, backward, reduction = seconds(counted.all), seconds(counted.trained), seconds(counted.trained)
    parts = settings.accumulation
    summed = 2 * (groups - 1) / groups * counted.trained / shard * memory.FLOAT
    gather, reduce, replicas = parts * (forward[0] + backward[0]), reduction[0], summed / network
    each = compute / parts
    block = seconds(counted.block)[0]
    exposed = (parts - 1) * max(0.0, forward[0] + backward[0] - each)
    exposed += max(0.0, forward[0] + backward[0] + reduce + replicas - each)
    first_and_last = parts * block + block + summed / network * counted.block / counted.trained
    return Communication(
        gather,
        reduce,
        replicas,
        parts * (forward[1] + backward[1]) + reduction[1],
        parts * (forward[2] + backward[2]) + reduction[2] + summed,
        max(exposed, min(first_and_last, gather + reduce + replicas)),
    )


def divisions(made: Plan) -> list[Plan]:
    """The same batch on the same GPUs, in all the numbers of micro-batches that divide it: more and smaller ones need
    less memory, fewer and larger ones gather weights less often.
    """
    each = made.settings.data.batch // made.on.world
    return [
        plan(
            made.settings.model_copy(update={"accumulation": n}), made.on.world, made.gpu.name, made.mfu, made.per_node
        )
        for n in range(1, each + 1)
        if each % n == 0
    ]


def faster(made: Plan) -> Plan | None:
    """The fastest of the `divisions` that fit, if it takes 2 % less time a step than `made`, or `made` does not fit."""
    found = min((other for other in divisions(made) if other.fits), key=lambda other: other.step, default=None)
    return found if found is not None and (not made.fits or found.step < 0.98 * made.step) else None
