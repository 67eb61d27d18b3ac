"""Where a view is taken from: pinhole cameras in the OpenCV frame, how they are drawn, and which ones a room accepts.

Drawing is a pure function of the generator it is given. Acceptance is a set of predicates on plain numbers, so that
each threshold can be read, tested and quoted.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from render.extent import Extent
from render.settings import RenderSettings, Span

Side = Literal["left", "right", "top", "bottom"]
SIDES: tuple[Side, ...] = get_args(Side)
UP = np.array([0.0, 1.0, 0.0])  # assets are +y up
STOREY = 0.25  # metres within which floors are one storey


@dataclass(frozen=True, eq=False)
class Camera:
    """Pinhole camera: K (3,3) in pixels, world_from_camera (4,4) rigid, +x right +y down +z forward; `info` is JSON."""

    K: np.ndarray
    world_from_camera: np.ndarray
    height: int
    width: int
    info: dict[str, Any]

    @property
    def eye(self) -> np.ndarray:
        return self.world_from_camera[:3, 3]

    def from_world(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> camera frame, float64."""
        return (np.asarray(points, np.float64) - self.eye) @ self.world_from_camera[:3, :3]

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> pixel coordinates (..., 2); a pixel's centre is at (u + 0.5, v + 0.5)."""
        image = self.from_world(points) @ self.K.T
        return image[..., :2] / image[..., 2:]


def look_at(eye: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """world_from_camera (4,4) of a camera at `eye` that looks at `target`, +y up, rolled by `roll` radians."""
    forward = np.asarray(target, np.float64) - eye
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, UP)
    if np.linalg.norm(right) < 1e-6:  # straight up or down: any horizontal axis will do
        right = np.array([1.0, 0.0, 0.0])
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([c * right + s * down, c * down - s * right, forward], axis=1)
    pose[:3, 3] = eye
    return pose


def intrinsics(
    fov: float, height: int, width: int, cx: float | None = None, cy: float | None = None, aspect: float = 1.0
) -> np.ndarray:
    """K (3,3); `fov` in degrees across the shorter side; centred unless cx, cy say otherwise.

    `aspect` is fx / fy: with 1 pixels are square; else fx and fy part around the focal length that `fov` gives, as in
    an image of another shape that was brought to this height and width.
    """
    f, stretch = min(height, width) / 2 / np.tan(np.radians(fov) / 2), np.sqrt(aspect)
    cx, cy = width / 2 if cx is None else cx, height / 2 if cy is None else cy
    return np.array([[f * stretch, 0, cx], [0, f / stretch, cy], [0, 0, 1.0]])


@dataclass(frozen=True)
class ObjectView:
    """What is drawn for a view of an object. Angles in degrees.

    framing: longest side of its box over the shorter image side | principal: shift of the principal point, (2,) in
    shares of the image | aspect: fx / fy | aim: (right, down) in longest sides, where it looks, from the centre |
    side: that of the image which cuts off `cut` of the object's width or height; "" where none is meant to.
    """

    fov: float
    azimuth: float
    elevation: float
    framing: float
    roll: float = 0.0
    principal: tuple[float, float] = (0.0, 0.0)
    aspect: float = 1.0
    aim: tuple[float, float] = (0.0, 0.0)
    side: Side | Literal[""] = ""
    cut: float = 0.0


