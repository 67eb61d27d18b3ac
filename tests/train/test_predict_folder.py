"""A folder of pictures: one set of outputs each, bad ones told and passed over, and on from where it was stopped."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.train.micro import disc, micro_run
from train.prediction import folder as folders
from train.prediction.archive import read_npz
from train.prediction.ask import Asked, ask
from train.prediction.folder import LEDGER, How, Outcome, predict_folder
from train.prediction.predict import answer
from train.prediction.prediction import Prediction
from train.run import Run

HOW = How(("npz",), seeds=(0, 1), steps=1)


@pytest.fixture(scope="module")
def run() -> Run:
    return micro_run()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(3):
        Image.fromarray(disc(centre=(30, 25 + 10 * k), radius=10 + 2 * k)).save(folder / f"p{k}.png")
    return folder


def ledger(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / LEDGER).read_text().splitlines()]


def quiet(_: str) -> None:
    pass


def test_each_picture_is_predicted_as_by_itself(run: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said: list[str] = []
    assert predict_folder(run, pictures, out, HOW, say=said.append) == Outcome(3, 0, 0)
    assert [line.split(":")[0] for line in said] == ["p0.png", "p1.png", "p2.png"]
    for k in range(3):
        alone = answer(run, [ask(pictures / f"p{k}.png", run)], HOW.seeds, HOW.steps)[0][0]
        (read,) = read_npz(out / f"p{k}.npz")
        assert np.allclose(read.xyz, alone.xyz, atol=1e-5)
        assert np.allclose(read.framed_from_image, alone.framed_from_image)
    assert [entry["state"] for entry in ledger(out)] == ["done"] * 3


def test_bad_pictures_are_rejected_with_the_reason_and_the_others_are_done(
    run: Run, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "a-broken.png").write_text("nothing")
    Image.fromarray(disc()[..., :3]).save(pictures / "b-opaque.jpg")
    out = tmp_path / "out"
    outcome = predict_folder(run, pictures, out, HOW, say=quiet)
    assert outcome == Outcome(3, 0, 2)
    assert str(out / LEDGER) in outcome.line(out)
    reasons = {entry["picture"]: entry.get("reason") for entry in ledger(out)}
    assert "not a readable image" in reasons["a-broken.png"]
    assert "nothing says where the object is" in reasons["b-opaque.jpg"]
    assert reasons["p1.png"] is None
    Image.fromarray(disc()).save(pictures / "a-broken.png")  # mended, it is tried again; the others are left
    assert predict_folder(run, pictures, out, HOW, say=quiet) == Outcome(1, 3, 1)


def test_it_goes_on_where_it_was_stopped(
    run: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    answered = 0

    def stopped(*arguments: Any) -> Any:
        nonlocal answered
        if answered == 2:
            raise KeyboardInterrupt
        answered += 1
        return answer(*arguments)

    monkeypatch.setattr(folders, "answer", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict_folder(run, pictures, out, HOW, batch=2, say=quiet)  # two seeds: a picture at a time
    monkeypatch.setattr(folders, "answer", answer)
    with (out / LEDGER).open("a") as file:
        file.write('{"picture": "p2.png", "sta')  # the line that was being written
    assert predict_folder(run, pictures, out, HOW, say=quiet) == Outcome(1, 2, 0)
    assert predict_folder(run, pictures, out, HOW, say=quiet) == Outcome(0, 3, 0)


@pytest.mark.parametrize("change", ["seeds", "weights", "other weights", "bytes", "file", "format", "mask"])
def test_what_was_asked_otherwise_is_predicted_again(run: Run, pictures: Path, tmp_path: Path, change: str) -> None:
    out, masks = tmp_path / "out", tmp_path / "masks"
    masks.mkdir()
    for k in range(3):
        Image.fromarray(disc(centre=(30, 25 + 10 * k), radius=10)[..., 3]).save(masks / f"p{k}.jpg")
    how = replace(HOW, mask=str(masks))
    run = replace(run, path=tmp_path / "weights")
    run.path.write_text("one")
    predict_folder(run, pictures, out, how, say=quiet)
    again = Outcome(1, 2, 0)
    if change == "seeds":
        how, again = replace(how, seeds=(0, 2)), Outcome(3, 0, 0)
    elif change == "weights":
        run, again = replace(run, step=7), Outcome(3, 0, 0)
    elif change == "other weights":
        run.path.write_text("others")
        again = Outcome(3, 0, 0)
    elif change == "bytes":
        Image.fromarray(disc(radius=9)).save(pictures / "p1.png")
    elif change == "mask":
        Image.fromarray(disc(radius=9)[..., 3]).save(masks / "p1.jpg")
    elif change == "file":
        (out / "p1.npz").unlink()
    else:
        how, again = replace(how, formats=("npz", "depth.png")), Outcome(3, 0, 0)
    assert predict_folder(run, pictures, out, how, say=quiet) == again
    assert predict_folder(run, pictures, out, how, say=quiet) == Outcome(0, 3, 0)


def test_pictures_of_one_size_share_a_batch_and_few_are_held(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = micro_run(scene=True)
    for k in range(4):  # scenes of four shapes of frame, in turn
        for name in ("a", "b"):
            Image.fromarray(np.full((30 + 30 * (k % 2), 60 - 30 * (k // 2), 3), 50 * k, np.uint8)).save(
                pictures / f"{name}{k}.png"
            )
    sizes: list[tuple[int, set[tuple[int, ...]]]] = []

    def looking(run: Run, asked: Sequence[Asked], *rest: Any) -> Any:
        sizes.append((len(asked), {each.rgb.shape for each in asked}))
        return answer(run, asked, *rest)

    monkeypatch.setattr(folders, "answer", looking)
    outcome = predict_folder(scenes, pictures, tmp_path / "out", HOW, batch=4, say=quiet)
    assert outcome == Outcome(11, 0, 0)
    assert all(len(shapes) == 1 and count <= 2 for count, shapes in sizes)
    assert sum(count for count, _ in sizes) == 11
    assert any(count == 2 for count, _ in sizes)


def test_outputs_never_collide_nor_replace_a_picture(run: Run, pictures: Path, tmp_path: Path) -> None:
    Image.fromarray(disc()).save(pictures / "p0.webp", lossless=True)
    out = tmp_path / "out"
    predict_folder(run, pictures, out, HOW, say=quiet)
    assert {path.name for path in out.glob("*.npz")} == {"p0.png.npz", "p0.webp.npz", "p1.npz", "p2.npz"}
    with pytest.raises(ValueError, match="is the folder of the pictures"):
        predict_folder(run, pictures, pictures, replace(HOW, formats=("png",)))
    with pytest.raises(ValueError, match="use one of"):
        predict_folder(run, pictures, out, replace(HOW, formats=("gif",)))


def test_a_file_that_is_gone_is_missed_whatever_is_called_alike(run: Run, pictures: Path, tmp_path: Path) -> None:
    Image.fromarray(disc()).save(pictures / "p0.Large.png")
    out = tmp_path / "out"
    how = replace(HOW, formats=("npz", "depth.png"))
    predict_folder(run, pictures, out, how, say=quiet)
    for gone in ("p0.npz", "p1.L1.depth.png"):
        (out / gone).unlink()
        assert predict_folder(run, pictures, out, how, say=quiet) == Outcome(1, 3, 0)
        assert (out / gone).is_file()


@pytest.mark.parametrize(
    ("names", "formats", "called"),
    [
        (["a.png", "a.jpg", "a.png.png"], ["png"], ["a.png.png", "a.jpg.png", "a.png.png.png"]),
        (["x.png", "x.L0.depth.png"], ["png", "depth.png"], ["x.png", "x.L0.depth.png.png"]),
        (["x.depth.jpg"], ["png"], ["x.depth.jpg.png"]),
    ],
)
def test_every_picture_has_outputs_of_its_own(names: list[str], formats: list[str], called: list[str]) -> None:
    made = folders._names([Path(name) for name in names])
    assert [f"{made[Path(name)]}.{formats[0]}" for name in names] == called
    stack = Prediction(np.zeros((1, 1, 3)), np.ones((1, 1), bool), np.ones((1, 2, 1, 1, 3)), None, (0,))
    files = [file for name in made.values() for f in formats for file in folders._files(Path(f"{name}.{f}"), stack)]
    assert len({str(file).lower() for file in files}) == len(files)


def test_blocks_are_compiled_where_all_frames_have_one_size(
    run: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []
    monkeypatch.setattr(folders, "compile_for", lambda run, batches: compiled.append(batches))
    scenes = micro_run(scene=True)
    predict_folder(scenes, pictures, tmp_path / "a", HOW, say=quiet)  # as many sizes as aspect ratios
    assert not compiled
    predict_folder(scenes, pictures, tmp_path / "b", replace(HOW, stretch=True), say=quiet)
    predict_folder(run, pictures, tmp_path / "c", HOW, say=quiet)
    assert len(compiled) == 2


def test_a_name_commands_no_terminal_and_stops_nothing(run: Run, pictures: Path, tmp_path: Path) -> None:
    for name in (b"a\x1b]0;PWN\x07.png", b"caf\xe9.png"):
        (pictures / os.fsdecode(name)).write_bytes((pictures / "p0.png").read_bytes())
    (pictures / os.fsdecode(b"\xe9.jpg")).write_text("nothing")
    said: list[str] = []
    assert predict_folder(run, pictures, tmp_path / "out", HOW, say=said.append) == Outcome(5, 0, 1)
    assert len(said) == 6
    assert all(line.isprintable() and line.encode() for line in said)
    assert predict_folder(run, pictures, tmp_path / "out", HOW, say=said.append) == Outcome(0, 5, 1)
