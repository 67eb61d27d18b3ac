"""Keys as arrays of depth, triangle and facing, for those who want arrays: `Scene.peel`."""

# mypy: ignore-errors
# Warp compiles this file as its own language, whose scalars and arrays Python's type checker reads wrongly.
import warp as wp

from render.keys import EMPTY, depth_of, is_back, triangle_of

wp.set_module_options({"fuse_fp": False, "fast_math": False, "enable_backward": False})


@wp.kernel
def unpack(
    keys: wp.array3d(dtype=wp.uint64),
    depth: wp.array3d(dtype=wp.float32),
    triangle: wp.array3d(dtype=wp.int32),
    facing: wp.array3d(dtype=wp.int8),
) -> None:
    """The keys of the first view as arrays [slot, row, column]; one thread a pixel."""
    row, column = wp.tid()
    pixel = row * depth.shape[2] + column
    for k in range(keys.shape[1]):
        key = keys[0, k, pixel]
        if key == EMPTY:
            depth[k, row, column] = wp.inf
            triangle[k, row, column] = -1
            facing[k, row, column] = wp.int8(0)
        else:
            depth[k, row, column] = depth_of(key)
            triangle[k, row, column] = triangle_of(key)
            facing[k, row, column] = wp.where(is_back(key), wp.int8(-1), wp.int8(1))


UNPACK = r"""
#if !defined(__CUDA_ARCH__) && !defined(__CUDACC__)
typedef unsigned long long U;
typedef U U8 __attribute__((ext_vector_type(8)));
typedef unsigned W8 __attribute__((ext_vector_type(8)));
typedef signed char C8 __attribute__((ext_vector_type(8)));
typedef W8 W8u __attribute__((aligned(4)));
typedef C8 C8u __attribute__((aligned(1)));
const U empty = ~0ull;
const unsigned infinity = 0x7f800000u;
const long stride = keys.strides[2] / (long)sizeof(U), slots = keys.shape[1];
const long image_width = depth.shape[2], plane = depth.shape[1] * image_width;
unsigned* z = (unsigned*)depth.data;
unsigned* t = (unsigned*)triangle.data;
signed char* side = (signed char*)facing.data;
const U* key_of = (const U*)keys.data;
for (long r = row; r < row + height; ++r) {
    for (long c = 0; c < width; c += 8) {
        const long pixel = r * image_width + column + c, lanes = width - c < 8 ? width - c : 8;
        const U* list = key_of + ((r - row) * (long)width + c) * stride;
        for (long k = 0; k < slots; ++k) {
            U8 key = empty;
            if (lanes == 8) {
                key = (U8){list[k], list[stride + k], list[2 * stride + k], list[3 * stride + k],
                    list[4 * stride + k], list[5 * stride + k], list[6 * stride + k], list[7 * stride + k]};
            } else {
                for (long lane = 0; lane < lanes; ++lane) key[lane] = list[lane * stride + k];
            }
            if (__builtin_reduce_and(key) == empty) break;
            const auto none = key == empty;
            const W8 zs = __builtin_convertvector(none ? (U8)infinity : key >> 33, W8);
            const W8 ts = __builtin_convertvector(none ? empty : (key & 0xffffffffull) >> 1, W8);
            const C8 sides = __builtin_convertvector(none ? (U8)0 : 1 - 2 * (key & 1), C8);
            const long place = k * plane + pixel;
            if (lanes == 8) {
                *(W8u*)(z + place) = zs;
                *(W8u*)(t + place) = ts;
                *(C8u*)(side + place) = sides;
            } else {
                for (long lane = 0; lane < lanes; ++lane) {
                    z[place + lane] = zs[lane];
                    t[place + lane] = ts[lane];
                    side[place + lane] = sides[lane];
                }
            }
        }
    }
}
#endif
"""


@wp.func_native(UNPACK)
def unpack_window(
    keys: wp.array3d(dtype=wp.uint64),
    row: wp.int32,
    column: wp.int32,
    height: wp.int32,
    width: wp.int32,
    depth: wp.array3d(dtype=wp.float32),
    triangle: wp.array3d(dtype=wp.int32),
    facing: wp.array3d(dtype=wp.int8),
): ...


@wp.kernel
def unpack_in_lanes(
    keys: wp.array3d(dtype=wp.uint64),
    row: wp.int32,
    column: wp.int32,
    height: wp.int32,
    width: wp.int32,
    depth: wp.array3d(dtype=wp.float32),
    triangle: wp.array3d(dtype=wp.int32),
    facing: wp.array3d(dtype=wp.int8),
) -> None:
    """The keys of the first view's window into arrays [slot, row, column] of the whole image, empty so far."""
    unpack_window(keys, row, column, height, width, depth, triangle, facing)
