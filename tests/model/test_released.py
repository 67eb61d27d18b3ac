"""The released checkpoints: every name maps both ways, the weights tell their model, and nothing else is taken."""

import json
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model import (
    RELEASED,
    LogMedian,
    WTConfig,
    WTDiT,
    ZScore,
    from_released,
    preset,
    read_released,
    release_named,
    release_of,
    to_released,
    write_released,
)
from model import released as the_release
from model.released_names import our_name, their_name
from tests.model.released_files import KINDS, drawn, reduced, same, write

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "released"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the released fixtures are not beside this checkout")


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in json.loads((FIXTURES / f"{name}.shapes.json").read_text()).items()}


@needs_fixtures
@pytest.mark.parametrize("name", KINDS)
def test_names_and_shapes_are_the_released_ones(name: str) -> None:
    with torch.device("meta"):
        state = WTDiT(preset(KINDS[name], decoder_blocks=6, head_blocks=3)).state_dict()
    assert {key: tuple(value.shape) for key, value in to_released(state).items()} == shapes(name)


@pytest.mark.parametrize(("name", "count"), [("wt_o", 1233), ("wt_s", 1127), ("wt_d", 1485)])
def test_full_models_map_there_and_back(name: str, count: int) -> None:
    with torch.device("meta"):
        state = WTDiT(preset(name)).state_dict()
    released = to_released(state)
    assert len(released) == count
    assert "net.decoder_blocks.35.norm3.weight" in released
    assert "net.encoder.blocks.23.norm2.weight" in released
    assert list(from_released(released)) == list(state)


FULL = {"wt_o": preset("wt_o"), "wt_s": preset("wt_s"), "wt_d": preset("wt_d")}
SHAPES = {
    **{kind: reduced(kind) for kind in KINDS},
    "six layers": reduced("object", layers=6, mlp_ratio=2),
    "clips of scenes": reduced("scene", temporal=True),
    **FULL,
}


@pytest.mark.parametrize("name", SHAPES)
def test_names_and_shapes_tell_the_whole_model(name: str) -> None:
    with torch.device("meta"):
        state = WTDiT(SHAPES[name]).state_dict()
    assert the_release._shape_of(state) == SHAPES[name]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_its_numbers_back(tmp_path: Path, kind: str, suffix: str) -> None:
    state = drawn(reduced(kind))
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        write(path, state, "ema_state_dict")
    else:
        save_file(to_released(state), path)
    read = read_released(path)
    assert same(read.tensors, state)
    assert (read.shape, read.kind, read.note) == (reduced(kind), kind, None)
    assert isinstance(read.normalisation, LogMedian if kind == "scene" else ZScore)


def test_the_head_changes_its_sign_and_nothing_else_does(tmp_path: Path) -> None:
    state = drawn(reduced("object"))
    theirs = to_released(state)
    for name, x in theirs.items():
        ours = state[our_name(name)]
        assert torch.equal(x, -ours if name.startswith("net.latents_projection.geo_proj.") else ours), name


def test_averaged_weights_come_first_and_prefixes_go(tmp_path: Path) -> None:
    average, last = drawn(reduced("object"), seed=1), drawn(reduced("object"), seed=2)
    theirs = {f"_orig_mod.{name}": x for name, x in to_released(average).items()}
    raw = to_released(last)
    for content, expected in (
        ({"model_state_dict": raw, "ema_state_dict": theirs, "step": 7}, average),
        ({"ema_state_dict": None, "model_state_dict": raw}, last),
        ({"ema_state_dict": {}, "model_state_dict": raw, "epoch": 3, "args": {"lr": 1e-4}}, last),
        (theirs, average),
        (raw, last),
    ):
        torch.save(content, tmp_path / "model.pt")
        assert same(read_released(tmp_path / "model.pt").tensors, expected)


def test_half_precision_and_parameters_become_plain_float32(tmp_path: Path) -> None:
    state = {name: torch.nn.Parameter(x.bfloat16()) for name, x in drawn(reduced("object")).items()}
    read = read_released(write(tmp_path / "model.pt", state))
    assert {type(x) for x in read.tensors.values()} == {Tensor}
    assert same(read.tensors, {name: x.detach().float() for name, x in state.items()})


