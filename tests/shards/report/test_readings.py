"""What is read of a sample is a number, or unknown, whatever its `info` holds."""

import math
from dataclasses import replace
from typing import Any

import pytest

from shards.report.readings import _elevation
from tests.shards.scenes import spheres_view


@pytest.mark.parametrize("camera", [10**400, -(10**400), True, "30", None, [30], float("inf")])
def test_an_elevation_that_is_no_angle_is_unknown(camera: Any) -> None:
    view = spheres_view(0, 8, 8)
    assert math.isnan(_elevation(replace(view, info={**view.info, "camera": {"elevation": camera}})))
    assert math.isnan(_elevation(replace(view, info={**view.info, "camera": camera})))
    assert _elevation(replace(view, info={**view.info, "camera": {"elevation": -30}})) == -30
