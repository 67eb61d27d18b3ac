"""A plan as people read it: every number with where it comes from."""

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from train.config import Config
from train.plan import memory
from train.plan.plan import DISK, LINKS, MEASURED, MFU, PER_NODE, STAGING, Plan, faster, plan


def show(
    settings: Config,
    gpus: int = 1,
    gpu: str = "h100",
    console: Console | None = None,
    mfu: float = MFU,
    per_node: int = PER_NODE,
) -> Plan:
    """Print the plan of a run; `plan` says what is refused."""
    made = plan(settings, gpus, gpu, mfu, per_node)
    console = console or Console()
    other = faster(made)
    console.print(table(made, other))
    if other:
        console.print(
            f"accumulation={other.settings.accumulation} fits with {_giga(sum(other.memory.values()))} a GPU and takes "
            f"{_seconds(other.step)} a step: the same batch, {other.on.micro_batch} on each GPU at a time",
            highlight=False,
        )
    return made


def table(made: Plan, better: Plan | None = None) -> Group:
    """The plan as people read it: a line for each number, with where it comes from. `better`: with another accumulation
    that fits.
    """
    parts: list[Text | Table] = []
    for title, rows in _sections(made, better).items():
        lines = Table(box=None, show_header=False, pad_edge=False)
        lines.add_column(width=24, no_wrap=True)
        lines.add_column(width=14, no_wrap=True, justify="right")
        lines.add_column(style="dim")
        for name, value, source in rows:
            lines.add_row(f"  {name}", value, source)
        parts += [Text(title, style="bold"), lines]
    return Group(*parts)


Rows = list[tuple[str, str, str]]


def _sections(made: Plan, better: Plan | None) -> dict[str, Rows]:
    settings, data, on, config = made.settings, made.settings.data, made.on, made.config
    title = f"{settings.model.preset} at {data.size}x{data.size}"
    title += f", clips of {data.frames} frames" if data.frames > 1 else ""
    machine = f"{on.world} x {made.gpu.name}" + (f" on {made.nodes} nodes" if made.nodes > 1 else "")
    return {
        f"{title}, on {machine}": _model(made),
        "A sample": [
            ("tokens", f"{made.tokens:,}", f"exact: {config.layers} layers x {_patches(made)}"),
            ("forward", _tera(made.forward), "counted, encoder included"),
            ("training", _tera(made.training), "counted: forward and backward, a frozen encoder forward only"),
            ("computed again", _tera(made.again), f"{made.recomputed} of {_units(made)} blocks (compute.activations)"),
        ],
        "A step": _step(made),
        "Memory of a GPU": _memory(made, better),
        "Data": _data(made),
        "The run": _run(made),
    }


def _model(made: Plan) -> Rows:
    rows = [("parameters", _mega(made.counted.all), f"exact; trained {_mega(made.counted.trained)}")]
    for name, (all_, trained) in made.counted.parts.items():
        if all_:
            share = "trained" if trained == all_ else "frozen" if not trained else f"trained {_mega(trained)}"
            rows.append((f"  {name}", _mega(all_), share))
    return rows


def _step(made: Plan) -> Rows:
    settings, on, comm = made.settings, made.on, made.communication
    steps = f"{on.world} GPU{'s' if on.world > 1 else ''} x {on.micro_batch} x accumulation {settings.accumulation}"
    rows = [
        ("batch", f"{settings.data.batch}", f"exact: {steps}"),
        (
            "computing",
            _seconds(made.compute),
            f"assumed: {made.mfu:.0%} of {made.gpu.flops / 1e12:.0f} TFLOP/s{_peak_of(made)}, for "
            f"{on.micro_batch * settings.accumulation} x {_tera(made.training + made.again)}",
        ),
    ]
    if on.world > 1:
        groups = on.world // on.shard
        layout = f"groups of {on.shard}" + (f", {groups} of them (HSDP)" if groups > 1 else " (FSDP)")
        rows += [
            ("gathering weights", _seconds(comm.gather), f"assumed: {LINKS:.0%} of links; float32, {layout}"),
            ("reducing gradients", _seconds(comm.reduce + comm.replicas), f"assumed: {LINKS:.0%} of links and network"),
            ("not hidden", _seconds(comm.shown), "of both, behind computing"),
        ]
    rows += [
        ("optimizer", _seconds(made.update), f"assumed: {LINKS:.0%} of memory's bandwidth"),
        ("step", _seconds(made.step), "computing + not hidden + optimizer; without waiting for data"),
        ("samples/s", _short(made.samples_per_second, 1), f"MFU {made.achieved:.1%}, of what is not computed again"),
    ]
    return rows