def draw_object_view(generator: np.random.Generator, settings: RenderSettings) -> ObjectView:
    """The parameters of one view, by the distributions of `settings`; the asset plays no part."""
    s, g = settings, generator
    spread, wide, near_mode = g.random() < s.fov_spread, g.uniform(*s.fov), g.normal(s.fov_mode, s.fov_deviation)
    azimuth = g.uniform(0.0, 360.0)
    elevation = reflected(g.normal(s.elevation_mode, s.elevation_deviation), s.elevation)
    framing = reflected(s.framing_median * np.exp(g.normal(0.0, s.framing_deviation)), s.framing)
    roll = np.clip(g.normal(0.0, s.roll_deviation), -15.0, 15.0)
    principal = np.clip(g.normal(0.0, s.principal_deviation, 2), -0.1, 0.1)
    aim = np.clip(g.normal(0.0, 1.0, 2) * s.aim_deviation, -0.5, 0.5)
    cropped, side, cut = g.random() < s.crop, SIDES[int(g.integers(0, len(SIDES)))], g.uniform(*s.crop_cut)
    return ObjectView(
        float(wide if spread else reflected(near_mode, s.fov)),
        float(azimuth),
        elevation,
        framing,
        float(roll),
        (float(principal[0]), float(principal[1])),
        drawn_aspect(g, s),
        (float(aim[0]), float(aim[1])),
        side if cropped else "",
        float(cut) if cropped else 0.0,
    )


def reflected(value: float, span: Span) -> float:
    """`value` folded back into the span at its ends: cut off instead, one view in twenty would have the widest lens."""
    low, high = span
    width = high - low
    if width <= 0:
        return low
    past = (value - low) % (2 * width)
    return float(low + min(past, 2 * width - past))


def drawn_aspect(generator: np.random.Generator, settings: RenderSettings) -> float:
    """fx / fy, log-uniform over `settings.aspect`."""
    low, high = np.log(settings.aspect)
    return float(np.exp(generator.uniform(low, high)))


def object_camera(generator: np.random.Generator, settings: RenderSettings, extent: Extent) -> Camera:
    """A view of an object of `extent` in the world frame, drawn and framed."""
    return framed(draw_object_view(generator, settings), settings.height, settings.width, extent)


def framed(view: ObjectView, height: int, width: int, extent: Extent) -> Camera:
    """The camera that sees an object of `extent`, world frame, as `view` says.

    The distance follows from the framing, and is at least 1.5 radii of the sphere around the object: from nearer, wide
    lenses fill the whole image with one face of it. `info` records the framing that results.
    """
    centre, longest = extent.centre, extent.longest
    across = min(height, width)
    x, y = view.principal
    K = intrinsics(view.fov, height, width, width * (0.5 + x), height * (0.5 + y), view.aspect)
    f = float(np.sqrt(K[0, 0] * K[1, 1]))
    distance = max(f * longest / (view.framing * across), 1.5 * extent.radius)
    eye, roll = centre + distance * direction(view.azimuth, view.elevation), np.radians(view.roll)
    pose = look_at(eye, centre, roll)
    target = centre + pose[:3, 0] * view.aim[0] * longest + pose[:3, 1] * view.aim[1] * longest
    camera = Camera(K, look_at(eye, target, roll), height, width, {})
    if view.side:
        camera = _cut(camera, extent.points, view.side, view.cut)
    info = {"kind": "object", "fov": view.fov, "azimuth": view.azimuth, "elevation": view.elevation,
            "distance": distance, "framing": f * longest / (distance * across), "roll": view.roll,
            "aspect": view.aspect, "cropped": view.side, "cut": view.cut}  # fmt: skip
    return replace(camera, info=info)


def _cut(camera: Camera, vertices: np.ndarray, side: Side, cut: float) -> Camera:
    """The camera turned until `side` of the image cuts off `cut` of the width or height that vertices take in it.

    A point at the angle p from the optical axis is seen at f tan(p) from the principal point, and at f tan(p - t) after
    the camera has turned by t: the ends of what is seen stay the ends, and t is found by bisection.
    """
    axis, far = (0 if side in ("left", "right") else 1), side in ("right", "bottom")
    seen = camera.from_world(vertices)
    angles = np.arctan2(seen[:, axis], seen[:, 2])
    first, last = float(angles.min()), float(angles.max())
    edge = (((camera.width, camera.height)[axis] if far else 0) - camera.K[axis, 2]) / camera.K[axis, axis]
    share = 1 - cut if far else cut
    low, high = last - np.pi / 2, first + np.pi / 2
    for _ in range(60):
        turn = (low + high) / 2
        at = (1 - share) * np.tan(first - turn) + share * np.tan(last - turn)
        low, high = (turn, high) if at > edge else (low, turn)
    c, s = np.cos(turn), np.sin(turn)
    about = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) if axis == 0 else np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    pose = camera.world_from_camera.copy()
    pose[:3, :3] = pose[:3, :3] @ about
    return replace(camera, world_from_camera=pose)