def test_weights_stay_on_the_disk_until_they_are_used(tmp_path: Path) -> None:
    """All but the head's projection, whose sign changes, are the file's own pages."""
    path = write(tmp_path / "model.pt", drawn(reduced("object")))
    read = read_released(path)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [[int(at, 16) for at in line[0].split("-")] for line in lines if line[-1] == str(path)]
    own = {name for name, x in read.tensors.items() if not any(a <= x.data_ptr() < b for a, b in ranges)}
    assert own == {"head.projection.weight", "head.projection.bias"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_write_the_release_and_we_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    shape = reduced(kind)
    monkeypatch.setattr(the_release, "_ENCODER", shape.encoder)
    monkeypatch.setattr(the_release, "_FIXED", {})
    state = drawn(shape)
    if kind != "dynamic":
        assert the_release.unlike_released(shape) is None
    write_released(tmp_path / "model.pt", state, shape, {"step": 3, "model": shape.to_dict()})
    read = read_released(tmp_path / "model.pt")
    assert same(read.tensors, state)
    assert read.note == {"step": 3, "model": shape.to_dict()}
    # as the release reads it: the averaged weights, where the file says which are the others
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert same(content["ema_state_dict"], to_released(state))
    assert "model_state_dict" in content
    size = sum(x.numel() * 4 for x in state.values())
    assert (tmp_path / "model.pt").stat().st_size < 1.2 * size + 200_000, "both keys share their numbers"


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (preset("wt_o", masks=True), "no masks"),
        (preset("small"), "ViT-L/14: width 1024, here 192"),
        (preset("wt_o", encoder={"grid": 16}), "grid 37, here 16"),
        (preset("wt_o", patch=7), "patch is 14, here 7"),
        (preset("wt_o", time_shift=3.0), "time_shift is 1.0, here 3.0"),
        (preset("wt_d", film_adaln=True), "no AdaLN"),
    ],
)
def test_models_that_the_release_has_not_are_not_written(tmp_path: Path, shape: WTConfig, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"the release knows no such model \(.*{reason}") as error:
        write_released(tmp_path / "model.pt", {}, shape, {})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("name", FULL)
def test_models_that_the_release_has_are(name: str) -> None:
    assert the_release.unlike_released(FULL[name]) is None


def test_a_name_a_repository_or_a_path_tells_the_model() -> None:
    for name, release in RELEASED.items():
        assert release_named(name, release.kind) is release
        assert release_named(f"models/{name.upper()}.pt", release.kind) is release
        assert release_named(f"runs/my-{name}-copy/model.pt", release.kind) is release
        kept = f".cache/models--{release.repository.replace('/', '--')}/snapshots/0a1b/model.pt"
        for source in (kept, f"hf://{release.repository}", f"hf://{release.repository}/model.pt"):
            found = release_named(source, release.kind)
            assert found is not None
            assert (found.repository, found.size) == (release.repository, release.size)
    for source, kind in (
        ("ar75b.pt", "object"),
        ("r75bc/model.pt", "object"),
        ("hf://me/mine", "scene"),
        ("r75b.pt", "scene"),
    ):
        assert release_named(source, kind) is None
    assert [release_of("model.pt", kind).name for kind in KINDS] == ["r75b", "r69e", "r76"]
    assert [(r.size, r.frames) for r in RELEASED.values()] == [(504, 1), (504, 1), (504, 1), (840, 1), (336, 16)]


def test_names_that_are_none_are_named() -> None:
    with pytest.raises(ValueError, match=r"net\.unheard_of"):
        our_name("net.unheard_of.weight")
    with pytest.raises(ValueError, match=r"decoderr\.0"):
        their_name("decoderr.0.weight")


class Harm:
    def __reduce__(self) -> tuple:
        return print, ("this must never run",)


def _without(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: x for name, x in state.items() if part not in name}


