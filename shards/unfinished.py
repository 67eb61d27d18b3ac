"""Is a dataset still being made? What lies there is not all of it then: only the command that makes it can end it."""

from .dataset_json import parse_dataset_json
from .layout import DATASET_JSON, MANIFEST, UNITS
from .store import Store, under

REMEDY = "run the command that writes it again, which goes on from there"


def is_unfinished(store: Store) -> bool:
    """Whether dataset.json says so; where it says nothing, or cannot be read: whether records of units lie there."""
    try:
        complete = parse_dataset_json(store.read(DATASET_JSON), "").get("complete")
    except (FileNotFoundError, ValueError):
        complete = None
    if complete is not None:
        return complete is False
    try:
        return bool(store.sizes(UNITS))
    except OSError:  # a web server lists nothing
        return False


def unfinished(store: Store) -> str:
    """What to say of it."""
    return f"{store.text} is not finished: {REMEDY}"


def missing_manifest(store: Store) -> FileNotFoundError:
    """Why there is none, and what to do."""
    if is_unfinished(store):
        return FileNotFoundError(unfinished(store))
    return FileNotFoundError(
        f"{under(store, MANIFEST)} is missing: give the folder or URL that `worldtrace render --out` wrote, or rebuild "
        "it with `worldtrace shards verify DIR --repair`"
    )
