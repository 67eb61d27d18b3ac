"""The peel on a CPU: the formulas of `peel_kernels`, eight pixels of a triangle at a time.

What a triangle costs on a CPU is mostly mispredicted branches: whether a pixel is inside, and how far to go down its
list. Here neither is a branch. Eight pixels are tested in the lanes of vectors (clang's vector extensions, so any
processor will do), each lane by the same operations in the same order as `peel_kernels.scan`; and a key enters a sorted
list all at once: with the list moved up by one, the k-th becomes min(old[k], max(old[k - 1], key)). Lanes where a tie
or a face without area has to be decided go through the long way, one by one.

The slots of a pixel lie together, `stride_of` of them, so that a list is one load and one store.
"""

# mypy: ignore-errors
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly.
import warp as wp

from render.peel_kernels import View

wp.set_module_options({"fuse_fp": False, "fast_math": False, "enable_backward": False})


def stride_of(slots: int) -> int:
    """How many keys to keep for a pixel of which `slots` are wanted: a number that `RASTER` inserts into."""
    if slots <= 1:
        return 1
    return 4 if slots <= 4 else -(-slots // 4) * 4


RASTER = r"""
#if !defined(__CUDA_ARCH__) && !defined(__CUDACC__)
#pragma clang fp contract(off)
typedef double F8 __attribute__((ext_vector_type(8)));
typedef float S8 __attribute__((ext_vector_type(8)));
typedef int I8 __attribute__((ext_vector_type(8)));
typedef unsigned int W8 __attribute__((ext_vector_type(8)));
typedef decltype(F8(0.0) == F8(0.0)) L8;
typedef bool B8 __attribute__((ext_vector_type(8)));
typedef float S4 __attribute__((ext_vector_type(4)));
typedef int I4 __attribute__((ext_vector_type(4)));
typedef unsigned long long U;
typedef U U8 __attribute__((ext_vector_type(8)));
typedef U U4 __attribute__((ext_vector_type(4)));
typedef U8 U8u __attribute__((aligned(8)));
typedef U4 U4u __attribute__((aligned(8)));
typedef F8 F8u __attribute__((aligned(8)));
typedef I8 I8u __attribute__((aligned(4)));
typedef I4 I4u __attribute__((aligned(4)));
typedef S4 S4u __attribute__((aligned(4)));

const U empty = ~0ull;
const double suspicious = 0x1p-30, slack_factor = 0x1p-40;
const double beyond_float = 0x1.ffffffp127;  // what rounds to infinity in float32 starts here
const float before = -2.0e38f;

const int* face_of = (const int*)faces.data;
const double* vertex_of = (const double*)vertices.data;
const double* point_of = (const double*)((const char*)points.data + (size_t)view * points.strides[0]);
const float* reach_of = (const float*)((const char*)reach.data + (size_t)view * reach.strides[0]);
U* key_of = (U*)((char*)keys.data + (size_t)view * keys.strides[0]);
const long stride = keys.strides[2] / (long)sizeof(U);
const bool front_is_positive = mirrored < 0;
const F8 iota = {0, 1, 2, 3, 4, 5, 6, 7};

// What each stage hands to the next.
struct Box { int t, c0, r0, minus_c1, minus_r1; };
struct Patch { double per_width; int t, c, r, from, width, to; };
const int most_boxes = 256, most_patches = 192, most_hits = 512;
Box boxes[most_boxes];
Patch patches[most_patches];
U hit_key[most_hits + 8];
int hit_pixel[most_hits + 8];
int patch_count = 0, hit_count = 0;

auto lesser = [](S4 a, S4 b) __attribute__((always_inline)) { return b < a ? b : a; };
auto bits_of = [](L8 mask) __attribute__((always_inline)) {
    const B8 lanes = __builtin_convertvector(mask, B8);
    unsigned char bits;
    __builtin_memcpy(&bits, &lanes, 1);
    return (unsigned)bits;
};

// Stage 4: the hits into the lists of their pixels.
auto insert8 = [](U* slot, U key) __attribute__((always_inline)) {
    const U8 old = *(const U8u*)slot;
    const U8 moved = __builtin_shufflevector(old, (U8)(0), 8, 0, 1, 2, 3, 4, 5, 6);
    *(U8u*)slot = __builtin_elementwise_min(old, __builtin_elementwise_max(moved, (U8)(key)));
    return key > old[7] ? key : old[7];
};
auto insert4 = [](U* slot, U key) __attribute__((always_inline)) {
    const U4 old = *(const U4u*)slot;
    const U4 moved = __builtin_shufflevector(old, (U4)(0), 4, 0, 1, 2);
    *(U4u*)slot = __builtin_elementwise_min(old, __builtin_elementwise_max(moved, (U4)(key)));
    return key > old[3] ? key : old[3];
};
auto insert_hits = [&]() __attribute__((noinline)) {
    U* const first = key_of;
    const long step = stride;
    const int n = hit_count, ahead = 8;
    for (int h = n; h < n + ahead; ++h) hit_pixel[h] = 0;
    auto insert_all = [=, key = (const U*)hit_key, pixel = (const int*)hit_pixel](auto insert)
            __attribute__((always_inline)) {
        for (int h = 0; h < n; ++h) {
            __builtin_prefetch(first + pixel[h + ahead] * step, 1);
            insert(first + pixel[h] * step, key[h]);
        }
    };
    if (step == 1) {
        insert_all([](U* slot, U key) { *slot = key < *slot ? key : *slot; });
    } else if (step == 4) {
        insert_all(insert4);
    } else if (step == 8) {
        insert_all(insert8);
    } else {
        insert_all([=](U* slot, U key) {
            key = insert8(slot, key);
            for (long k = 8; k < step && key != empty; k += 4) key = insert4(slot + k, key);
        });
    }
    hit_count = 0;
};

// One pixel by all the rules: `peel_kernels.scan` and `side_of_edge`.
auto settle = [&](int t, const double* p0, const double* p1, const double* p2, int r, int c) __attribute__((noinline)) {
    const double x = (double)c + 0.5, y = (double)r + 0.5;
    const double aw = p0[2], bw = p1[2], cw = p2[2];
    const double ax = p0[0] - x * aw, bx = p1[0] - x * bw, cx = p2[0] - x * cw;
    const double ay = p0[1] - y * aw, by = p1[1] - y * bw, cy = p2[1] - y * cw;
    const double e0 = bx * cy - by * cx, e1 = cx * ay - cy * ax, e2 = ax * by - ay * bx;
    auto side_of = [](double e, double qx, double qy, double qw, double rx, double ry, double rw) {
        double s = e;
        if (s == 0.0) s = qy * rw - qw * ry;
        if (s == 0.0) s = qw * rx - qx * rw;
        return s > 0.0 ? 1 : s < 0.0 ? -1 : 0;
    };
    int side = e0 < 0.0 ? -1 : 1;
    if (e0 * e1 == 0.0 || e0 * e2 == 0.0) {
        side = side_of(e0, bx, by, bw, cx, cy, cw);
        if (side != side_of(e1, cx, cy, cw, ax, ay, aw) || side != side_of(e2, ax, ay, aw, bx, by, bw)) return;
    }
    const double total = e0 + e1 + e2;
    const double size = (__builtin_fabs(ax) + __builtin_fabs(bx) + __builtin_fabs(cx))
        * (__builtin_fabs(ay) + __builtin_fabs(by) + __builtin_fabs(cy));
    if (__builtin_fabs(total) <= suspicious * size) {
        if (total == 0.0) return;
        const double* a = vertex_of + 3 * (long)face_of[3 * (long)t];
        const double* b = vertex_of + 3 * (long)face_of[3 * (long)t + 1];
        const double* d = vertex_of + 3 * (long)face_of[3 * (long)t + 2];
        const double u0 = b[0] - a[0], u1 = b[1] - a[1], u2 = b[2] - a[2];
        const double v0 = d[0] - a[0], v1 = d[1] - a[1], v2 = d[2] - a[2];
        if (u1 * v2 - u2 * v1 == 0.0 && u2 * v0 - u0 * v2 == 0.0 && u0 * v1 - u1 * v0 == 0.0) return;
    }
    const double z = (e0 * aw + e1 * bw + e2 * cw) / total;
    if (!(z >= near && z < beyond_float)) return;
    const float z32 = (float)z;
    unsigned bits;
    __builtin_memcpy(&bits, &z32, 4);
    const U back = (side > 0) != front_is_positive;
    hit_key[hit_count] = (U)bits << 33 | (U)t << 1 | back;
    hit_pixel[hit_count++] = (r - row) * width + (c - column);
};

// Stage 3: eight pixels of a triangle at a time, without a branch that depends on them.
auto test_patches = [&]() __attribute__((noinline)) {
    // Local copies: a store of a vector might change what the closure refers to, for all that the compiler knows.
    const int* const faces_here = face_of;
    const double* const points_here = point_of;
    const Patch* const patches_here = patches;
    U* const keys_here = hit_key;
    int* const pixels_here = hit_pixel;
    const int patches_to_do = patch_count, width_here = width, row_here = row, column_here = column;
    const double near_here = near;
    const L8 flip = (L8)(front_is_positive ? -1 : 0);
    int found = hit_count;
    for (int p = 0; p < patches_to_do; ++p) {
        const Patch patch = patches_here[p];
        const int* face = faces_here + 3 * (long)patch.t;
        const double* p0 = points_here + 3 * (long)face[0];
        const double* p1 = points_here + 3 * (long)face[1];
        const double* p2 = points_here + 3 * (long)face[2];
        const double aw = p0[2], bw = p1[2], cw = p2[2];
        const F8 i = iota + (double)patch.from;
        const F8 dy = __builtin_elementwise_floor((i + 0.5) * patch.per_width);
        const F8 dx = i - dy * (double)patch.width;
        const F8 x = dx + ((double)patch.c + 0.5), y = dy + ((double)patch.r + 0.5);
        const F8 ax = p0[0] - x * aw, bx = p1[0] - x * bw, cx = p2[0] - x * cw;
        const F8 ay = p0[1] - y * aw, by = p1[1] - y * bw, cy = p2[1] - y * cw;
        const F8 e0 = bx * cy - by * cx, e1 = cx * ay - cy * ax, e2 = ax * by - ay * bx;
        const F8 e01 = e0 * e1, e02 = e0 * e2;
        const L8 inside = (e01 >= 0.0) & (e02 >= 0.0) & (i < (double)patch.to);
        const F8 total = e0 + e1 + e2;
        const F8 size = (__builtin_elementwise_abs(ax) + __builtin_elementwise_abs(bx) + __builtin_elementwise_abs(cx))
            * (__builtin_elementwise_abs(ay) + __builtin_elementwise_abs(by) + __builtin_elementwise_abs(cy));
        const L8 odd = (e01 == 0.0) | (e02 == 0.0) | (__builtin_elementwise_abs(total) <= suspicious * size);
        const F8 z = (e0 * aw + e1 * bw + e2 * cw) / total;
        const unsigned hits = bits_of(inside & ~odd & (z >= near_here) & (z < beyond_float));
        unsigned doubtful = bits_of(inside & odd);
        const S8 z32 = __builtin_convertvector(z, S8);
        const L8 back = ((e0 > 0.0) != flip) & 1;
        const U8 key = __builtin_convertvector((W8)z32, U8) << 33 | (U)patch.t << 1 | (U8)back;
        const int first = (patch.r - row_here) * width_here + (patch.c - column_here);
        const I8 pixel = __builtin_convertvector(dy * (double)width_here + dx, I8) + first;
#if defined(__AVX512F__) && defined(__AVX512VL__)
        *(U8u*)(keys_here + found) = (U8)__builtin_ia32_compressdi512_mask((L8)key, (L8)key, (unsigned char)hits);
        *(I8u*)(pixels_here + found) = (I8)__builtin_ia32_compresssi256_mask(pixel, pixel, (unsigned char)hits);
        found += __builtin_popcount(hits);
#else
        for (int lane = 0; lane < 8; ++lane) {
            keys_here[found] = key[lane];
            pixels_here[found] = pixel[lane];
            found += hits >> lane & 1;
        }
#endif
        if (__builtin_expect(doubtful != 0 || found > most_hits - 16, 0)) {
            hit_count = found;
            for (; doubtful; doubtful &= doubtful - 1) {
                const int lane = __builtin_ctz(doubtful);
                settle(patch.t, p0, p1, p2, patch.r + (int)dy[lane], patch.c + (int)dx[lane]);
            }
            if (hit_count > most_hits - 16) insert_hits();
            found = hit_count;
        }
    }
    hit_count = found;
    patch_count = 0;
};
auto add_patch = [&](const Patch& patch) __attribute__((always_inline)) {
    patches[patch_count++] = patch;
    if (__builtin_expect(patch_count == most_patches, 0)) test_patches();
};

// Stage 2: the pixels of a box in patches of eight; those of a wide box row by row, cut to the inner side of the edges
// as in `peel_kernels.narrow_span`, eight rows at a time.
auto cut_rows = [&](int t, int c0, int r0, int c1, int r1) __attribute__((noinline)) {
    const int* face = face_of + 3 * (long)t;
    const double* p0 = point_of + 3 * (long)face[0];
    const double* p1 = point_of + 3 * (long)face[1];
    const double* p2 = point_of + 3 * (long)face[2];
    const double aw = p0[2], bw = p1[2], cw = p2[2];
    const double left = (double)c0 + 0.5, top = (double)r0 + 0.5, extent = (double)(c1 - c0);
    const double ax = p0[0] - left * aw, bx = p1[0] - left * bw, cx = p2[0] - left * cw;
    double orientation;
    {
        const double ay = p0[1] - top * aw, by = p1[1] - top * bw, cy = p2[1] - top * cw;
        const double determinant = ax * (by * cw - bw * cy) + ay * (bw * cx - bx * cw) + aw * (bx * cy - by * cx);
        const double lengths = __builtin_elementwise_sqrt(ax * ax + ay * ay + aw * aw)
            * __builtin_elementwise_sqrt(bx * bx + by * by + bw * bw)
            * __builtin_elementwise_sqrt(cx * cx + cy * cy + cw * cw);
        if (!(__builtin_fabs(determinant) > suspicious * lengths)) {  // which side is inside is in doubt
            for (int r = r0; r <= r1; ++r)
                for (int c = c0; c <= c1; c += 8) add_patch({1.0 / 64, t, c, r, 0, 64, c1 - c + 1});
            return;
        }
        orientation = determinant > 0.0 ? 1.0 : -1.0;
    }
    for (int r = r0; r <= r1; r += 8) {
        const F8 y = iota + ((double)r + 0.5);
        const F8 ay = p0[1] - y * aw, by = p1[1] - y * bw, cy = p2[1] - y * cw;
        F8 low = 0.0, high = extent;
        auto cut = [&](double qx, F8 qy, double qw, double sx, F8 sy, double sw) __attribute__((always_inline)) {
            const F8 constant = orientation * (qx * sy - qy * sx);
            const F8 slope = orientation * (qy * sw - sy * qw);
            const F8 slack = slack_factor * (__builtin_elementwise_abs(qx * sy) + __builtin_elementwise_abs(qy * sx)
                + extent * (__builtin_elementwise_abs(qy * sw) + __builtin_elementwise_abs(qw * sy)));
            const F8 cross = -(constant + slack) / slope;
            low = ((slope > 0.0) & (cross > low)) ? cross : low;
            high = ((slope < 0.0) & (cross < high)) ? cross : high;
            high = ((slope == 0.0) & (constant < -slack)) ? low - 2.0 : high;
        };
        cut(ax, ay, aw, bx, by, bw);
        cut(bx, by, bw, cx, cy, cw);
        cut(cx, cy, cw, ax, ay, aw);
        const F8 from = __builtin_elementwise_floor(low < extent ? low : extent);
        F8 to = __builtin_elementwise_ceil(high > 0.0 ? high : 0.0);
        to = low > high + 1.0 ? -1.0 : to;
        const I8 first = __builtin_convertvector(from, I8) + c0, last = __builtin_convertvector(to, I8) + c0;
        const int rows = r1 - r + 1 < 8 ? r1 - r + 1 : 8;
        for (int k = 0; k < rows; ++k)
            for (int c = first[k]; c <= last[k]; c += 8) add_patch({1.0 / 64, t, c, r + k, 0, 64, last[k] - c + 1});
    }
};

// Stage 1: the boxes of some faces, and of those the ones that hold the centre of a pixel.
const S4 inset = {-0.5f - margin, -0.5f - margin, 0.5f - margin, 0.5f - margin};
const S4 window = {(float)column, (float)row, -(float)(column + width - 1), -(float)(row + height - 1)};
const long count = faces.shape[0];
for (long start = 0; start < count; start += most_boxes) {
    const long end = start + most_boxes < count ? start + most_boxes : count;
    int box_count = 0;
    for (long t = start; t < end; ++t) {
        const long i0 = face_of[3 * t], i1 = face_of[3 * t + 1], i2 = face_of[3 * t + 2];
        S4 box = lesser(lesser(*(const S4u*)(reach_of + 4 * i0), *(const S4u*)(reach_of + 4 * i1)),
            *(const S4u*)(reach_of + 4 * i2));
        if (__builtin_expect(box[0] <= before, 0)) {
            const double* corner[4] = {point_of + 3 * i0, point_of + 3 * i1, point_of + 3 * i2, point_of + 3 * i0};
            box = (S4)(3.0e38f);
            for (int k = 0; k < 3; ++k) {
                const double *a = corner[k], *b = corner[k + 1];
                if (a[2] >= near) {
                    const float x = (float)(a[0] / a[2]), y = (float)(a[1] / a[2]);
                    box = lesser(box, (S4){x, y, -x, -y});
                }
                if ((a[2] >= near) != (b[2] >= near)) {
                    const double s = (near - a[2]) / (b[2] - a[2]);
                    const float x = (float)((a[0] + s * (b[0] - a[0])) / near);
                    const float y = (float)((a[1] + s * (b[1] - a[1])) / near);
                    box = lesser(box, (S4){x, y, -x, -y});
                }
            }
        }
        // First column, first row, minus the last column, minus the last row.
        box = __builtin_elementwise_ceil(box + inset);
        box = box > window ? box : window;
        boxes[box_count].t = (int)t;
        *(I4u*)&boxes[box_count].c0 = __builtin_convertvector(box, I4);
        box_count += (int)(box[0] + box[2] <= 0.0f) & (int)(box[1] + box[3] <= 0.0f);
    }
    for (int b = 0; b < box_count; ++b) {
        const Box& box = boxes[b];
        const int w = 1 - box.minus_c1 - box.c0, h = 1 - box.minus_r1 - box.r0;
        if (w > 12) {
            cut_rows(box.t, box.c0, box.r0, -box.minus_c1, -box.minus_r1);
        } else {
            const double per_width = 1.0 / w;
            for (int k = 0; k < w * h; k += 8) add_patch({per_width, box.t, box.c0, box.r0, k, w, w * h});
        }
    }
}
test_patches();
insert_hits();
#endif
"""


@wp.func_native(RASTER)
def raster_view(
    faces: wp.array(dtype=wp.vec3i),
    vertices: wp.array(dtype=wp.vec3d),
    points: wp.array2d(dtype=wp.vec3d),
    reach: wp.array2d(dtype=wp.vec4f),
    view: wp.int32,
    mirrored: wp.int32,
    row: wp.int32,
    column: wp.int32,
    near: wp.float64,
    margin: wp.float32,
    height: wp.int32,
    width: wp.int32,
    keys: wp.array3d(dtype=wp.uint64),
): ...


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
    keys: wp.array3d(dtype=wp.uint64),
) -> None:
    """One thread a view."""
    view = wp.tid()
    camera = views[view]
    raster_view(
        faces, vertices, points, reach, view, camera.mirrored, camera.row, camera.column, near, margin,
        height, width, keys,
    )  # fmt: skip
