"""Files of the hub: what a name means, what is asked of it and when, and what is said where it gives nothing."""

import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from model import hub


class Hub:
    """A stand-in: `files` lie there (name -> bytes), `cached` on this machine; `broken` is raised by every question."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, int | None] = {}
        self.cached: set[str] = set()
        self.broken: Exception | None = None
        self.asked: list[str] = []

    def download(self, repository: str, file: str, local_files_only: bool = False) -> str:
        name = f"{repository}/{file}"
        if name not in self.cached:
            if local_files_only:
                raise errors.LocalEntryNotFoundError("not in the cache")
            self.asked.append(f"get {name}")
            self.cached.add(name)
        return str(self.folder / repository / file)

    def look(self, url: str, timeout: float) -> SimpleNamespace:
        self.asked.append(f"look {url}")
        if self.broken is not None:
            raise self.broken
        return SimpleNamespace(
            size=next(size for name, size in self.files.items() if url.endswith(name.split("/")[-1]))
        )


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", made.look)
    return made


def test_what_is_cached_is_not_asked_for(there: Hub) -> None:
    there.files["me/mine/sub/model.pt"] = 5_000_000_000
    said: list[str] = []
    expected = str(there.folder / "me/mine/sub/model.pt")
    assert hub.fetched("hf://me/mine/sub/model.pt", say=said.append) == expected
    assert [line.split()[0] for line in there.asked] == ["look", "get"]
    assert said == ["hf://me/mine/sub/model.pt: fetches sub/model.pt of me/mine, 5.0 GB, once"]
    assert hub.fetched("hf://me/mine/sub/model.pt", say=said.append) == expected
    assert len(there.asked) == 2
    assert len(said) == 1


def test_a_file_may_be_left_out_where_there_is_a_usual_one() -> None:
    assert hub.parsed("hf://me/mine", "model.pt") == ("me/mine", "model.pt")
    assert hub.parsed("hf://me/mine/", "model.pt") == ("me/mine", "model.pt")
    assert hub.parsed("hf://me/mine/a/b.pt", "model.pt") == ("me/mine", "a/b.pt")


@pytest.mark.parametrize(
    "source",
    ["hf://", "hf://me", "hf://me/", "hf:///mine/x", "hf://me/mine/../x", "hf://me/mine/a//b", "hf://../mine/x"]
    + ["hf://me/mine/.", "hf://me/mine/a\\b", "hf://me/mi ne/x", "hf://me/-mine/x", f"hf://me/{'m' * 97}/x"],
)
def test_what_is_no_name_is_never_asked_for(there: Hub, source: str) -> None:
    with pytest.raises(ValueError, match="names no file on the hub; write hf://OWNER/REPO"):
        hub.fetched(source, "model.pt")
    assert there.asked == []


def test_a_file_may_be_left_out_nowhere_else() -> None:
    with pytest.raises(ValueError, match=r"write hf://OWNER/REPO/FILE$"):
        hub.parsed("hf://me/mine")


def test_a_file_beyond_all_bounds_is_not_fetched(there: Hub) -> None:
    there.files["me/mine/model.pt"] = hub.MOST + 1
    with pytest.raises(ValueError, match=r"hf://me/mine has 69 GB, and at most 69 GB are fetched"):
        hub.fetched("hf://me/mine", "model.pt")
    assert there.cached == set()


def _of(kind: type[Exception]) -> Exception:
    """One as the hub raises it, but for the answer of a server that it holds."""
    return kind.__new__(kind, "a long\nstory")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            _of(errors.GatedRepoError),
            "ask for access at https://huggingface.co/me/mine, then log in with `hf auth login`",
        ),
        (
            _of(errors.RepositoryNotFoundError),
            "there is no repository https://huggingface.co/me/mine, or it is private",
        ),
        (_of(errors.EntryNotFoundError), "has no file model.pt"),
        (_of(errors.LocalEntryNotFoundError), "could not be fetched"),
        (_of(ConnectionError), r"could not be fetched \(a long\); download the file on another machine"),
        (TimeoutError(), r"could not be fetched \(TimeoutError\)"),
    ],
)
def test_why_nothing_came_is_one_sentence(there: Hub, broken: Exception, told: str) -> None:
    there.broken = broken
    with pytest.raises(OSError, match=told) as error:
        hub.fetched("hf://me/mine", "model.pt")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("hf://me/mine")
    assert len(there.asked) == 1, "what cannot be looked at is not downloaded"


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"needs huggingface_hub; install worldtrace\[hub\]"):
        hub.fetched("hf://me/mine/model.pt")
