"""What names a place, and what may not: secrets, unknown protocols, archives."""

from pathlib import Path

import fsspec
import pytest

from cluster.sources import FileSource, parse
from tests.cluster.elsewhere import TRIANGLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s4://bucket/x", "unknown protocol 's4'"),
        ("htps://host/x.glb", "did you mean https://"),
        ("https://user:pw@host/x.glb", "holds credentials"),
        ("s3://TOKEN@bucket/x", "holds credentials"),
        ("ftp://user@host/x", "holds credentials"),
        ("https://host/x.glb?X-Amz-Signature=abc", "may hold a secret"),
        ("https://host/x.glb?code=abc", "may hold a secret"),
        ("https://host/x.glb?v=1&Policy=abc", "may hold a secret"),
        ("https://host/x.glb?v=1;jwt=abc", "may hold a secret"),
        ("https://host/x.glb?=abc", "may hold a secret"),
        ("https://host/x.glb?%70wd=abc", "may hold a secret"),
        ("https://host/x.glb#abc", "has a fragment"),
        ("zip://x::s3://bucket/a.zip", "unpack the archive"),
        ("s3://", "names no place"),
        ("gs://bucket/x", r"pip install 'worldtrace\[gs\]'"),
    ],
)
def test_an_address_that_cannot_be_is_refused_in_one_sentence(text: str, message: str) -> None:
    if text.startswith("gs:"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(__import__("sys").modules, "gcsfs", None)
            fsspec.registry._registry.pop("gs", None) if hasattr(fsspec.registry, "_registry") else None
            with pytest.raises(ValueError, match=message):
                parse(text)
        return
    with pytest.raises(ValueError, match=message) as error:
        parse(text)
    assert "\n" not in str(error.value)
    assert "pw" not in str(error.value)
    assert "abc" not in str(error.value)


def test_a_file_url_is_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_bytes(TRIANGLE)
    assert parse(f"file://{tmp_path}") == FileSource(str(tmp_path))