FIRST = "net.decoder_blocks.0.norm1.weight"
HOSTILE = {
    "code": (lambda s: {**s, "x": Harm()}, "holds no weights as torch"),
    "code beside them": (lambda s: {"ema_state_dict": s, "args": Harm()}, "holds no weights as torch"),
    "a list": (lambda s: list(s.values()), "no state dict of tensors, but a list"),
    "nothing": (lambda s: {}, "no state dict of tensors, but a dict"),
    "no tensors": (lambda s: {"a": 3}, "a is an int"),
    "one that is no tensor": (lambda s: {**s, FIRST: "text"}, rf"{FIRST} is a str"),
    "names that are none": (lambda s: {**s, 7: torch.zeros(1)}, "7 is a Tensor"),
    "another model": (lambda s: {"fc.weight": torch.zeros(2)}, r"no World Tracing weights.*\(?fc\.weight mean"),
    "no embedding of layers": (lambda s: _without(s, "layer_embed"), r"no World Tracing model: without .*layer_embed"),
    "no decoder": (lambda s: _without(s, "decoder_blocks"), "no World Tracing model: without"),
    "a block less": (
        lambda s: _without(s, "decoder_blocks.2."),
        r"5 \+ 2 blocks has: .*missing \(.*decoder_blocks\.2.*too many \(.*decoder_blocks\.5",
    ),
    "a weight less": (lambda s: _without(s, FIRST), rf"1 are missing \({FIRST}\)"),
    "many less": (lambda s: _without(s, "norm1.bias"), r"1\d are missing \(.*, \.\.\.\)"),
    "a weight more": (lambda s: {**s, "net.extra.weight": torch.zeros(1)}, r"1 are too many \(net\.extra\.weight\)"),
    "our name": (lambda s: {**s, "net.decoder_blocks.0.norm2.weight": torch.zeros(48)}, r"1 are too many"),
    "a name of clips in a block": (
        lambda s: {**s, "net.decoder_blocks.0.block.norm1.weight": s[FIRST]},
        "1 are too many",
    ),
    "twice": (lambda s: {**s, f"_orig_mod.{FIRST}": s[FIRST]}, rf"{FIRST} twice"),
    "another shape": (lambda s: {**s, FIRST: torch.zeros(47)}, rf"{FIRST} is 47, and 48 fits"),
    "no shape": (lambda s: {**s, FIRST: torch.tensor(1.0)}, rf"{FIRST} is a number, and 48 fits"),
    "a shape that says too little": (lambda s: {**s, "layer_embed.weight": torch.tensor(1.0)}, "without layer_embed"),
    "width 0": (lambda s: {**s, "net.feature_projection.0.weight": torch.zeros(24, 0)}, "no World Tracing model"),
    "whole numbers": (lambda s: {**s, FIRST: torch.ones(48, dtype=torch.int64)}, "weights are floats"),
    "no numbers": (
        lambda s: {**s, FIRST: torch.full((48,), float("nan"))},
        rf"{FIRST} has numbers that are not finite",
    ),
    "infinity": (lambda s: {**s, FIRST: torch.tensor([float("inf")] * 48)}, "not finite"),
    "sparse": (lambda s: {**s, FIRST: torch.ones(48).to_sparse()}, "no numbers of"),
    "no device": (lambda s: {**s, FIRST: torch.ones(48, device="meta")}, "no numbers of"),
    "one number for many": (lambda s: {**s, FIRST: torch.ones(1).expand(10**9)}, "no numbers of"),
    "one memory for all": (lambda s: dict.fromkeys(s, torch.ones(10**6)), "more than the file has"),
    "a strange note": (lambda s: {"ema_state_dict": s, "worldtrace": "[" * 10**5}, "no JSON object"),
    "a note that is none": (lambda s: {"ema_state_dict": s, "worldtrace": "[1]"}, "no JSON object"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_released_model_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, told = HOSTILE[case]
    torch.save(change(to_released(drawn(reduced("object")))), tmp_path / "model.pt")
    began = time.process_time()
    with pytest.raises(ValueError, match=told) as error:
        read_released(tmp_path / "model.pt")
    assert time.process_time() - began < 20
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert str(tmp_path / "model.pt") in str(error.value)
    assert "never run" not in capsys.readouterr().out


def test_a_file_that_is_cut_or_none_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "model.pt", drawn(reduced("object"))).read_bytes()
    path = tmp_path / "cut.pt"
    for content in (
        b"",
        b"PK\x03\x04",
        whole[:1000],
        whole[:-1000],
        whole[: len(whole) // 2],
        b"\x80\x02}." * 3,
        b"x" * 999,
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cut\.pt.*(holds no weights|no state dict)"):
            read_released(path)
    with pytest.raises(FileNotFoundError, match=r"gone\.pt does not exist"):
        read_released(tmp_path / "gone.pt")


@pytest.mark.parametrize("member", ["data.pkl", "data/0"])
def test_a_file_that_would_unpack_to_more_is_refused(tmp_path: Path, member: str) -> None:
    """A zip bomb: torch packs nothing, so what is packed was made by somebody else."""
    write(tmp_path / "model.pt", drawn(reduced("object")))
    with zipfile.ZipFile(tmp_path / "model.pt") as there, zipfile.ZipFile(tmp_path / "bomb.pt", "w") as here:
        for info in there.infolist():
            bomb = info.filename.endswith(member)
            content = bytes(10**7) if bomb else there.read(info)
            here.writestr(info.filename, content, zipfile.ZIP_DEFLATED if bomb else zipfile.ZIP_STORED)
    began = time.process_time()
    with pytest.raises(ValueError, match="holds no weights as torch"):
        read_released(tmp_path / "bomb.pt")
    assert time.process_time() - began < 5
