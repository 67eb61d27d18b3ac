"""Headless Chromium for the tests of what people see; they skip where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATH = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
# WebGL in software: no graphics card is asked for
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@contextmanager
def browser() -> Iterator[Any]:
    """A `playwright` browser. Skips, with the reason, without Chromium or playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra `dev`)")
    if PATH is None:
        pytest.skip("Chromium is not installed: put `chromium` on the path, or its place into CHROMIUM")
    with sync_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=PATH, args=["--headless=new", *FLAGS])
        try:
            yield chromium
        finally:
            chromium.close()


def messages(page: Any) -> list[str]:
    """Filled with what the page says on its console that is no mere information, and what it fails to load."""
    said: list[str] = []
    page.on("console", lambda m: said.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url[:100]}"))
    return said
