"""Is the trainer right on this device? Against the CPU, in higher precision where that says more.

`train_gpu.py check` runs it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model import LogMedian, WTDiT, objective, preset, sample
from tests.benchmarks.gpu_rows import RELEASED, Bench, autocast, batch_on, exact_products, verdict
from train.step import compute
from train.step.update import Update

SAMPLER, UPDATE = "20 steps of the sampler", "20 steps of the update"
PLAINLY = {"compile": False, "activations": "keep", "attention": "auto"}


def check(bench: Bench) -> None:
    """Rows of relative errors with their bounds."""
    for name, changes in (("tiny", {}), ("scene", {"film_adaln": True, "patch": 14, "width": 96})):
        shape = preset("tiny", **changes)
        torch.manual_seed(0)
        truth = WTDiT(shape)
        with torch.no_grad():
            for weight in truth.parameters():  # the last layer starts at zero, and hides all before it
                weight.add_(0.02 * torch.randn_like(weight))
        weights = {key: value.clone() for key, value in truth.state_dict().items()}
        cpu = batch_on(torch.device("cpu"), 4 * shape.patch, 2, shape.layers)
        bench.close(f"{name}: points of a batch", cpu.to(bench.device).xyz, cpu.xyz, 1e-5)

        x0, _ = (LogMedian() if name == "scene" else RELEASED).forward(cpu.xyz, cpu.valid)
        targets = cpu.rgb, x0, cpu.valid, torch.rand(2, shape.layers), torch.randn_like(x0)
        expected = gradients(truth.double(), [x.double() if x.is_floating_point() else x for x in targets])
        variants: list[tuple[str, bool, dict[str, Any]]] = [
            ("float32", False, {}),
            ("float32, computed twice", False, {"activations": "recompute"}),
            ("float32, compiled", False, {"compile": True}),
            ("bf16", True, {}),
            ("bf16, compiled", True, {"compile": True}),
            *((f"bf16, {kernel}", True, {"attention": kernel}) for kernel in compute.KERNELS),
        ]
        for variant, half, chosen in variants:
            if not bench.due(f"{name}: {variant}"):
                continue
            settings = bench.settings(4 * shape.patch, 2, model={"preset": "tiny"}, compute={**PLAINLY, **chosen})
            model = WTDiT(shape)
            model.load_state_dict(weights)
            compute.prepare(model, settings, bench.ranks)
            with exact_products(), compute.attention(settings.compute), autocast(bench.device, half):
                found = gradients(model, [x.to(bench.device) for x in targets])
            bench.close(f"{name}: {variant}", torch.cat(found), torch.cat(expected), 2e-2 if half else 1e-3)
            error, bound = _worst(found, expected), 1e-1 if half else 1e-3
            bench.row(f"{name}: {variant}: worst weight", error=error, bound=bound, **verdict(error, bound))
            torch._dynamo.reset()  # attention's kernel is chosen when compiling
            bench.clear()
    if bench.due(SAMPLER):
        check_sampler(bench)
    if bench.due(UPDATE):
        check_update(bench)


def gradients(model: nn.Module, targets: Sequence[Tensor]) -> list[Tensor]:
    """The loss of (rgb, x0, valid, t, noise) and the gradient of every weight, flat, in float64 on the CPU."""
    loss = objective(model, *targets).total
    loss.backward()
    found = [loss.detach()[None], *(p.grad.flatten() for p in model.parameters() if p.grad is not None)]
    return [x.double().cpu() for x in found]


def _worst(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest relative error of any one; what is small beside the whole is held against a thousandth of that."""
    least = 1e-3 * float(torch.cat(list(expected)).norm())
    errors = [float((a - b).norm()) / max(float(b.norm()), least) for a, b in zip(found, expected, strict=True)]
    return max(errors, key=lambda error: math.inf if math.isnan(error) else error)


def check_sampler(bench: Bench) -> None:
    shape = preset("tiny")
    torch.manual_seed(1)
    model = WTDiT(shape)
    nn.init.normal_(model.head.projection.weight, std=0.05)
    found = []
    for device in (torch.device("cpu"), bench.device):
        batch = batch_on(torch.device("cpu"), 4 * shape.patch, 2, shape.layers).to(device)
        with exact_products():  # noise from generators of the CPU, which is the same everywhere
            seeds = [torch.Generator().manual_seed(k) for k in range(2)]
            found.append(sample(model.to(device), batch.rgb, batch.valid, seeds, 20))
    bench.close(SAMPLER, found[1], found[0], 1e-3)


def check_update(bench: Bench) -> None:
    """The same gradients on both, a loss that is NaN at step 7 and a spike at step 15."""
    ends = []
    for device in (torch.device("cpu"), bench.device):
        torch.manual_seed(2)
        model = WTDiT(preset("tiny")).to(device)
        update = Update(model, bench.settings(112, 2, model={"preset": "tiny"}, optimizer={"warmup": 2}))
        for step in range(1, 21):
            generator = torch.Generator().manual_seed(step)
            for weight in update.weights.values():
                weight.grad = torch.randn(weight.shape, generator=generator).to(device)
            loss = torch.tensor({7: float("nan"), 15: 99.0}.get(step, 1.0), device=device)
            update.step(loss, update.norm(), 1e-3, warm=step > 2)
        ends.append((update, model))
    (cpu, _), (here, _) = ends
    bench.close(f"{UPDATE}: weights", _vector(here.shards), _vector(cpu.shards), 1e-4)
    bench.close(f"{UPDATE}: average", _vector(here.average), _vector(cpu.average), 1e-4)
    counts = torch.tensor([list(each.counts()) for each in (here, cpu)])
    bench.close(f"{UPDATE}: counts", counts[0].float(), counts[1].float(), 0.0)


def _vector(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([x.detach().flatten() for x in tensors.values()])
