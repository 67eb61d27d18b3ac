"""Moving depth and colour between pixel grids without making up surfaces.

All grids have pixel centres at +0.5. Depth is z along the optical axis and 0 where it is unknown.
"""

import numpy as np
from PIL import Image

AGREE = 0.05  # relative difference of neighbouring 1/z up to which they count as one surface
HIDDEN = 0.15  # relative difference of depth that makes what is behind a thing of its own
BAND = 1 << 15  # pixels that are interpolated together: their parts stay in the processor's cache
DETAIL = 1.25  # times as fine as its depth an image may stay


def rescaled(K: np.ndarray, scale_x: float, scale_y: float) -> np.ndarray:
    """K of the same picture with `scale_x` times the columns and `scale_y` times the rows: exact, as centres are at
    +0.5.
    """
    return np.diag([scale_x, scale_y, 1.0]) @ np.asarray(K, np.float64)


def area_resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H,W,3) uint8 -> (height, width, 3): the mean over each new pixel's area where it shrinks, bilinear where it
    grows.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((width, height), method), np.uint8)


def sample_depth(depth: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Depth (H,W) float32 at the points (u, v) in pixels, whose shapes broadcast -> float32; 0 outside.

    Between four pixels of one surface 1/z is interpolated, which is exact on a plane. Where one of the four is unknown,
    or they differ by more than AGREE (an edge), the nearest pixel stands alone, so that no depth lies between two
    surfaces and none grows into what is unknown.
    """
    height, width = depth.shape
    with np.errstate(invalid="ignore"):
        within = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        u = np.where((u >= 0) & (u < width), u, 0.5)
        v = np.where((v >= 0) & (v < height), v, 0.5)
    nearest = _at(depth, v.astype(np.int64), u.astype(np.int64))
    left, top = np.floor(u - 0.5), np.floor(v - 0.5)
    right, below = (u - 0.5 - left).astype(np.float32), (v - 0.5 - top).astype(np.float32)
    columns = [(left + d).astype(np.int64).clip(0, width - 1) for d in (0, 1)]
    rows = [(top + d).astype(np.int64).clip(0, height - 1) for d in (0, 1)]
    corners = [_at(depth, row, column) for row in rows for column in columns]
    low = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
    high = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    smooth = (low > 0) & (high <= low * np.float32(1 + AGREE))
    with np.errstate(divide="ignore", invalid="ignore"):  # of unknown corners, which are not smooth
        upper = (1 - right) / corners[0] + right / corners[1]
        lower = (1 - right) / corners[2] + right / corners[3]
        between = np.minimum(np.maximum(1 / (upper + below * (lower - upper)), low), high)  # rounding leads outside
    return np.where(within, np.where(smooth, between, nearest), np.float32(0))


def _at(depth: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """depth[row, column]; three times as fast where all rows have the same columns."""
    if row.ndim == 2 and row.shape[1] == 1 and column.shape[0] == 1:
        return np.asarray(depth.take(row[:, 0], axis=0).take(column[0], axis=1))
    return np.asarray(depth[row, column])


def nearest_in_cell(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """Sparse depth (H,W) -> (height, width): the nearest surface of all points in each new pixel, as a z-buffer has."""
    v, u = np.nonzero(depth)
    row = (2 * v + 1) * height // (2 * depth.shape[0])  # where its centre falls
    column = (2 * u + 1) * width // (2 * depth.shape[1])
    return _z_buffer(row * width + column, depth[v, u], height, width)


def splat(points: np.ndarray, K: np.ndarray, height: int, width: int) -> np.ndarray:
    """Points (N,3) in the camera's frame -> depth (height, width) float32: the nearest of those in each pixel."""
    points = points[np.isfinite(points).all(axis=1)]
    points = points[points[:, 2] > 1e-3].astype(np.float64)
    u = (K[0, 0] * points[:, 0] + K[0, 1] * points[:, 1]) / points[:, 2] + K[0, 2]
    v = K[1, 1] * points[:, 1] / points[:, 2] + K[1, 2]
    return z_buffer(u, v, points[:, 2], height, width)


def unhidden(depth: np.ndarray, reach: int) -> np.ndarray:
    """Sparse depth (H,W) of a scanner beside the camera, without what only the scanner sees.

    It sees past the edge of a near object what is behind, and that falls onto the object's picture. So a point goes if
    points nearer by more than HIDDEN enclose it: one above and one below it, within `reach` pixels and a quarter of
    that to the side. The ground stays: what is nearer of it lies below; and so does what is seen under a bough.
    """
    height, width = depth.shape
    cell = max(1, reach // 4)
    rows, columns = -(-height // cell), -(-width // cell)
    v, u = np.nonzero(depth)
    z = depth[v, u]
    nearest = np.full((rows + 8, columns + 2), np.inf, np.float32)  # with a rim of four cells, and one at the sides
    np.minimum.at(nearest, (v // cell + 4, u // cell + 1), z)
    beside = np.minimum(np.minimum(nearest[:, :-2], nearest[:, 1:-1]), nearest[:, 2:])
    above = np.minimum.reduce([beside[down : down + rows] for down in (0, 1, 2, 3)])
    below = np.minimum.reduce([beside[down : down + rows] for down in (5, 6, 7, 8)])
    front = np.maximum(above, below)[v // cell, u // cell]  # the farther of the two that enclose it
    kept = z <= front * (1 + HIDDEN)
    found = np.zeros_like(depth)
    found[v[kept], u[kept]] = z[kept]
    return found


def aligned(
    image: np.ndarray, K_image: np.ndarray, depth: np.ndarray, K_depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image and a depth map of one camera centre and orientation, of their own resolution and intrinsics ->
    (image, depth, K) on the grid of the image, which is shrunk first where it is finer than its depth.

    Without a motion between the two cameras a pixel of one is a point of the other whatever its depth, and z is the
    same: the depth is looked up, nothing is projected.
    """
    height, width = image.shape[:2]
    scale = min(1.0, DETAIL * max(K_depth[0, 0] / K_image[0, 0], K_depth[1, 1] / K_image[1, 1]))
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    K = rescaled(K_image, new_width / width, new_height / height)
    u, v = transfer(K, K_depth, new_height, new_width)
    return area_resized(image, new_height, new_width), sample_depth(depth, u, v), K


def transfer(K: np.ndarray, K_other: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a `height` x `width` grid with intrinsics K lie in a camera with K_other: (u, v), (H,W), or
    (1,W) and (H,1) where these suffice, as they do without skew.
    """
    v, u = np.ogrid[0:height, 0:width]
    v, u = v + 0.5, u + 0.5
    H = np.asarray(K_other, np.float64) @ np.linalg.inv(np.asarray(K, np.float64))
    if not (H[0, 1] or H[1, 0] or H[2, 0] or H[2, 1]):
        return (H[0, 0] * u + H[0, 2]) / H[2, 2], (H[1, 1] * v + H[1, 2]) / H[2, 2]
    w = H[2, 0] * u + H[2, 1] * v + H[2, 2]
    return (H[0, 0] * u + H[0, 1] * v + H[0, 2]) / w, (H[1, 0] * u + H[1, 1] * v + H[1, 2]) / w


def unprojected(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Depth (H,W) -> the points (N,3) of its known pixels, float64, in the camera's frame."""
    v, u = np.nonzero(depth)
    z = depth[v, u].astype(np.float64)
    return np.stack([u + 0.5, v + 0.5, np.ones(u.size)], axis=1) @ np.linalg.inv(K).T * z[:, None]


def reprojected(
    depth: np.ndarray, K_depth: np.ndarray, camera_from_depth: np.ndarray, K: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Depth seen by one camera -> by one elsewhere: its points are moved and drawn, the nearest in a pixel wins.
    What the first did not see stays unknown.
    """
    # twice as many points as pixels in each direction: a grid that is a little finer or turned gets no holes
    rows, columns = depth.shape
    v, u = np.ogrid[0 : 2 * rows, 0 : 2 * columns]
    fine = sample_depth(depth, u / 2 + 0.25, v / 2 + 0.25)
    points = unprojected(fine, rescaled(K_depth, 2, 2))
    moved = points @ camera_from_depth[:3, :3].T + camera_from_depth[:3, 3]
    return splat(moved, K, height, width)


def undistorted(
    image: np.ndarray, K: np.ndarray, radial: tuple[float, float, float], tangential: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray | None:
    """The picture that a pinhole camera with the same K takes, for the model of Brown and Conrady (OpenCV's k1, k2, p1,
    p2, k3): bilinear at where each ray fell. Outside of what was seen it is black.

    None where the model folds over within the picture: then it is no distortion that can be undone.
    """
    height, width = image.shape[:2]
    v, u = np.mgrid[0:height, 0:width].astype(np.float64) + 0.5
    y = (v - K[1, 2]) / K[1, 1]
    x = (u - K[0, 2] - K[0, 1] * y) / K[0, 0]
    r2 = x * x + y * y
    k1, k2, k3 = radial
    if (1 + r2 * (3 * k1 + r2 * (5 * k2 + 7 * k3 * r2))).min() <= 0:  # d(r)/dr of the distorted radius
        return None
    factor = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    p1, p2 = tangential
    xd = x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * factor + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return bilinear(image, K[0, 0] * xd + K[0, 1] * yd + K[0, 2], K[1, 1] * yd + K[1, 2])


def bilinear(image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Image (H,W,3) uint8 at the points (u, v), arrays of one shape, in pixels; black outside."""
    height, width = image.shape[:2]
    pixels, found = image.reshape(-1, 3), np.zeros((u.size, 3), np.uint8)
    for begin in range(0, u.size, BAND):
        x, y = u.reshape(-1)[begin : begin + BAND], v.reshape(-1)[begin : begin + BAND]
        within = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y = (np.where(within, x, 0) - 0.5).clip(0, width - 1), (np.where(within, y, 0) - 0.5).clip(0, height - 1)
        left, top = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
        right, below = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
        at = top * width + left
        upper = pixels[at].astype(np.float32)
        upper += (pixels[at + 1] - upper) * right
        lower = pixels[at + width].astype(np.float32)
        lower += (pixels[at + width + 1] - lower) * right
        upper += (lower - upper) * below
        found[begin : begin + BAND][within] = np.rint(upper[within])
    return found.reshape(*u.shape, 3)


def ideal(
    x: np.ndarray, y: np.ndarray, radial: tuple[float, float, float], tangential: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distorted normalised coordinates -> those of a pinhole, the inverse of the model of `undistorted`, by fixed-point
    iteration (as OpenCV does).
    """
    k1, k2, k3 = radial
    p1, p2 = tangential
    xi, yi = x, y
    for _ in range(20):
        r2 = xi * xi + yi * yi
        factor = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        xi, yi = (
            (x - 2 * p1 * xi * yi - p2 * (r2 + 2 * xi * xi)) / factor,
            (y - p1 * (r2 + 2 * yi * yi) - 2 * p2 * xi * yi) / factor,
        )
    return xi, yi


def z_buffer(u: np.ndarray, v: np.ndarray, z: np.ndarray, height: int, width: int) -> np.ndarray:
    """Points at (u, v) in pixels with depth z -> depth (height, width) float32: the nearest of those in each pixel."""
    with np.errstate(invalid="ignore"):
        within = (u >= 0) & (u < width) & (v >= 0) & (v < height) & np.isfinite(z) & (z > 1e-3)
    return _z_buffer(v[within].astype(np.int64) * width + u[within].astype(np.int64), z[within], height, width)


def _z_buffer(index: np.ndarray, z: np.ndarray, height: int, width: int) -> np.ndarray:
    nearest = np.full(height * width, np.inf, np.float32)
    np.minimum.at(nearest, index, z.astype(np.float32))
    return np.where(np.isfinite(nearest), nearest, np.float32(0)).reshape(height, width)
