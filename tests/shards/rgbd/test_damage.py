"""Whatever happens to a file of a corpus, its reader gives a frame or one typed reason, never another exception."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shards.lari import LaRI
from shards.rgbd import Unreadable, open_corpus
from shards.rgbd.base import REASONS
from tests.shards import test_lari
from tests.shards.rgbd import test_folder, test_hypersim, test_synthetic

CORPORA: dict[str, Callable[[Path], object]] = {
    "hypersim": lambda root: test_hypersim.write_hypersim(root, test_hypersim.TILTED),
    "taskonomy": lambda root: test_synthetic.write_taskonomy(root, by_task=True),
    "tartanair": test_synthetic.write_tartanair,
    "parallel_domain": test_synthetic.write_parallel_domain,
    "folder.npy": lambda root: test_folder.write_folder(root / "a", "npy"),
    "folder.exr": lambda root: test_folder.write_folder(root / "a", "exr"),
    "lari.room": lambda root: test_lari.write_blender(root / "a", room=True, views=1),
    "lari.scan": test_lari.write_scannetpp,
}


@pytest.mark.parametrize("corpus", sorted(CORPORA))
@pytest.mark.filterwarnings("ignore")  # of libraries, about what they find
def test_damage_gives_a_typed_reason_or_a_frame(corpus: str, tmp_path: Path) -> None:
    CORPORA[corpus](tmp_path)
    reader = open_corpus(corpus.partition(".")[0], tmp_path)
    paths = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    rng = np.random.default_rng(list(corpus.encode()))
    reasons = set()
    for _ in range(40):
        path = paths[rng.integers(len(paths))]
        whole = path.read_bytes()
        damaged = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, max(1, len(damaged)), 3 if damaged else 0):
            damaged[at] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            for scene in reader.scenes():
                for frame in reader.frames(scene):
                    if isinstance(reader, LaRI):
                        reader.view(scene, 0, frame, 6)
                    else:
                        reader.read(scene, frame)
        except Unreadable as error:
            reasons.add(error.reason)
        path.write_bytes(whole)
    assert reasons <= set(REASONS)
    assert len(reasons) >= 2
