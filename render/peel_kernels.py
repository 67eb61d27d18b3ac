"""The peel as Warp kernels, for CUDA and for any CPU; `peel_simd` does the same on a CPU, several times as fast.

Homogeneous rasterization (Olano and Greer 1997): with P = K v for each vertex and q = (u, v, 1) for a pixel centre, the
ray of the pixel meets the triangle where the three numbers e_i = det[q, P_j, P_k] have one sign, and there
z = sum(e_i z_i) / sum(e_i). The hit test never divides by a vertex's depth, so a triangle may cross the near plane or
the plane of the camera without being clipped; only the box of pixels to visit needs that division.

The e_i are evaluated with the pixel moved to the origin: P' = P - q P_z, e = P'_j.x P'_k.y - P'_j.y P'_k.x. What
belongs to a vertex is then computed alike for all its triangles, an edge gives exactly opposite numbers to the two
triangles that share it, and a vertex on a pixel centre is (0, 0): together with the tie rule of `side_of_edge` a closed
surface has no crack and no double hit. That needs one thing of the compiler: a product and a sum must not be fused, for
a fused a*b - c*d is not the negative of c*d - a*b. Unfused, these kernels, `peel_simd` and the NumPy twin also agree
bit by bit, and so must CUDA.
"""

# mypy: ignore-errors
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly.
import warp as wp

from render.keys import EMPTY, key_of

wp.config.log_level = 30  # no banner, no line for every module loaded: progress bars share the terminal
wp.set_module_options({"fuse_fp": False, "fast_math": False, "enable_backward": False})

# Rows of boxes narrower than this are tested pixel by pixel: three divisions cost about as much as eight tests.
NARROW = wp.constant(12)
# Far above the rounding of a double, far below anything that matters to a pixel.
SUSPICIOUS = wp.constant(wp.float64(2.0**-30))
SPAN_SLACK = wp.constant(wp.float64(2.0**-40))
# In place of the pixel of a vertex before the near plane, whose triangles reach nobody knows how far.
BEFORE = wp.constant(wp.float32(-2.0e38))
# Lanes of a warp, which take neighbouring columns of a large triangle, and the rows that they take together.
LANES = wp.constant(32)
STRIP_ROWS = wp.constant(16)


@wp.struct
class View:
    """A camera: K [R t] over (0, 0, 0, 1), whether it mirrors (+1 no, -1 yes), and the first row, column to peel."""

    image: wp.mat44d
    mirrored: wp.int32
    row: wp.int32
    column: wp.int32


@wp.kernel
def project(
    vertices: wp.array(dtype=wp.vec3d),
    views: wp.array(dtype=View),
    near: wp.float64,
    threads: wp.int32,
    points: wp.array2d(dtype=wp.vec3d),
    reach: wp.array2d(dtype=wp.vec4f),
    extent: wp.array2d(dtype=wp.float32),
    beyond: wp.array(dtype=wp.int32),
) -> None:
    """Per view and vertex: points P = K [R t] v, and reach (x, y, -x, -y) of its pixel, whose minimum over corners is a
    box; `BEFORE` four times for one before the near plane. Each of `threads` takes every so manieth vertex.

    Per view: the minimum of reach in `extent`, and 1 in `beyond` if some vertex is not before the near plane.
    """
    view, thread = wp.tid()
    m = views[view].image
    lowest = wp.vec4f(3.0e38, 3.0e38, 3.0e38, 3.0e38)
    some = wp.int32(0)
    i = thread
    while i < vertices.shape[0]:
        v = vertices[i]
        x = m[0, 0] * v[0] + m[0, 1] * v[1] + m[0, 2] * v[2] + m[0, 3]
        y = m[1, 0] * v[0] + m[1, 1] * v[1] + m[1, 2] * v[2] + m[1, 3]
        w = m[2, 0] * v[0] + m[2, 1] * v[1] + m[2, 2] * v[2] + m[2, 3]
        points[view, i] = wp.vec3d(x, y, w)
        corner = wp.vec4f(BEFORE, BEFORE, BEFORE, BEFORE)
        if w >= near:
            px = wp.float32(x / w)
            py = wp.float32(y / w)
            corner = wp.vec4f(px, py, -px, -py)
            some = wp.int32(1)
        reach[view, i] = corner
        lowest = lesser(lowest, corner)
        i += threads
    for k in range(4):
        wp.atomic_min(extent, view, k, lowest[k])
    wp.atomic_max(beyond, view, some)


