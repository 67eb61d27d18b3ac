"""A report in one line of text: short enough for a terminal, in words for a file."""

from collections.abc import Mapping
from typing import Any


def in_words(line: Mapping[str, Any], steps: int) -> str:
    """The whole line, for a file or a pipe."""
    layers = " ".join(_number(x) for x in line["layers"])
    words = [f"step {line['step']}/{steps}", f"loss {_number(line['loss'], 4)}", f"layers {layers}"]
    words.append(f"{line['samples_per_second']:.1f} samples/s")
    if "mfu" in line:
        words.append(f"MFU {line['mfu']:.1%}")
    words.append(f"data wait {line['data_wait']:.0%}")
    if "memory" in line:
        reserved = f" of {line['memory_reserved'] / 1e9:.1f} reserved" if "memory_reserved" in line else ""
        words.append(f"memory {line['memory'] / 1e9:.1f}{reserved} GB")
    words.append(f"ETA {duration(line['eta'])}")
    if line.get("skipped"):
        words.append(f"skipped {line['skipped']}")
    return "  ".join(words)


def in_short(line: Mapping[str, Any], width: int = 100) -> str:
    """The same in `width` columns, the live line: for up to six layers and 999,999 steps all of it goes into 100. Where
    it does not, the layers are left out first, then the memory, the wait and the MFU; never the ETA.
    """
    words = {
        "step": f"step {line['step']}",
        "loss": f"loss {compact(line['loss'], 5)}",
        "layers": "layers " + " ".join(compact(x) for x in line["layers"]),
        "speed": f"{compact(line['samples_per_second'])}/s",
        **({"mfu": f"MFU {line['mfu']:.0%}"} if "mfu" in line else {}),
        "wait": f"wait {line['data_wait']:.0%}",
        **({"memory": f"{compact(line['memory'] / 1e9, 3)}GB"} if "memory" in line else {}),
        "eta": f"ETA {duration(line['eta'])}",
    }
    for name in ("layers", "memory", "wait", "mfu", "speed"):
        if len(" ".join(words.values())) > width:
            words.pop(name, None)
    return " ".join(words.values())


def switch_in_words(step: int, cause: Mapping[str, Any]) -> str:
    """Why step `step` is the last one with a time for each layer, of what Curriculum.cause says."""
    if cause["cause"] == "fixed":
        return f"step {step}: from here on all layers share one time (objective.shared_times_from)"
    before, means = (" ".join(_number(x) for x in cause[name]) for name in ("before", "means"))
    return (
        f"step {step}: from here on all layers share one time, because the loss of none falls any more: layers "
        f"{before} before step {cause['from']}, {means} since"
    )


def compact(x: float | None, width: int = 4) -> str:
    """A number >= 0 in at most `width` characters (at least 3), as many digits as fit: .012, 1.23, 12.3, 123, 2e4."""
    if x is None:
        return "-"
    for decimals in range(width - 1, -1, -1):
        text = f"{x:.{decimals}f}"
        text = text[1:] if text.startswith("0.") else text
        if len(text) <= width:
            return text
    return f"{x:.0e}".replace("e+0", "e").replace("e+", "e")


def duration(seconds: float) -> str:
    """3d04h, 5h07m, 12m09s or 8s."""
    whole = round(seconds)
    for size, unit, part, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02d}{below}"
    return f"{whole}s"


def _number(x: float | None, decimals: int = 3) -> str:
    return "-" if x is None else f"{x:.{decimals}f}"
