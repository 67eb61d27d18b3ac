"""Which files of predictions are taken for those of a sample, and which are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.evaluation.methods import Precomputed
from train.prediction.archive import write_npz
from train.prediction.prediction import Prediction

SIZE = 28


def test_stored_predictions_of_other_pixels_or_another_frame_are_refused(tmp_path: Path) -> None:
    valid = np.ones((SIZE, SIZE), bool)
    xyz = np.ones((1, 2, SIZE, SIZE, 3), np.float32)
    plain = Prediction(np.zeros((SIZE, SIZE, 3), np.float32), valid, xyz, None, (0,))
    stored = Precomputed("stored", tmp_path)

    def kept(**changes: Any) -> np.ndarray:
        write_npz(tmp_path / "k.npz", [replace(plain, **changes)])
        return stored.read("k", 1).xyz

    centred = np.array([[SIZE / 90, 0, -SIZE / 90 * 15], [0, SIZE / 90, 0], [0, 0, 1]])
    assert kept(framed_from_image=centred, image_size=(90, 120)).shape == (1, 1, 2, SIZE, SIZE, 3)
    assert kept(framed_from_image=np.diag([0.5, 0.5, 1])).shape
    crop = centred + [[0, 0, 5.0], [0, 0, 0], [0, 0, 0]]
    for framed in (crop, centred * [[1.5], [1.5], [1]], np.diag([0.5, 0.7, 1])):
        with pytest.raises(ValueError, match=r"k\.npz: framed_from_image says that a crop of its own was predicted"):
            kept(framed_from_image=framed, image_size=(90, 120))
    with pytest.raises(ValueError, match=r"behind the camera; points are to have .* \+z forward"):
        kept(xyz=xyz * np.array([1, -1, -1], np.float32))
