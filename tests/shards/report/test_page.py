"""The page holds the dataset's numbers, stands alone, is the same each time, and shows what people of any name made."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import shards
from shards import Sample, encode, write_dataset_json, write_manifest, write_shard
from shards.cli import app
from shards.ledger import LedgerWriter, row
from shards.report import page, write_report
from tests.shards.chromium import browser, messages
from tests.shards.report.test_markup import Tags
from tests.shards.scenes import spheres_view
from tests.shards.test_version1 import ROOT as VERSION1
from tests.shards.web import serving

HOSTILE = "\"'></p><script>alert(document.title)</script><img src=x onerror=alert(1)>.glb"


def written(dataset: Path, out: Path, **options: object) -> str:
    path, _ = write_report(shards.open(dataset), out, "spheres", **options)  # type: ignore[arg-type]
    return path.read_text()


def make(root: Path, samples: list[Sample]) -> Path:
    rows = write_shard(root / "shards" / "000000-unit.tar", (encode(sample) for sample in samples))
    write_manifest(root, rows)
    write_dataset_json(root, {"layers": 6, "size": [24, 28], "job": {"name": HOSTILE}})
    return root


@pytest.fixture(scope="module")
def text(dataset_on_disk: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(dataset_on_disk, tmp_path_factory.mktemp("report"))


def test_the_page_stands_alone(text: str) -> None:
    parsed = Tags(text)
    names = Counter(name for name, _ in parsed.tags)
    assert not names.keys() & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:image/webp;base64,") or "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text


def test_what_is_linked_is_there_and_pictures_have_words(text: str) -> None:
    parsed = Tags(text)
    ids = Counter(attributes["id"] for _, attributes in parsed.tags if "id" in attributes)
    assert max(ids.values()) == 1
    links = [attributes["href"] for name, attributes in parsed.tags if name == "a"]
    assert links
    assert {str(link)[1:] for link in links} <= set(ids)
    pictures = [attributes for name, attributes in parsed.tags if name == "img"]
    assert pictures
    assert all("L0" in str(attributes["alt"]) for attributes in pictures)
    assert all(attributes.get("aria-label") for name, attributes in parsed.tags if name == "svg")
    assert ("html", {"lang": "en"}) in parsed.tags


def test_it_holds_the_numbers_of_the_dataset(dataset_on_disk: Path, text: str) -> None:
    dataset = shards.open(dataset_on_disk)
    words = Tags(text).words
    assert dataset.hash in words
    assert "Flag: untextured" in words
    assert "15 of 31 samples have this flag" in words
    assert "The worst: overflow" in words
    coverage = [share[0] for share in dataset.manifest["coverage"].to_pylist()]
    assert f"{100 * sum(coverage) / len(coverage):.2f}" in words
    assert "31 samples" in words
    assert "8.14" in words  # the paper's
    assert "has no ledger" in words
    assert "shards stats DIR" in words


def test_the_same_dataset_gives_the_same_bytes(dataset_on_disk: Path, tmp_path: Path, text: str) -> None:
    copy = Path(shutil.copytree(dataset_on_disk, tmp_path / "elsewhere"))
    assert written(copy, tmp_path / "again") == text
    assert written(copy, tmp_path / "again") == text  # and its own page is replaced


def test_it_is_the_same_from_behind_a_web_server(dataset_on_disk: Path, tmp_path: Path, text: str) -> None:
    with serving(dataset_on_disk) as server:
        path, damaged = write_report(shards.open(server.url), tmp_path, "spheres")
    assert damaged == []
    assert path.read_text() == text


def test_datasets_of_version_1_have_a_page(tmp_path: Path) -> None:
    words = Tags(written(VERSION1, tmp_path)).words
    assert shards.open(VERSION1).hash in words
    assert "Frames of a clip" in words
    assert "Damaged" not in words


def test_names_of_strangers_stay_text(tmp_path: Path) -> None:
    view = spheres_view(0, 24, 28)
    view = replace(view, origin=replace(view.origin, uid=HOSTILE, source=HOSTILE, licence=HOSTILE))
    view = replace(view, info={**view.info, "flags": [HOSTILE]})
    dataset = make(tmp_path / "data", [view])
    with open(dataset / "ledger.parquet", "wb") as file, LedgerWriter(file) as ledger:
        lost = row(unit="u", asset=HOSTILE, source="s", licence="l", status="failed", reason=HOSTILE, message=HOSTILE)
        ledger.write([lost])
    path, _ = write_report(shards.open(dataset), tmp_path / "out", HOSTILE, chosen=HOSTILE)
    parsed = Tags(path.read_text())
    assert not {"script"} & {name for name, _ in parsed.tags}
    assert not any("onerror" in attributes for _, attributes in parsed.tags)
    assert parsed.words.count("<script>alert(document.title)</script>") >= 10


def test_the_ledger_says_what_was_lost(dataset_copy: Path, tmp_path: Path) -> None:
    with open(dataset_copy / "ledger.parquet", "wb") as file, LedgerWriter(file) as ledger:
        base = {"unit": "u", "source": "s", "licence": "l"}
        rows = [
            row(asset=f"a{i}", status="rejected", reason="zero_extent", message=f"flat {i}", **base) for i in range(5)
        ]
        rows += [row(asset="good", status="done", views=3, views_rejected=["1:thin", "2:thin", "3:tiny"], **base)]
        ledger.write(rows)
    words = Tags(written(dataset_copy, tmp_path / "out")).words
    assert "1 of 6 assets" in words
    assert "zero_extent" in words
    assert "flat 2" in words
    assert "flat 3" not in words  # three examples are enough
    assert "thin2" in words


def test_a_damaged_sample_is_named_and_the_rest_is_shown(dataset_copy: Path, tmp_path: Path) -> None:
    dataset = shards.open(dataset_copy)
    path = dataset_copy / "shards" / dataset.manifest["shard"][3].as_py()
    content = bytearray(path.read_bytes())
    content[dataset.manifest["offset"][3].as_py() + 700] ^= 1
    path.write_bytes(content)
    out, damaged = write_report(dataset, tmp_path / "out", "spheres")
    assert [reading.key for reading in damaged] == [dataset.keys[3]]
    parsed = Tags(out.read_text())
    assert "Damaged samples" in parsed.words
    assert f"{dataset.keys[3]}" in parsed.words
    assert len([name for name, _ in parsed.tags if name == "img"]) > 10


def test_an_empty_selection_has_a_page_too(dataset_on_disk: Path, tmp_path: Path) -> None:
    dataset = shards.open(dataset_on_disk)
    empty = dataset.narrowed("frames > 9")
    path, damaged = write_report(empty, tmp_path, "none", chosen="of split val")
    assert "There is no sample in it" in path.read_text()
    assert damaged == []


def test_single_layers_are_shown_as_one(tmp_path: Path) -> None:
    views: list[Sample] = [
        replace(spheres_view(i, 24, 28, layers=1, regime="rgbd"), single_layer=True) for i in range(4)
    ]
    words = Tags(written(make(tmp_path / "data", views), tmp_path / "out")).words
    assert "rgbd: 4 samples" in words
    assert "The best" not in words
    assert "L1" not in words


def test_the_page_is_bounded(dataset_on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LARGEST", 30_000)
    text = written(dataset_on_disk, tmp_path)
    assert 0 < sum(len(str(at["src"])) for name, at in Tags(text).tags if name == "img") <= 30_000
    assert "The page has reached its size" in text.replace("No picture: the", "The")


def test_it_replaces_no_other_page(dataset_on_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(ValueError, match="no report of a dataset: give another folder"):
        written(dataset_on_disk, tmp_path)
    assert (tmp_path / "index.html").read_text() == "<h1>mine</h1>"
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        written(dataset_on_disk, tmp_path / "file")


def test_the_command_writes_it(dataset_on_disk: Path, tmp_path: Path) -> None:
    command = ["report", str(dataset_on_disk), "--out", str(tmp_path), "--where", "frames = 1", "--each", "2"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "30 samples" in result.output
    text = (tmp_path / "index.html").read_text()
    assert "Only samples where frames = 1." in Tags(text).words


def test_in_chromium_it_is_whole_on_a_desk_a_phone_and_paper(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(text)
    shots = {}
    with browser() as chromium:
        for name, width, scheme in (("desk", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")):
            view = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
            said = messages(view)
            view.goto((tmp_path / "index.html").as_uri())
            assert said == []
            across = view.evaluate("document.documentElement.scrollWidth")
            assert across <= width
            loaded = view.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
            assert len(loaded) > 10
            assert min(loaded) > 100
            assert view.evaluate("getComputedStyle(document.querySelector('.bar')).fill") != "rgb(0, 0, 0)"
            shots[name] = view.evaluate("getComputedStyle(document.body).backgroundColor")
            assert view.locator("h2").count() >= 6
            assert view.locator("h1").inner_text() == "spheres"
        paper = view.pdf()
    assert shots["desk"] == shots["phone"] != shots["dark"]
    assert paper.startswith(b"%PDF")
