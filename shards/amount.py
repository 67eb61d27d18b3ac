"""How amounts are told to people."""


def sized(count: float) -> str:
    """Four digits and a unit of 1000s: "999 bytes", "1.5 KB"; "1000 TB" and more stay TB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def counted(count: int, name: str) -> str:
    """How many of a thing: "1 sample", "2 samples"."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
