"""One local Ray for the whole folder; it takes seconds to start."""

from collections.abc import Iterator

import pytest

from cluster import connection


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    connection.quiet()
    with connection.connected("local", workers=2):
        yield