@wp.func
def lesser(a: wp.vec4f, b: wp.vec4f) -> wp.vec4f:
    """The minimum of each component: one instruction on a CPU, where wp.min takes four for the sake of NaN."""
    return wp.vec4f(
        wp.where(b[0] < a[0], b[0], a[0]),
        wp.where(b[1] < a[1], b[1], a[1]),
        wp.where(b[2] < a[2], b[2], a[2]),
        wp.where(b[3] < a[3], b[3], a[3]),
    )


@wp.func
def first_pixel(lowest: wp.float32, margin: wp.float32, start: wp.int32, end: wp.int32) -> wp.int32:
    """The first of the pixels start..end - 1 whose centre is not before `lowest`."""
    return wp.int32(wp.ceil(wp.clamp(lowest - 0.5 - margin, wp.float32(start), wp.float32(end))))


@wp.func
def last_pixel(highest: wp.float32, margin: wp.float32, start: wp.int32, end: wp.int32) -> wp.int32:
    """The last of the pixels start..end - 1 whose centre is not behind `highest`."""
    return wp.int32(wp.floor(wp.clamp(highest - 0.5 + margin, wp.float32(start - 1), wp.float32(end - 1))))


@wp.func
def lesser_by_clipped_edge(box: wp.vec4f, a: wp.vec3d, b: wp.vec3d, near: wp.float64) -> wp.vec4f:
    """Take in the endpoint a where it is beyond the near plane, and the point where ab crosses that plane."""
    result = box
    if a[2] >= near:
        x = wp.float32(a[0] / a[2])
        y = wp.float32(a[1] / a[2])
        result = lesser(result, wp.vec4f(x, y, -x, -y))
    if (a[2] >= near) != (b[2] >= near):
        t = (near - a[2]) / (b[2] - a[2])
        x = wp.float32((a[0] + t * (b[0] - a[0])) / near)
        y = wp.float32((a[1] + t * (b[1] - a[1])) / near)
        result = lesser(result, wp.vec4f(x, y, -x, -y))
    return result


@wp.func
def pixel_box(
    face: wp.vec3i,
    view: wp.int32,
    points: wp.array2d(dtype=wp.vec3d),
    reach: wp.array2d(dtype=wp.vec4f),
    near: wp.float64,
    margin: wp.float32,
    row: wp.int32,
    column: wp.int32,
    height: wp.int32,
    width: wp.int32,
) -> wp.vec4i:
    """First column, first row, last column, last row of the pixels of the window at (row, column) that the part of a
    triangle beyond the near plane can cover."""
    box = lesser(lesser(reach[view, face[0]], reach[view, face[1]]), reach[view, face[2]])
    if box[0] <= BEFORE:
        p0 = points[view, face[0]]
        p1 = points[view, face[1]]
        p2 = points[view, face[2]]
        box = wp.vec4f(3.0e38, 3.0e38, 3.0e38, 3.0e38)
        box = lesser_by_clipped_edge(box, p0, p1, near)
        box = lesser_by_clipped_edge(box, p1, p2, near)
        box = lesser_by_clipped_edge(box, p2, p0, near)
    return wp.vec4i(
        first_pixel(box[0], margin, column, column + width),
        first_pixel(box[1], margin, row, row + height),
        last_pixel(-box[2], margin, column, column + width),
        last_pixel(-box[3], margin, row, row + height),
    )


@wp.func
def side_of_edge(
    e: wp.float64, ax: wp.float64, ay: wp.float64, aw: wp.float64, bx: wp.float64, by: wp.float64, bw: wp.float64
) -> wp.int32:
    """The sign of e; on the edge itself, the sign with the pixel moved right by a hair, then down by a hair's square.

    This is the top-left rule: one displacement for every edge, so each point of a surface belongs to one triangle.
    """
    s = e
    if s == wp.float64(0.0):
        s = ay * bw - aw * by
    if s == wp.float64(0.0):
        s = aw * bx - ax * bw
    if s > wp.float64(0.0):
        return 1
    if s < wp.float64(0.0):
        return -1
    return 0


@wp.func
def insert(keys: wp.array3d(dtype=wp.uint64), view: wp.int32, pixel: wp.int32, count: wp.int32, new_key: wp.uint64):
    """Keep the `count` smallest keys of a pixel in order: a cascade of atomic minima, each passing the larger one on.

    A slot only ever decreases, and what it holds has pushed or found a smaller key in every slot before it. So slots
    below the key can be passed without an atomic.
    """
    key = new_key
    k = wp.int32(0)
    while k < count:
        if key < keys[view, k, pixel]:
            key = wp.max(wp.atomic_min(keys, view, k, pixel, key), key)
            if key == EMPTY:
                k = count
        k += 1


