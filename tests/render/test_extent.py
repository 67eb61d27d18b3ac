"""The box and the sphere of a set of points."""

import numpy as np

from render.extent import Extent


def test_the_box_and_the_sphere_hold_the_points_and_touch_them():
    points = np.random.default_rng(0).normal(size=(500, 3)) * [1, 2, 3] + [5, -7, 0.3]
    extent = Extent.of(points)
    np.testing.assert_array_equal(extent.low, points.min(axis=0))
    np.testing.assert_array_equal(extent.high, points.max(axis=0))
    assert extent.radius == np.linalg.norm(points - extent.centre, axis=1).max()
    assert extent.longest == np.ptp(points, axis=0).max()
    assert extent.diagonal == np.linalg.norm(np.ptp(points, axis=0))


def test_a_point_on_the_border_is_not_inside():
    extent = Extent.of(np.array([[0.0, 0, 0], [1, 2, 3]]))
    assert extent.holds(np.array([0.5, 0.1, 2.9]))
    assert not extent.holds(np.array([0.5, 0.0, 2.9]))
    assert not extent.holds(np.array([0.5, 1.0, 3.1]))
