"""What is asked about, of whatever kind: framed as the model was trained, valid where it should be, or refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.micro import SIZE, disc, micro_run, over
from train.prediction.ask import ask
from train.run import Run


@pytest.fixture(scope="module")
def objects() -> Run:
    return micro_run()


@pytest.fixture(scope="module")
def scenes() -> Run:
    return micro_run(scene=True)


@pytest.fixture(scope="module")
def moving() -> Run:
    return micro_run(frames=4)


CLIP = [disc(centre=(30, 20 + 8 * t), radius=12) for t in range(6)]


def test_an_object_is_framed_at_two_thirds_over_black(objects: Run) -> None:
    asked = ask(disc(), objects)
    assert asked.rgb.shape == (1, SIZE, SIZE, 3)
    assert asked.image_size == (60, 80)
    rows, _ = np.nonzero(asked.valid[0])
    assert np.ptp(rows) + 1 == pytest.approx(SIZE * 2 / 3, abs=1)
    assert (asked.rgb[0][0, 0] == 0).all()
    assert asked.framed_from_image is not None
    assert (asked.framed_from_image @ [40, 30, 1])[:2] == pytest.approx([SIZE / 2, SIZE / 2])
    assert asked.says == ()


def test_a_scene_is_seen_whole_but_for_its_sky(scenes: Run) -> None:
    rgb = np.full((60, 90, 3), 120, np.uint8)
    asked = ask(rgb, scenes)
    assert asked.valid.all()
    assert asked.rgb.shape == (1, 14, 28, 3)
    sky = np.full((60, 90), 255, np.uint8)
    sky[:, 45:] = 0
    cut = ask(rgb, scenes, mask=sky)
    assert cut.valid[0, :, :14].all()
    assert not cut.valid[0, :, 14:].any()
    assert np.array_equal(ask(np.dstack([rgb, sky]), scenes).valid, cut.valid)
    assert ask(rgb, scenes, stretch=True).rgb.shape == (1, SIZE, SIZE, 3)


def test_the_kind_that_is_asked_for_is_framed(objects: Run, scenes: Run) -> None:
    rgba = disc()
    assert ask(rgba, scenes, kind="object").rgb.shape == (1, SIZE, SIZE, 3)
    whole = ask(rgba[..., :3], objects, kind="scene")
    assert whole.valid.all()
    with pytest.raises(ValueError, match="one picture is no clip"):
        ask(rgba, objects, kind="clip")


def test_a_mask_is_found_when_it_is_asked_for_and_said(
    objects: Run, scenes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.prediction.masks._has_rembg", lambda: False)
    picture = over(disc(120, 160, (60, 80), 30), np.full(3, 250.0))
    with pytest.raises(ValueError, match=r"nothing says where the object is.*--mask auto"):
        ask(picture, objects)
    asked = ask(picture, objects, mask="auto")
    assert asked.says == ("image: masked by a fill of its even background",)
    truth = ask(disc(120, 160, (60, 80), 30), objects)
    assert (asked.valid == truth.valid).mean() > 0.97
    with pytest.raises(ValueError, match="finds objects; a scene needs none"):
        ask(picture, scenes, mask="auto")


def test_what_has_nothing_to_predict_is_refused(objects: Run, scenes: Run) -> None:
    empty = np.zeros((60, 80, 4), np.uint8)
    with pytest.raises(ValueError, match="image: the mask is empty"):
        ask(empty, objects)
    with pytest.raises(ValueError, match="nothing to predict"):
        ask(empty, scenes)
    hair = np.zeros((400, 400, 4), np.uint8)
    hair[:, 200] = 255
    with pytest.raises(ValueError, match="leaves no pixel"):
        ask(hair, objects)


def test_a_clip_is_framed_once_and_cut_to_what_the_model_knows(moving: Run) -> None:
    asked = ask(CLIP, moving)
    assert asked.frames == 4
    assert asked.says == ("clip: the first 4 of its frames",)
    columns = [np.nonzero(valid)[1].mean() for valid in asked.valid]
    assert np.diff(columns) == pytest.approx([8 * asked.framed_from_image[0, 0]] * 3, abs=0.5)  # type: ignore[index]
    assert ask(CLIP, moving, frames=6).frames == 6
    every_other = ask(CLIP, moving, stride=2)
    assert every_other.names == ("frame 0", "frame 2", "frame 4")
    masks = [frame[..., 3] for frame in CLIP]
    plain = [frame[..., :3] for frame in CLIP]
    again = ask(plain, moving, mask=masks, stride=2)  # the mask of each frame, at the same stride
    assert np.array_equal(again.valid, every_other.valid)
    still = ask(plain, moving, mask=masks[0])
    assert (still.valid == still.valid[0]).all()
    with pytest.raises(ValueError, match="2 masks for 4 frames"):
        ask(plain, moving, mask=masks[:2])
    with pytest.raises(ValueError, match=r"frame 0: nothing says"):
        ask(plain, moving)


def test_a_model_of_single_frames_takes_the_first_unless_a_clip_is_asked_for(objects: Run, tmp_path: Path) -> None:
    first, *rest = [Image.fromarray(frame) for frame in CLIP]
    first.save(tmp_path / "clip.webp", save_all=True, append_images=rest, lossless=True)
    asked = ask(tmp_path / "clip.webp", objects)
    assert asked.frames == 1
    assert asked.says == ("clip.webp: its first frame; --kind clip predicts several",)
    assert np.array_equal(asked.valid, ask(CLIP[0], objects).valid)
    assert ask(tmp_path / "clip.webp", objects, kind="clip").frames == 6


def test_what_is_of_clips_is_refused_for_one_picture(objects: Run, tmp_path: Path) -> None:
    rgba = disc()
    for more in ({"frames": 2}, {"stride": 2}):
        with pytest.raises(ValueError, match="are of clips"):
            ask(rgba, objects, **more)  # type: ignore[arg-type]
    for masks in ([rgba[..., 3]] * 2, tmp_path):
        with pytest.raises(ValueError, match="several masks for one picture"):
            ask(rgba, objects, mask=masks)


def test_a_sample_comes_with_its_truth(objects: Run, moving: Run, dataset: Path, clips: Path) -> None:
    import shards

    data = shards.open(dataset)
    asked = ask(f"{dataset}#{data.keys[3]}", objects)
    assert asked.name == data.keys[3]
    assert len(asked.truths) == asked.frames == 1
    assert np.array_equal(asked.valid[0], asked.truths[0].valid)
    key = shards.open(clips).keys[0]
    clip = ask(f"{clips}#{key}", moving)
    assert clip.frames == len(clip.truths) == len(set(clip.names)) == 3
    assert ask(f"{clips}#{key}", moving, frames=2).frames == 2
    assert ask(f"{clips}#{key}", moving, stride=2).frames == 2
    assert ask(f"{clips}#{key}", objects).frames == 1
    assert ask(f"{clips}#{key}", objects, kind="clip").frames == 3
    with pytest.raises(ValueError, match="no sample 'nothing'"):
        ask(f"{dataset}#nothing", objects)
    with pytest.raises(ValueError, match="no clip"):
        ask(f"{dataset}#{data.keys[3]}", objects, kind="clip")