@wp.func
def narrow_span(
    lowest: wp.float64, highest: wp.float64, orientation: wp.float64, extent: wp.float64,
    ax: wp.float64, ay: wp.float64, aw: wp.float64, bx: wp.float64, by: wp.float64, bw: wp.float64,
) -> wp.vec2d:  # fmt: skip
    """Cut [lowest, highest] (columns from the one where a and b were taken) to the inner side of the edge ab.

    Along a row the edge function is constant + slope * x. The slack exceeds its rounding: nothing inside is lost.
    """
    constant = orientation * (ax * by - ay * bx)
    slope = orientation * (ay * bw - aw * by)
    slack = SPAN_SLACK * (wp.abs(ax * by) + wp.abs(ay * bx) + extent * (wp.abs(ay * bw) + wp.abs(aw * by)))
    low = lowest
    high = highest
    if slope > wp.float64(0.0):
        low = wp.max(low, -(constant + slack) / slope)
    elif slope < wp.float64(0.0):
        high = wp.min(high, -(constant + slack) / slope)
    elif constant < -slack:
        high = low - wp.float64(1.0)
    return wp.vec2d(low, high)


@wp.func
def is_degenerate(a: wp.vec3d, b: wp.vec3d, c: wp.vec3d) -> wp.bool:
    n = wp.cross(b - a, c - a)
    return n[0] == wp.float64(0.0) and n[1] == wp.float64(0.0) and n[2] == wp.float64(0.0)


@wp.func
def scan(
    triangle: wp.int32,
    p0: wp.vec3d,
    p1: wp.vec3d,
    p2: wp.vec3d,
    face: wp.vec3i,
    vertices: wp.array(dtype=wp.vec3d),
    near: wp.float64,
    box: wp.vec4i,
    lane: wp.int32,
    lanes: wp.int32,
    camera: View,
    width: wp.int32,
    view: wp.int32,
    count: wp.int32,
    keys: wp.array3d(dtype=wp.uint64),
):
    """Insert the hits of one triangle in the pixels of `box`: in every column, or in the `lane`th of each `lanes`."""
    aw = p0[2]
    bw = p1[2]
    cw = p2[2]
    zero = wp.float64(0.0)
    left = wp.float64(box[0]) + wp.float64(0.5)
    extent = wp.float64(box[2] - box[0])

    # A hit beyond the camera has sum(e) of the sign of det[P0, P1, P2]; where that sign is in doubt, rows are not cut.
    orientation = zero
    if box[2] - box[0] >= NARROW:
        top = wp.float64(box[1]) + wp.float64(0.5)
        a = wp.vec3d(p0[0] - left * aw, p0[1] - top * aw, aw)
        b = wp.vec3d(p1[0] - left * bw, p1[1] - top * bw, bw)
        c = wp.vec3d(p2[0] - left * cw, p2[1] - top * cw, cw)
        determinant = wp.dot(a, wp.cross(b, c))
        if wp.abs(determinant) > SUSPICIOUS * wp.length(a) * wp.length(b) * wp.length(c):
            orientation = wp.sign(determinant)

    for row in range(box[1], box[3] + 1):
        y = wp.float64(row) + wp.float64(0.5)
        ay = p0[1] - y * aw
        by = p1[1] - y * bw
        cy = p2[1] - y * cw
        first = box[0]
        last = box[2]
        if orientation != zero:
            ax = p0[0] - left * aw
            bx = p1[0] - left * bw
            cx = p2[0] - left * cw
            span = wp.vec2d(zero, extent)
            span = narrow_span(span[0], span[1], orientation, extent, ax, ay, aw, bx, by, bw)
            span = narrow_span(span[0], span[1], orientation, extent, bx, by, bw, cx, cy, cw)
            span = narrow_span(span[0], span[1], orientation, extent, cx, cy, cw, ax, ay, aw)
            if span[0] > span[1] + wp.float64(1.0):
                continue
            first = box[0] + wp.int32(wp.floor(wp.min(span[0], extent)))
            last = box[0] + wp.int32(wp.ceil(wp.max(span[1], zero)))
        for column in range(first + lane, last + 1, lanes):
            x = wp.float64(column) + wp.float64(0.5)
            ax = p0[0] - x * aw
            bx = p1[0] - x * bw
            cx = p2[0] - x * cw
            e0 = bx * cy - by * cx
            e1 = cx * ay - cy * ax
            e2 = ax * by - ay * bx
            e01 = e0 * e1
            e02 = e0 * e2
            if e01 < zero or e02 < zero:
                continue
            side = wp.where(e0 < zero, -1, 1)
            if e01 == zero or e02 == zero:
                side = side_of_edge(e0, bx, by, bw, cx, cy, cw)
                if side != side_of_edge(e1, cx, cy, cw, ax, ay, aw) or side != side_of_edge(e2, ax, ay, aw, bx, by, bw):
                    continue
            total = e0 + e1 + e2
            # The sum of a face without area, or of one seen exactly edge-on, is nothing but rounding.
            size = (wp.abs(ax) + wp.abs(bx) + wp.abs(cx)) * (wp.abs(ay) + wp.abs(by) + wp.abs(cy))
            if wp.abs(total) <= SUSPICIOUS * size and (
                total == zero or is_degenerate(vertices[face[0]], vertices[face[1]], vertices[face[2]])
            ):
                continue
            z = (e0 * aw + e1 * bw + e2 * cw) / total
            z32 = wp.float32(z)
            if z >= near and z32 < wp.inf:
                back = wp.uint64(0)
                if side * camera.mirrored > 0:
                    back = wp.uint64(1)
                pixel = (row - camera.row) * width + column - camera.column
                insert(keys, view, pixel, count, key_of(z32, triangle, back))