def orbit(camera: Camera, centre: np.ndarray, turn: float, rise: float = 0.0) -> Camera:
    """The camera carried around `centre` (3,): by `turn` degrees about the vertical, and `rise` degrees up.

    It turns as it goes, so the centre stays at its pixel and its distance.
    """
    away = camera.eye - centre
    axis = np.cross(away, UP)
    if np.linalg.norm(axis) < 1e-9 * max(float(np.linalg.norm(away)), 1e-9):  # above the centre, or on it
        axis = camera.world_from_camera[:3, 0]
    rotation = _about(UP, turn) @ _about(axis, rise)
    pose = np.eye(4)
    pose[:3, :3] = rotation @ camera.world_from_camera[:3, :3]
    pose[:3, 3] = centre + rotation @ away
    return replace(camera, world_from_camera=pose, info={**camera.info, "turn": float(turn), "rise": float(rise)})


def _about(axis: np.ndarray, degrees: float) -> np.ndarray:
    """Rotation (3,3) about `axis` (3,), right-handed: Rodrigues' formula."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def turned(camera: Camera, turn: float) -> Camera:
    """The camera turned on the spot by `turn` degrees around the vertical."""
    return orbit(camera, camera.eye, turn)


def room_camera(generator: np.random.Generator, settings: RenderSettings, inside: np.ndarray) -> Camera:
    """A candidate view inside the axis-aligned box `inside` (2,3) in metres, or one of (N,2,3); `room_faults` says
    whether it stands."""
    s, h, w = settings, settings.height, settings.width
    boxes = np.reshape(inside, (-1, 2, 3))
    low, high = boxes[int(generator.integers(0, len(boxes)))]
    margin = np.minimum(0.3, (high - low) / 4)
    position = generator.uniform(low + margin, high - margin)
    around = storey(position, boxes)
    height = float(generator.uniform(*s.scene_height))
    position[1] = low[1] + np.clip(height, *height_range(s.scene_height, np.stack([low, high])))
    # Aimed at a place in the room and not anywhere: most directions from most places end at the nearest wall.
    aim = generator.uniform(*around) - position
    yaw = float(np.degrees(np.arctan2(aim[0], aim[2])))
    pitch = float(generator.uniform(*s.scene_pitch))
    roll = float(np.clip(generator.normal(0.0, s.roll_deviation / 3), -5.0, 5.0))
    fov = float(generator.uniform(*s.scene_fov))
    shift = np.clip(generator.normal(0.0, s.principal_deviation / 2, 2), -0.05, 0.05)
    pose = look_at(position, position + direction(yaw, -pitch), np.radians(roll))
    aspect = drawn_aspect(generator, s)
    K = intrinsics(fov, h, w, w * (0.5 + shift[0]), h * (0.5 + shift[1]), aspect)
    info = {"kind": "room", "fov": fov, "yaw": yaw, "pitch": pitch, "roll": roll, "aspect": aspect,
            "height": float(position[1] - low[1])}  # fmt: skip
    return Camera(K, pose, h, w, info)


def storey(eye: np.ndarray, stands: np.ndarray) -> np.ndarray:
    """The box (2,3) around those of the boxes (N,2,3) whose floor is level with that under the eye (3,).

    All of them where the eye is over none.
    """
    under = np.all((eye >= stands[:, 0] - 1e-6) & (eye <= stands[:, 1] + 1e-6), axis=1)
    floor = stands[under, 0, 1].mean() if under.any() else np.nan
    level = np.abs(stands[:, 0, 1] - floor) <= STOREY if under.any() else np.ones(len(stands), bool)
    return np.stack([stands[level, 0].min(axis=0), stands[level, 1].max(axis=0)])


def direction(azimuth: float, elevation: float) -> np.ndarray:
    """Unit vector at `azimuth` degrees around +y (0 is +z, 90 is +x) and `elevation` degrees above the horizon."""
    a, e = np.radians(azimuth), np.radians(elevation)
    return np.array([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)])


def inside_any_box(point: np.ndarray, boxes: np.ndarray, margin: float = 0.05) -> bool:
    """Whether point (3,) lies in one of boxes (N,2,3), each grown by `margin`."""
    return bool(np.any(np.all((point >= boxes[:, 0] - margin) & (point <= boxes[:, 1] + margin), axis=1)))


def mean_depth_range(span: Span, inside: np.ndarray) -> Span:
    """The accepted mean depth of a room. In a room whose floor diagonal is under 4 / 0.45 = 8.9 m, no camera could
    keep the usual 2 m and its distance to the walls; there the lower end shrinks to 0.225 of the diagonal."""
    diagonal = float(np.linalg.norm((inside[1] - inside[0])[[0, 2]]))
    return min(span[0], 0.225 * diagonal), span[1]


def height_range(span: Span, inside: np.ndarray) -> Span:
    """The accepted height above the floor; under a ceiling lower than both ends, 0.1 m below that ceiling."""
    ceiling = float(inside[1, 1] - inside[0, 1]) - 0.1
    return min(span[0], ceiling), min(span[1], ceiling)


def pitch_of(camera: Camera) -> float:
    """Degrees by which the camera looks down from the horizon."""
    return -float(np.degrees(np.arcsin(np.clip(camera.world_from_camera[1, 2], -1.0, 1.0))))


def room_faults(
    camera: Camera, depth: np.ndarray, inside: np.ndarray, furniture: np.ndarray, settings: RenderSettings
) -> list[str]:
    """Why a camera in a room is refused; empty when it stands. The rules are those used for 3D-FRONT (BlenderProc).

    depth (h,w) float32 is layer 0 of a coarse peel, inf where the ray escapes by a window or a door; `inside` (2,3) is
    the box of the room, or (N,2,3) the boxes of air over its floors. Rules (metres and degrees, ends included): not
    inside a box of furniture; inside of `inside`; `scene_height` above the floor; pitched down by `scene_pitch`; at
    least `scene_valid` of the rays meet a surface; the nearest one, which by depth is never farther than by distance,
    is `scene_nearest` away; the mean depth lies in `scene_mean_depth`.
    """
    faults = []
    boxes = np.reshape(inside, (-1, 2, 3))
    if inside_any_box(camera.eye, furniture):
        faults.append("inside_furniture")
    around = boxes[np.all((camera.eye >= boxes[:, 0]) & (camera.eye <= boxes[:, 1]), axis=1)]
    if not len(around):
        faults.append("outside_room")
    elif not _within(float(camera.eye[1] - around[0, 0, 1]), height_range(settings.scene_height, around[0])):
        faults.append("height")
    if not _within(pitch_of(camera), settings.scene_pitch):
        faults.append("pitch")
    found = depth[np.isfinite(depth)]
    if found.size < max(1, settings.scene_valid * depth.size):
        return [*faults, "open"]
    if float(found.min()) < settings.scene_nearest:
        faults.append("too_close")
    low, high = mean_depth_range(settings.scene_mean_depth, storey(camera.eye, boxes))
    mean = float(found.mean(dtype=np.float64))
    if mean < low:
        faults.append("shallow")
    if mean > high:
        faults.append("deep")
    return faults


def _within(value: float, span: Span) -> bool:
    """Whether value lies in span, give or take the rounding of a pose."""
    return span[0] - 1e-9 <= value <= span[1] + 1e-9
