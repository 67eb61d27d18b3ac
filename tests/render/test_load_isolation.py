"""What a loader opens: files of the asset's own folder, and nothing else, whatever the asset asks for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.render.test_load import ASSETS, BAD, OUTSIDE, WRITERS, needs_assets

ROOT = Path(__file__).parents[2]
# In a process of its own: an audit hook stays until the end.
SCRIPT = """
import json, os, sys
from pathlib import Path
from render.load import load
from render.mesh import Rejected
from PIL import Image
Image.init()  # its plugins are files, too
seen = []
def watch(event, given):
    if event == "open" and not isinstance(given[0], int):
        seen.append(os.path.realpath(os.fsdecode(given[0])))
    elif event in ("os.listdir", "os.scandir"):
        seen.append(os.path.realpath(os.fsdecode(given[0] or ".")))
    elif event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn")):
        seen.append(event)
paths = [Path(text) for text in json.load(sys.stdin)]
def load_all():
    found = []
    for path in paths:
        seen.clear()
        try:
            load(path)
        except Rejected:
            pass
        inside = str(path.resolve().parent)
        found += [[str(path), name] for name in seen if name != inside and not name.startswith(inside + os.sep)]
    return found
load_all()  # imports
sys.addaudithook(watch)
print(json.dumps([load_all(), len(seen)]))
"""


def strangers(paths: list[Path]) -> list[list[str]]:
    given = json.dumps([str(path) for path in paths])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=given, cwd=ROOT, capture_output=True, text=True, check=True
    )
    found, seen = json.loads(done.stdout)
    assert seen > 0  # the hook works: the last asset itself was opened
    return found


@needs_assets
def test_bad_assets_open_nothing_outside_their_folder() -> None:
    paths = [ASSETS / "bad" / name for name in sorted(BAD)]
    assert strangers([path for path in paths if path.suffix != ".json"]) == []


def test_no_name_opens_anything_outside(tmp_path: Path) -> None:
    (tmp_path / "canary.png").write_bytes(b"secret")
    paths = []
    for i, name in enumerate(OUTSIDE):
        for write in WRITERS:
            folder = tmp_path / f"{i}-{write.__name__}"
            folder.mkdir()
            (folder / "link.png").symlink_to(tmp_path / "canary.png")
            (folder / "deep").symlink_to(tmp_path)
            paths += [write(folder, name)]
    for i, name in enumerate(("link.png", "deep/canary.png", "DEEP/CANARY.png", "deep/absent.png", "LINK.PNG")):
        folder = tmp_path / f"link-{i}"
        folder.mkdir()
        (folder / "link.png").symlink_to(tmp_path / "canary.png")
        (folder / "deep").symlink_to(tmp_path)
        paths += [WRITERS[0](folder, name)]
    assert strangers(paths) == []


def test_the_test_itself_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that lets everything through is caught by the same script."""
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "canary.png").write_bytes(b"secret")
    path = WRITERS[0](folder, "../canary.png")
    broken = "import render.folder\nrender.folder.Folder.find = lambda self, name, uri: (self.root / name).resolve()\n"
    monkeypatch.setattr(sys.modules[__name__], "SCRIPT", broken + SCRIPT)
    assert strangers([path]) == [[str(path), str(tmp_path / "canary.png")]]
