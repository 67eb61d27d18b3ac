"""Weights shared out over ranks: FSDP2, in groups of S ranks that each hold one full copy between them (HSDP).

Each transformer block is a unit whose weights are gathered just before it computes and dropped behind it; with no host
sync in a step the CPU runs ahead of the GPU, so the next unit's gather travels while this one computes. Weights stay
float32 and autocast casts what was gathered: N ranks do the arithmetic of one. One rank is not wrapped at all.
"""

import math
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from model import WTDiT
from train.config import Parallel
from train.ranks.heartbeat import BACKSTOP
from train.ranks.parallel import Ranks


def group_size(ranks: Ranks, settings: Parallel) -> int:
    """S, the number of ranks that hold one copy of the weights between them.

    "node": as many as run on each machine (the greatest number that divides all of them, where they differ), so that
    weights travel over the links within it. ValueError for a number that does not divide the ranks.
    """
    if settings.shard == "all":
        return ranks.world
    if settings.shard == "node":
        hosts = ranks.gather_objects((socket.gethostname(), os.environ.get("LOCAL_WORLD_SIZE", "")))
        sizes = [int(told) if told.isdecimal() and int(told) else hosts.count((host, told)) for host, told in hosts]
        return math.gcd(ranks.world, *sizes)
    if ranks.world % settings.shard:
        fitting = [n for n in range(1, ranks.world + 1) if ranks.world % n == 0]
        raise ValueError(
            f"parallel.shard: {settings.shard} does not divide the {ranks.world} ranks of this run; choose one of "
            f"{', '.join(map(str, fitting))}, node or all"
        )
    return settings.shard


def blocks_of(model: WTDiT) -> list[nn.Module]:
    """All transformer blocks in the order in which they compute: encoder, decoder with the temporal ones, head."""
    inner: list[nn.Module] = []
    for i, block in enumerate(model.decoder):
        inner.append(block)
        if i % 3 == 2 and i // 3 < len(model.temporal):
            inner.append(model.temporal[i // 3])
    return [*model.encoder.blocks, *inner, *model.head.blocks]


def distribute(model: WTDiT, ranks: Ranks, settings: Parallel) -> None:
    """Put `model` on the ranks' devices, in place; every rank of S keeps its part of each weight, as a DTensor.

    Rank 0 has the model on the CPU, the others have it there or on meta: what they hold is not looked at. Afterwards
    all have rank 0's weights and buffers, and a full copy never was on any device. `forward`, `encode` and `denoise`
    gather what they need. Call before anything keeps a parameter: the parameters are new objects.
    """
    if ranks.world == 1:
        model.to(ranks.device)
        return
    size = group_size(ranks, settings)
    full = {name: value.detach() for name, value in _all_tensors(model)} if ranks.first else {}
    model.to("meta")
    with ranks.answering():
        mesh = _mesh(ranks, size, settings.timeout * BACKSTOP)
    _wrap(model, mesh)
    model.to_empty(device=ranks.device)
    load_full(model, full, ranks)


def _mesh(ranks: Ranks, size: int, seconds: float) -> DeviceMesh:
    """(world / S, S): neighbours hold one copy. Groups of their own, as patient as that of all ranks: `seconds`; torch
    would give them its 10 minutes (NCCL) or 30."""
    rows = torch.arange(ranks.world).view(-1, size)
    groups = [
        dist.new_subgroups_by_enumeration(each.tolist(), timeout=timedelta(seconds=seconds))[0]
        for each in (rows.T, rows)
    ]
    return DeviceMesh.from_group(groups, ranks.device.type, mesh=rows, mesh_dim_names=("replicate", "shard"))


def _wrap(model: WTDiT, mesh: DeviceMesh) -> None:
    # What is dropped behind the forward pass is gathered again for the backward one. To keep the last block and what
    # stands around the blocks would save 0.3 GB of WT-O's traffic a step; this way nothing outside of a call ever sees
    # a gathered weight, nor computes with one that was gathered before the shards changed.
    for unit in (*blocks_of(model), model.encoder, model):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    warnings.filterwarnings(
        "ignore", message="FSDP2-wrapped module .* returned a view tensor"
    )  # read, never written to
    for method in ("encode", "denoise"):  # a sampler calls these, and FSDP knows of `forward` only
        register_fsdp_forward_method(model, method)


def load_full(model: nn.Module, tensors: MutableMapping[str, Tensor], ranks: Ranks) -> None:
    """Rank 0's full `tensors`, by name, into the weights and buffers of every rank, one tensor at a time.

    Takes them out of the mapping as it goes, so that the memory of rank 0 falls. What the others pass is not looked
    at. Names that `tensors` lacks keep their values; ValueError for one that the model lacks, or of another shape.
    """
    own = dict(_all_tensors(model))
    with ranks.together():
        if ranks.first:
            _check_names(tensors, own)
    for name in ranks.tell(list(tensors) if ranks.first else []):
        target = own[name]
        if ranks.first:
            value = tensors.pop(name).detach().to(ranks.device, target.dtype).contiguous()
        else:
            value = torch.empty(target.shape, dtype=target.dtype, device=ranks.device)
        if ranks.world > 1:
            with ranks.answering():
                dist.broadcast(value, 0)
        with torch.no_grad():
            plain(target).copy_(_part(value, target) if isinstance(target, DTensor) else value)


def plain(tensor: Tensor) -> Tensor:
    """This rank's part of a DTensor, sharing its memory; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(part: Tensor, whole: Tensor) -> Tensor:
    """A DTensor around this rank's `part`, laid out over the ranks as `whole` is; `part` where `whole` is plain."""
    if not isinstance(whole, DTensor):
        return part
    return DTensor.from_local(
        part, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def accumulating(model: nn.Module, last: bool) -> None:
    """Say before each micro-batch whether it is the `last` of its step: gradients travel once a step, with that one.

    Until then each rank keeps full gradients of the weights it has computed with.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)


def _part(full: Tensor, target: DTensor) -> Tensor:
    return distribute_tensor(full, target.device_mesh, target.placements, src_data_rank=None).to_local()


def _all_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _check_names(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if name not in own:
            raise ValueError(f"{name}: there is a value for it, but the model has no such weight")
        if value.shape != own[name].shape:
            raise ValueError(f"{name}: is {tuple(value.shape)}, where the model has {tuple(own[name].shape)}")
