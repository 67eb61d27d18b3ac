"""What GPUs can do at best, by the names torch gives them: the peak that MFU is measured against, memory, links.

All numbers are the vendor's (the data sheet is named beside each), so they are upper bounds. Data sheets print tensor
throughput with 2:4 sparsity; the dense half of it stands here. Links are printed as the sum of both directions; one
direction stands here. Memory is the printed size in units of 1e9 bytes; torch reports about 5 % more of most.
"""

import difflib
import re
from dataclasses import dataclass

T, G = 1e12, 1e9
PCIE4, PCIE5 = 32 * G, 64 * G  # bytes/s in one direction over 16 lanes (PCI-SIG: 2 GB/s and 4 GB/s a lane)


@dataclass(frozen=True)
class Gpu:
    """`flops`: dense bf16 with float32 sums, FLOP/s. `memory` in bytes. `bandwidth` of the memory, bytes/s.

    `link`: bytes/s that one GPU sends to the others of its node while it receives as many. `network`: the same to other
    nodes, of the network that the vendor's own servers have (an assumption about yours). `kinds`: whole names that
    torch reports for it.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    link: float
    network: float
    kinds: tuple[str, ...]


KNOWN = (
    # NVIDIA H100 data sheet: SXM 1,979 TFLOPS with sparsity, 80 GB, 3.35 TB/s, NVLink 900 GB/s; PCIe 1,513, 80 GB, 2
    # TB/s, PCIe 5; NVL 1,671, 94 GB, 3.9 TB/s (its bridge joins two cards only). DGX H100: 400 Gb/s of network a GPU.
    Gpu("h100", 989 * T, 80 * G, 3.35 * T, 450 * G, 50 * G, ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM5 80GB")),
    Gpu("h100-pcie", 756 * T, 80 * G, 2.0 * T, PCIE5, 25 * G, ("NVIDIA H100 PCIe",)),
    Gpu("h100-nvl", 835 * T, 94 * G, 3.9 * T, PCIE5, 25 * G, ("NVIDIA H100 NVL",)),
    # NVIDIA H200 data sheet: SXM 1,979 TFLOPS with sparsity, 141 GB, 4.8 TB/s, NVLink 900 GB/s; NVL 1,671, PCIe 5.
    Gpu("h200", 989 * T, 141 * G, 4.8 * T, 450 * G, 50 * G, ("NVIDIA H200",)),
    Gpu("h200-nvl", 835 * T, 141 * G, 4.8 * T, PCIE5, 25 * G, ("NVIDIA H200 NVL",)),
    # H800, from the product guides of server makers (NVIDIA has none in public): an H100 SXM with NVLink of 400 GB/s.
    Gpu("h800", 989 * T, 80 * G, 3.35 * T, 200 * G, 50 * G, ("NVIDIA H800",)),
    # NVIDIA GH200 data sheet: 1,979 TFLOPS with sparsity, 96 GB at 4 TB/s; alone in its node, 400 Gb/s.
    Gpu("gh200", 989 * T, 96 * G, 4.0 * T, 50 * G, 50 * G, ("NVIDIA GH200 480GB",)),
    # NVIDIA DGX B200 data sheet, an eighth of it: 72 PFLOPS of FP8, twice bf16, with sparsity; 1,440 GB,
    # 64 TB/s, NVLink 14.4 TB/s; 400 Gb/s of network a GPU.
    Gpu("b200", 2250 * T, 180 * G, 8.0 * T, 900 * G, 50 * G, ("NVIDIA B200",)),
    # NVIDIA GB200 NVL72 data sheet, a 72nd of it: 360 PFLOPS with sparsity, 13.4 TB, 576 TB/s, NVLink 130 TB/s.
    Gpu("gb200", 2500 * T, 186 * G, 8.0 * T, 900 * G, 50 * G, ("NVIDIA GB200",)),
    # NVIDIA A100 data sheet: 312 TFLOPS dense; 40 GB at 1,555 GB/s, 80 GB at 2,039 (SXM) or 1,935 (PCIe); NVLink 600
    # GB/s, PCIe 4. DGX A100: 200 Gb/s of network a GPU.
    Gpu("a100", 312 * T, 80 * G, 2.039 * T, 300 * G, 25 * G, ("NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM-80GB")),
    Gpu("a100-40", 312 * T, 40 * G, 1.555 * T, 300 * G, 25 * G, ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB")),
    Gpu("a100-pcie", 312 * T, 80 * G, 1.935 * T, PCIE4, 12.5 * G, ("NVIDIA A100 80GB PCIe", "NVIDIA A100-PCIE-80GB")),
    Gpu("a100-pcie-40", 312 * T, 40 * G, 1.555 * T, PCIE4, 12.5 * G, ("NVIDIA A100-PCIE-40GB", "A100-PCIE-40GB")),
    # NVIDIA L40S data sheet: 362 TFLOPS dense, 48 GB, 864 GB/s; L40: 181; L4: 242 with sparsity, 24 GB, 300 GB/s; all
    # of PCIe 4.
    Gpu("l40s", 362 * T, 48 * G, 864 * G, PCIE4, 12.5 * G, ("NVIDIA L40S",)),
    Gpu("l40", 181 * T, 48 * G, 864 * G, PCIE4, 12.5 * G, ("NVIDIA L40",)),
    Gpu("l4", 121 * T, 24 * G, 300 * G, PCIE4, 12.5 * G, ("NVIDIA L4",)),
    # NVIDIA A40, A10 data sheets: 149.7 and 125 TFLOPS dense; 48 GB at 696 GB/s, 24 GB at 600 GB/s. PCIe 4.
    Gpu("a40", 149.7 * T, 48 * G, 696 * G, PCIE4, 12.5 * G, ("NVIDIA A40",)),
    Gpu("a10", 125 * T, 24 * G, 600 * G, PCIE4, 12.5 * G, ("NVIDIA A10",)),
    # NVIDIA RTX A6000 data sheet: 309.7 TFLOPS with sparsity, 48 GB, 768 GB/s; RTX 6000 Ada (Ada whitepaper): 364.2
    # dense, 48 GB, 960 GB/s. PCIe 4.
    Gpu("a6000", 154.8 * T, 48 * G, 768 * G, PCIE4, 12.5 * G, ("NVIDIA RTX A6000",)),
    Gpu("rtx6000-ada", 364.2 * T, 48 * G, 960 * G, PCIE4, 12.5 * G, ("NVIDIA RTX 6000 Ada Generation",)),
    # GeForce cards halve the rate of tensor cores where sums are float32. NVIDIA's Ampere, Ada and Blackwell
    # whitepapers, "FP16 Tensor TFLOPS with FP32 Accumulate", dense.
    Gpu("rtx3090", 71.0 * T, 24 * G, 936 * G, PCIE4, 12.5 * G, ("NVIDIA GeForce RTX 3090",)),
    Gpu("rtx4090", 165.2 * T, 24 * G, 1008 * G, PCIE4, 12.5 * G, ("NVIDIA GeForce RTX 4090",)),
    Gpu("rtx5090", 209.5 * T, 32 * G, 1792 * G, PCIE5, 12.5 * G, ("NVIDIA GeForce RTX 5090",)),
)


def find(name: str) -> Gpu:
    """The GPU of a short name such as `h100` or of the whole name torch.cuda.get_device_name gives.

    Whole names count as a whole: part of a GPU (MIG), or a cut-down version of it, is another one. ValueError, one
    sentence, names the nearest.
    """
    wanted = _plain(name)
    for gpu in KNOWN:
        if wanted in (_plain(gpu.name), *map(_plain, gpu.kinds)):
            return gpu
    names = {_plain(each): gpu.name for gpu in KNOWN for each in (gpu.name, *gpu.kinds)}
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    hint = f"the nearest that is known is {names[near[0]]}" if near else f"known are {', '.join(g.name for g in KNOWN)}"
    raise ValueError(f"GPU {name!r} is unknown; {hint}; set compute.peak to its dense bf16 FLOP/s for MFU")


def peak(name: str, given: float | None = None) -> float | None:
    """Dense bf16 FLOP/s to measure MFU against: `given` (compute.peak), else the known GPU's, else None."""
    if given is not None:
        return given
    try:
        return find(name).flops
    except ValueError:
        return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("nvidia"))
