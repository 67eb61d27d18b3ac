"""Which versions of which software make the bytes of a dataset."""

import importlib.metadata

SOFTWARE = ("worldtrace", "dracopy", "numpy", "pillow", "pyarrow", "warp-lang", "zstandard")


def versions() -> dict[str, str]:
    """Of every package in `SOFTWARE`; "absent" where it is not installed."""
    return {name: _version(name) for name in SOFTWARE}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