def _peak_of(made: Plan) -> str:
    """What the peak is not of: data sheets' is that of bf16, and float32 is computed outside of the tensor cores."""
    if made.settings.precision == "bf16" or made.settings.compute.peak is not None:
        return ""
    return ", the peak of bf16: precision fp32 takes several times as long (measure, then give --mfu)"


def _memory(made: Plan, better: Plan | None) -> Rows:
    exact = memory.persistent(made.settings, made.counted, made.on)
    rows = [
        (name, _giga(size), "exact" if name in exact else "assumed" if "estimate" in name else "counted")
        for name, size in made.memory.items()
    ]
    needed = sum(made.memory.values())
    left = made.usable - needed
    usable = f"{made.gpu.memory / 1e9:.0f} GB less {memory.GAPS:.0%} and {memory.RESERVED / 1e9:g} GB (assumed)"
    verdict = f"fits: {_giga(left)} left of" if made.fits else f"DOES NOT FIT: {_giga(-left)} more than"
    return [*rows, ("all", _giga(needed), f"{verdict} {_giga(made.usable)}, which is {usable}{_remedy(made, better)}")]


def _remedy(made: Plan, better: Plan | None) -> str:
    if made.fits:
        return ""
    if made.recomputed < _units(made):
        return "; give compute.activations less, or leave it at auto"
    if better is not None:
        return f"; accumulation={better.settings.accumulation} fits: fewer samples are computed at a time"
    return "; no accumulation fits: share the weights out over more GPUs (--gpus, parallel.shard), or take larger ones"


def _data(made: Plan) -> Rows:
    frames = "frames" if made.settings.data.frames > 1 else "samples"
    source = "measured" if made.settings.data.size in MEASURED else "from measured figures, by pixels"
    kind = "frames of rendered objects" if made.settings.data.frames > 1 else "rendered objects"
    kind += "; rooms and photographs are larger and slower" if made.settings.model.preset == "wt_s" else ""
    return [
        (f"{frames}/s and node", _short(made.frames_per_node, 1), "from the step"),
        ("read, MB/s and node", _short(made.read / 1e6, 2), f"{source}: {kind} of this size"),
        ("cores, a node", _short(made.cores, 1), f"{source}: decoding and augmentation of {kind}"),
    ]


def _run(made: Plan) -> Rows:
    settings, nodes = made.settings, made.nodes
    size, each = made.checkpoint, made.checkpoint / made.on.world
    seen, gpu_hours = settings.steps * settings.data.batch, made.hours * made.on.world
    duration = ("hours", _short(made.hours, 1)) if made.hours >= 1 else ("seconds", f"{made.hours * 3600:.3g}")
    return [
        ("checkpoint", _giga(size), "exact: weights, averages, two moments"),
        ("  training waits", _seconds(each / STAGING), f"assumed: {STAGING / 1e9:g} GB/s from each GPU"),
        (
            "  it is written in",
            _seconds(size / nodes / DISK),
            f"assumed: {DISK / 1e9:g} GB/s from each node; training goes on",
        ),
        (
            "  rate for 25 s",
            f"{_giga(size / nodes / 25)}/s",
            "of each node: what a SIGTERM asks of the storage",
        ),
        ("steps", f"{settings.steps:,}", f"exact; {seen:,} {'clips' if settings.data.frames > 1 else 'samples'}"),
        (*duration, "from the step"),
        ("GPU hours", _short(gpu_hours, 0) if gpu_hours >= 0.1 else "< 0.1", f"of {made.gpu.name}"),
    ]


def _units(made: Plan) -> int:
    return len(memory.units(made.config, made.settings.data.frames))


def _patches(made: Plan) -> str:
    side, frames = made.settings.data.size // made.config.patch, made.settings.data.frames
    return f"{side}^2 patches" + (f" x {frames} frames" if frames > 1 else "")


def _mega(count: float) -> str:
    return f"{count / 1e6:,.2f}M"


def _tera(count: float) -> str:
    if not count:
        return "0"
    return f"{count / 1e12:,.2f} TFLOP" if count >= 1e11 else f"{count / 1e9:,.2f} GFLOP"


def _giga(size: float) -> str:
    if not size:
        return "0"
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.3g} MB"


def _short(value: float, decimals: int) -> str:
    """So many decimals, of small numbers two digits instead."""
    return f"{value:,.{decimals}f}" if value >= 10 ** (1 - decimals) else f"{value:.2g}"


def _seconds(value: float) -> str:
    return f"{value:,.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"
