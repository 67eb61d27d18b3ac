"""GPUs are found by the names torch and people give them, and their numbers obey physics."""

import pytest

from train.plan import gpus


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("h100", "h100"),
        ("H100", "h100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("RTX-4090", "rtx4090"),
    ],
)
def test_a_gpu_is_found_by_its_short_and_its_whole_name(name: str, short: str) -> None:
    assert gpus.find(name).name == short


def test_the_peak_is_that_of_the_papers_gpu() -> None:
    """989 TFLOP/s dense: half of the 1,979 that the H100 data sheet prints with sparsity."""
    assert gpus.peak("NVIDIA H100 80GB HBM3") == pytest.approx(1979e12 / 2, rel=1e-3)
    assert gpus.peak("NVIDIA H100 80GB HBM3", given=1e12) == 1e12
    assert gpus.peak("a card of tomorrow") is None
    assert gpus.peak("a card of tomorrow", given=1e15) == 1e15


@pytest.mark.parametrize(
    "name", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 D", "h101", "Tesla V100"]
)
def test_what_is_not_known_as_a_whole_is_unknown(name: str) -> None:
    """A seventh of an H100 must not be given the peak of a whole one."""
    with pytest.raises(ValueError, match=r"GPU '.*' is unknown; .* known .*compute\.peak") as error:
        gpus.find(name)
    assert "\n" not in str(error.value)
    assert gpus.peak(name) is None


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="the nearest that is known is h100;"):
        gpus.find("h101")
    with pytest.raises(ValueError, match="the nearest that is known is rtx4090;"):
        gpus.find("NVIDIA GeForce RTX 4090 D")


def test_names_are_unique_and_numbers_in_their_units() -> None:
    names = [name for gpu in gpus.KNOWN for name in (gpu.name, *gpu.kinds)]
    assert len(set(map(str.lower, names))) == len(names)
    for gpu in gpus.KNOWN:
        assert 5e13 < gpu.flops < 1e16, gpu.name
        assert 2e10 <= gpu.memory < 1e12, gpu.name
        assert gpu.network <= gpu.link < gpu.bandwidth, f"{gpu.name}: the further the data, the slower"
        assert 50 < gpu.flops / gpu.bandwidth < 1000, f"{gpu.name}: FLOP per byte"
