"""`predict` and `predict_clip`: a small, stable surface, the camera of the picture, windows, batches, exactness."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import train
from tests.train.micro import SIZE, disc, micro_run
from train.downstream.stack import stack_of
from train.prediction import batch
from train.prediction import predict as predicting
from train.prediction.ask import ask
from train.prediction.batch import Stacks, predict_batch
from train.prediction.predict import answer
from train.prediction.prediction import Prediction, new_points
from train.run import Run
from train.step.stacks import stacks_of

CLIP = [disc(centre=(30, 20 + 5 * t), radius=12) for t in range(7)]


@pytest.fixture(scope="module")
def objects() -> Run:
    return micro_run()


@pytest.fixture(scope="module")
def moving() -> Run:
    return micro_run(frames=3)


def test_the_public_functions_are_what_notebooks_rely_on() -> None:
    """Change these lines only for a change that users are told of."""
    assert str(inspect.signature(train.predict)).replace("collections.abc.", "") == (
        "(image: str | pathlib.Path | PIL.Image.Image | numpy.ndarray, checkpoint: str | pathlib.Path | "
        "train.run.Run, *, mask: str | pathlib.Path | PIL.Image.Image | numpy.ndarray | None = None, "
        "seeds: int | Sequence[int] = 4, steps: int = 20, "
        "solver: Literal['euler', 'heun', 'multistep'] = 'euler', "
        "kind: Literal['auto', 'object', 'scene'] = 'auto', stretch: bool = False, "
        "device: Literal['auto', 'cpu', 'cuda'] = 'auto', "
        "say: Callable[[str], None] = <built-in function print>) -> train.prediction.prediction.Prediction"
    )
    names = ["frames", "checkpoint", "masks", "seeds", "steps", "solver", "count", "stride", "stretch", "device", "say"]
    assert list(inspect.signature(train.predict_clip).parameters) == names
    public = {name for name in dir(Prediction) if not name.startswith("_")}
    fields = {"rgb", "valid", "xyz", "K", "seeds", "exists", "name", "framed_from_image", "image_size"}
    assert set(Prediction.__dataclass_fields__) == fields
    assert public - fields == {"depth", "K_image", "field_of_view", "typical", "camera", "point_cloud"}


def test_a_file_an_image_and_an_array_are_one_question(objects: Run, tmp_path: Path) -> None:
    rgba = disc()
    Image.fromarray(rgba).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image")  # the noise is a function of the name
    forms: list[Any] = [rgba, rgba / 255, Image.fromarray(rgba), tmp_path / "image", str(tmp_path / "image")]
    answers = [train.predict(form, objects, seeds=2, steps=2) for form in forms]
    for each in answers:
        assert np.array_equal(each.xyz, answers[0].xyz)
        assert each.seeds == (0, 1)
    assert answers[0].xyz.shape == (2, 3, SIZE, SIZE, 3)
    assert np.array_equal(answers[0].depth, answers[0].xyz[..., 2])
    assert train.predict(rgba, objects, seeds=[5], steps=1).seeds == (5,)
    again = train.predict(rgba, objects, seeds=[1], steps=2)
    assert np.allclose(again.xyz[0], answers[0].xyz[1], atol=1e-5)
    with pytest.raises(ValueError, match="predict_clip"):
        train.predict(rgba, objects, kind="clip")  # type: ignore[arg-type]


def pinhole(K: np.ndarray, depth: float = 2.0) -> np.ndarray:
    """(3,SIZE,SIZE,3): planes that face a camera, the pixels of which they fill."""
    v, u = np.mgrid[:SIZE, :SIZE] + 0.5
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
    return np.stack([rays * (depth + layer) for layer in range(3)]).astype(np.float32)


def test_the_camera_is_that_of_the_picture_not_of_its_crop(objects: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    K = np.array([[70.0, 0, 43], [0, 75.0, 28], [0, 0, 1]])
    asked = ask(disc(), objects)
    assert asked.framed_from_image is not None
    points = pinhole(asked.framed_from_image @ K)

    def oracle(run: Run, rgb: np.ndarray, valid: np.ndarray, draws: Any, *_: Any) -> Stacks:
        xyz = np.repeat(points[None], len(draws), 0) * valid[:, None, :, :, None]
        return Stacks(xyz, np.broadcast_to(valid, xyz.shape[:-1]))

    monkeypatch.setattr(predicting, "predict_batch", oracle)
    prediction = train.predict(disc(), objects, seeds=2)
    assert prediction.K_image is not None
    assert prediction.K_image == pytest.approx(np.stack([K, K]), rel=1e-3)
    view = np.degrees([np.arctan(43 / 70) + np.arctan(37 / 70), np.arctan(28 / 75) + np.arctan(32 / 75)])
    assert prediction.field_of_view == pytest.approx(np.stack([view, view]), rel=1e-3)
    points_3d, colours = prediction.point_cloud(0)
    assert len(points_3d) == len(colours) == 3 * prediction.valid.sum()
    pixels = (points_3d @ K.T)[: prediction.valid.sum()]
    seen = disc()[(pixels[:, 1] / pixels[:, 2]).astype(int), (pixels[:, 0] / pixels[:, 2]).astype(int)]
    assert (seen[:, 3] > 0).all()  # the points reproject into the object, in the picture that was asked about


def test_without_a_camera_there_is_none_and_of_a_sample_it_is_its_own() -> None:
    valid = np.ones((4, 6), bool)
    K = np.eye(3)[None] * [2.0, 2.0, 1.0]
    bare = Prediction(np.zeros((4, 6, 3)), valid, np.ones((1, 2, 4, 6, 3)), None, (0,))
    assert bare.K_image is None
    assert bare.field_of_view is None
    own = replace(bare, K=K)
    assert own.K_image is K
    assert own.field_of_view == pytest.approx(np.degrees([[np.arctan(3.0), np.arctan(2.0)]]))


def test_what_is_not_there_is_in_no_point_cloud() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.normal(size=(1, 3, 4, 6, 3)).astype(np.float32) + [0, 0, 5]
    exists = rng.random((1, 3, 4, 6)) < 0.6
    valid = rng.random((4, 6)) < 0.8
    prediction = Prediction(np.zeros((4, 6, 3)), valid, xyz, None, (0,), exists)
    kept = xyz[0][exists[0] & valid]
    assert np.array_equal(prediction.point_cloud()[0], kept.astype(np.float32))
    repeated = np.repeat(xyz[0, :1], 3, axis=0)
    assert new_points(repeated, exists[0])[0].sum() == exists[0, 0].sum()
    # of a point that repeats one which is not there, the first that is there is new
    assert (new_points(repeated, exists[0]).sum(axis=0) == exists[0].any(axis=0)).all()


def test_pictures_that_are_answered_together_are_answered_as_alone(objects: Run) -> None:
    pictures = [disc(centre=(30, 30 + 5 * k), radius=10 + k) for k in range(3)]
    asked = [replace(ask(p, objects), name=f"p{k}", names=(f"p{k}",)) for k, p in enumerate(pictures)]
    alone = [answer(objects, [each], (0, 4), 2)[0][0] for each in asked]
    for at_once in (None, 1, 4):  # 4 of 6: a batch that splits a picture's seeds
        for one, other in zip(alone, answer(objects, asked, (0, 4), 2, at_once=at_once)):
            assert np.allclose(one.xyz, other[0].xyz, atol=1e-5)
            assert np.array_equal(one.rgb, other[0].rgb)
            assert one.name == other[0].name
    assert not np.allclose(alone[0].xyz, alone[1].xyz)


def test_a_clip_is_sampled_jointly_and_one_that_is_too_long_in_windows(moving: Run) -> None:
    asked = ask(CLIP, moving, frames=7)
    got = answer(moving, [asked], (0, 1), 2)[0]
    assert [each.name for each in got] == [f"frame {t}" for t in range(7)]
    draws = [(0, "clip"), (1, "clip")]

    def window(start: int) -> np.ndarray:
        part = slice(start, start + 3)
        return predict_batch(moving, asked.rgb[part], asked.valid[part], draws, 2, 3).xyz.reshape(
            2, 3, 3, SIZE, SIZE, 3
        )

    expected = np.concatenate([window(0), window(3), window(4)[:, 2:]], axis=1)  # the last one reaches back
    assert np.array_equal(np.stack([each.xyz for each in got], axis=1), expected)
    chunks = answer(moving, [asked], (0, 1), 2, at_once=1)[0]  # a draw at a time
    assert np.allclose(np.stack([each.xyz for each in chunks], axis=1), expected, atol=1e-5)
    # jointly: a frame is not what it is alone
    alone = answer(moving, [ask([CLIP[0]], moving, kind="clip")], (0,), 2)[0][0]
    assert not np.allclose(alone.xyz[0], got[0].xyz[0], atol=1e-3)


def test_a_clip_may_be_an_array_and_so_may_its_masks(moving: Run) -> None:
    one = train.predict_clip(CLIP, moving, seeds=1, steps=1)
    rgba = np.stack(CLIP)
    for frames, masks in ((rgba, None), (rgba[..., :3] / 255, rgba[..., 3])):
        for each, other in zip(train.predict_clip(frames, moving, masks=masks, seeds=1, steps=1), one):
            assert np.array_equal(each.xyz, other.xyz)
    for wrong in (rgba[0], torch.zeros(3, 4, 4)):
        with pytest.raises(ValueError, match=r"no clip"):
            train.predict_clip(wrong, moving)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a Tensor is no picture; give a file, a PIL image or an array"):
        train.predict(torch.zeros(3, 4, 4), moving)  # type: ignore[arg-type]


def test_a_model_of_single_frames_predicts_each_by_itself(objects: Run) -> None:
    asked = ask(CLIP[:3], objects, kind="clip")
    got = answer(objects, [asked], (0,), 2)[0]
    for t in range(3):
        alone = predict_batch(objects, asked.rgb[t : t + 1], asked.valid[t : t + 1], [(0, "clip")], 2).xyz
        assert np.array_equal(got[t].xyz, alone)


def test_a_frame_that_shows_nothing_has_no_points(moving: Run, objects: Run) -> None:
    empty = np.zeros_like(CLIP[0])
    for run in (moving, objects):
        got = train.predict_clip([CLIP[0], empty, CLIP[1]], run, seeds=1, steps=1)
        assert not got[1].valid.any()
        assert not got[1].xyz.any()
        assert not got[1].exists.any()
        assert got[1].K is None
        assert got[2].exists.any()
        assert len(got[1].point_cloud()[0]) == 0


def test_a_seed_that_no_camera_fits_leaves_the_others_theirs() -> None:
    depth = 2 + np.random.default_rng(0).random((3, 12, 12))
    v, u = np.meshgrid(np.arange(12) + 0.5, np.arange(12) + 0.5, indexing="ij")
    xyz = np.stack([(u - 6) / 10 * depth, (v - 6) / 10 * depth, depth], axis=-1)[:, None].astype(np.float32)
    xyz[1, ..., :2] = 0  # all on one line of sight
    valid = np.ones((12, 12), bool)
    K = predicting._cameras(Stacks(xyz, np.ones(xyz.shape[:-1], bool)), valid)
    assert K is not None
    assert np.isnan(K[1]).all()
    np.testing.assert_allclose(K[[0, 2]], np.broadcast_to([[10, 0, 6], [0, 10, 6], [0, 0, 1]], (2, 3, 3)), rtol=1e-4)
    made = Prediction(np.zeros((12, 12, 3)), valid, xyz, K, (0, 1, 2))
    assert made.field_of_view is not None
    assert np.isnan(made.field_of_view).any(axis=1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"no camera fits the points of seed 1, .* give another --seed"):
        stack_of(made, 1)
    assert np.isfinite(stack_of(made, 0).K).all()
    assert predicting._cameras(Stacks(xyz[1:2], np.ones((1, 1, 12, 12), bool)), valid) is None


def test_a_clip_of_more_points_than_memory_should_hold_is_refused(moving: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "MOST_BYTES", 13 * 2 * 7 * 3 * SIZE * SIZE)
    assert len(train.predict_clip(CLIP, moving, seeds=2, steps=1, count=7)) == 7
    with pytest.raises(ValueError, match=r"3 seeds of 7 frames are .* take fewer --frames or --seeds"):
        train.predict_clip(CLIP, moving, seeds=3, steps=1, count=7)


def test_a_regression_answers_once() -> None:
    run = micro_run(kind="regression")
    prediction = train.predict(disc(), run, seeds=4)
    assert prediction.seeds == (0,)
    assert len(prediction.xyz) == 1


@pytest.mark.parametrize(("precision", "during"), [("fp32", False), ("bf16", True)])
def test_float32_is_not_convolved_in_tf32(
    objects: Run, monkeypatch: pytest.MonkeyPatch, precision: str, during: bool
) -> None:
    seen: list[bool] = []

    def looking(*arguments: Any) -> Any:
        seen.append(torch.backends.cudnn.allow_tf32)
        return stacks_of(*arguments)

    monkeypatch.setattr(batch, "stacks_of", looking)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    run = replace(objects, config=objects.config.model_copy(update={"precision": precision}))
    train.predict(disc(), run, seeds=1, steps=1)
    assert seen == [during]
    assert torch.backends.cudnn.allow_tf32


def test_too_little_gpu_memory_is_told_in_a_sentence(objects: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Stacks:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(predicting, "predict_batch", full)
    with pytest.raises(ValueError, match=r"too little GPU memory .*fewer stacks at a time"):
        train.predict(disc(), objects, seeds=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("frames", [1, 3])
def test_a_gpu_predicts_what_a_cpu_does(frames: int) -> None:
    run = micro_run(frames=frames)
    on_cpu = train.predict_clip(CLIP[:3], run, seeds=2, steps=4)
    run.model.to("cuda")
    for one, other in zip(on_cpu, train.predict_clip(CLIP[:3], run, seeds=2, steps=4)):
        assert np.allclose(one.xyz, other.xyz, atol=2e-4)
