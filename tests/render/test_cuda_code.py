"""The kernels as code for CUDA, which the compiler inside Warp makes without a GPU: as careful as on a CPU.

A fused product on one side of a shared edge opens cracks between triangles; it, approximate functions and flushed
subnormals would make the image of a GPU another one than that of a CPU.
"""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import warp as wp

from render import develop_kernels, peel_kernels, shade_kernels, surface_kernels

CARELESS = re.compile(r"\b(?:fma\.\S+|\w+\.approx\S*|\w+(?:\.\w+)*\.ftz\S*)")


@wp.kernel
def careless(a: wp.array(dtype=wp.float32), b: wp.array(dtype=wp.float32)):
    """What a compiler may fuse and approximate, if it is let."""
    i = wp.tid()
    b[i] = wp.sin(a[i]) * a[i] + b[i] / a[i]


def ptx_of(module: ModuleType, folder: Path) -> str:
    if 90 not in wp.get_cuda_supported_archs():
        pytest.skip("this Warp has no compiler for CUDA")
    wp.compile_aot_module(module, arch=90, module_dir=str(folder), use_ptx=True)
    (ptx,) = (path.read_text() for path in folder.glob("*.ptx"))
    return ptx


@pytest.mark.parametrize(
    ("module", "kernels", "instructions"),
    [
        (peel_kernels, ("project", "raster", "raster_strips"), ("mul.rn.f64", "atom.global.min.u64")),
        (surface_kernels, ("surfaces", "first_depth"), ("mul.rn.f64",)),
        (shade_kernels, ("shade", "unresolved"), ("mul.rn.f32", "sqrt.rn.f32", "div.rn.f32")),
        (develop_kernels, ("meter", "develop", "fill"), ("mul.rn.f32", "div.rn.f32")),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else "",
)
def test_the_kernels_compile_for_cuda_with_careful_arithmetic(module, kernels, instructions, tmp_path):
    ptx = ptx_of(module, tmp_path)
    for kernel in kernels:
        assert re.search(rf"\.entry {kernel}_\w+_cuda_kernel_forward", ptx), kernel
    for instruction in instructions:
        assert instruction in ptx
    assert sorted(set(CARELESS.findall(ptx))) == []


def test_careless_arithmetic_would_be_found(tmp_path):
    wp.set_module_options({"fuse_fp": True, "fast_math": True, "enable_backward": False})
    found = {instruction.partition(".")[0] for instruction in CARELESS.findall(ptx_of(sys.modules[__name__], tmp_path))}
    assert {"fma", "sin"} <= found