@wp.kernel
def raster(
    faces: wp.array(dtype=wp.vec3i),
    vertices: wp.array(dtype=wp.vec3d),
    points: wp.array2d(dtype=wp.vec3d),
    reach: wp.array2d(dtype=wp.vec4f),
    views: wp.array(dtype=View),
    near: wp.float64,
    margin: wp.float32,
    height: wp.int32,
    width: wp.int32,
    count: wp.int32,
    keys: wp.array3d(dtype=wp.uint64),
    largest: wp.int32,
    strips: wp.array(dtype=wp.vec3i),
    strip_count: wp.array(dtype=wp.int32),
) -> None:
    """One thread a view and triangle; triangles of more than `largest` > 0 pixels are cut into strips of rows, which
    are left to `raster_strips` as long as `strips` has room."""
    view, t = wp.tid()
    face = faces[t]
    camera = views[view]
    box = pixel_box(face, view, points, reach, near, margin, camera.row, camera.column, height, width)
    if box[0] > box[2] or box[1] > box[3]:
        return
    if largest > 0 and wp.int64(box[2] - box[0] + 1) * wp.int64(box[3] - box[1] + 1) > wp.int64(largest):
        row = box[1]
        place = wp.int32(0)
        room = strips.shape[0]
        while row <= box[3] and place < room:
            place = wp.atomic_add(strip_count, 0, 1)
            if place < room:
                strips[place] = wp.vec3i(view, t, row)
                row += STRIP_ROWS
        box[1] = row
    scan(
        t, points[view, face[0]], points[view, face[1]], points[view, face[2]], face, vertices, near, box, 0, 1,
        camera, width, view, count, keys,
    )  # fmt: skip


@wp.kernel
def raster_strips(
    faces: wp.array(dtype=wp.vec3i),
    vertices: wp.array(dtype=wp.vec3d),
    points: wp.array2d(dtype=wp.vec3d),
    reach: wp.array2d(dtype=wp.vec4f),
    views: wp.array(dtype=View),
    near: wp.float64,
    margin: wp.float32,
    height: wp.int32,
    width: wp.int32,
    count: wp.int32,
    keys: wp.array3d(dtype=wp.uint64),
    threads: wp.int32,
    strips: wp.array(dtype=wp.vec3i),
    strip_count: wp.array(dtype=wp.int32),
) -> None:
    """The strips of large triangles of all views, `LANES` threads each, so that a wall of two triangles does not
    serialise on two threads, and neighbouring threads write neighbouring pixels."""
    thread = wp.tid()
    lane = thread % LANES
    item = thread / LANES
    items = wp.min(strip_count[0], strips.shape[0])
    while item < items:
        strip = strips[item]
        view = strip[0]
        face = faces[strip[1]]
        camera = views[view]
        box = pixel_box(face, view, points, reach, near, margin, camera.row, camera.column, height, width)
        box[1] = strip[2]
        box[3] = wp.min(box[3], strip[2] + STRIP_ROWS - 1)
        scan(
            strip[1], points[view, face[0]], points[view, face[1]], points[view, face[2]], face, vertices, near, box,
            lane, LANES, camera, width, view, count, keys,
        )  # fmt: skip
        item += threads / LANES
