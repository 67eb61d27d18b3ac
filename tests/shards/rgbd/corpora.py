"""Small files in the formats of the photographed corpora, as their public descriptions have them, of the stage."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from PIL import Image

from shards import rays
from shards.rgbd.base import intrinsics
from tests.shards.rgbd.stage import BALL, RADIUS, camera, colour, met, photograph

H, W = 96, 128
K = intrinsics(110.0, 112.0, 66.0, 46.0)  # of the picture
H_DEPTH, W_DEPTH = 60, 80
K_DEPTH = intrinsics(68.0, 68.5, 41.0, 29.0)
POSES = [camera(), camera(0.0, 0.3, -0.05)]


def from_zero(matrix: np.ndarray) -> np.ndarray:
    """K as a file has it whose first pixel has its centre at (0, 0)."""
    moved = matrix.copy()
    moved[:2, 2] -= 0.5
    return moved


def four(matrix: np.ndarray) -> np.ndarray:
    """3x3 -> 4x4"""
    whole = np.eye(4)
    whole[:3, :3] = matrix
    return whole


def text(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(repr(float(value)) for value in row) for row in np.atleast_2d(matrix)) + "\n"


def millimetres(z: np.ndarray) -> np.ndarray:
    return np.rint(z * 1000).astype(np.uint16)


def quaternion_of(R: np.ndarray) -> list[float]:
    """(w, x, y, z) of a rotation by less than half a turn."""
    w = np.sqrt(1 + np.trace(R)) / 2
    return [w, *((R - R.T)[[2, 0, 1], [1, 2, 0]] / (4 * w)).tolist()]


def axis_angle_of(R: np.ndarray) -> np.ndarray:
    angle = np.arccos((np.trace(R) - 1) / 2)
    return np.asarray((R - R.T)[[2, 0, 1], [1, 2, 0]] / (2 * np.sin(angle)) * angle)


def jpeg(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=98, subsampling=0)
    return path


def png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def megadepth(root: Path, place: str = "0001") -> None:
    scene = root / place / "dense0"
    cameras, images = ["# Camera list"], ["# Image list"]
    for i, pose in enumerate(POSES):
        image, z, _ = photograph(K, pose, H, W)
        z[:5] = 0  # stereo did not see it
        jpeg(scene / "imgs" / f"{i}_a.jpg", image)
        (scene / "depths").mkdir(exist_ok=True)
        with h5py.File(scene / "depths" / f"{i}_a.h5", "w") as file:
            file["depth"] = z.astype(np.float32)
        n = i + 1  # the model of the second was made of a picture twice as large
        fx, fy, cx, cy = n * K[0, 0], n * K[1, 1], n * K[0, 2], n * K[1, 2]
        cameras.append(f"{i + 1} PINHOLE {n * W} {n * H} {fx} {fy} {cx} {cy}")
        from_world = np.linalg.inv(pose)
        numbers = [*quaternion_of(from_world[:3, :3]), *from_world[:3, 3].tolist()]
        images += [f"{i + 7} {' '.join(map(repr, map(float, numbers)))} {i + 1} {i}_a.jpg", "" if i else "1 2 3"]
    write_text(scene / "cameras.txt", "\n".join(cameras) + "\n")
    write_text(scene / "images.txt", "\n".join(images) + "\n")


def blendedmvs(root: Path, project: str = "5a0271884e62597cdee0d0eb") -> None:
    for i, pose in enumerate(POSES):
        image, z, _ = photograph(K, pose, H, W)
        jpeg(root / project / "blended_images" / f"{i:08d}.jpg", image)
        jpeg(root / project / "blended_images" / f"{i:08d}_masked.jpg", image * 0)
        maps = root / project / "rendered_depth_maps"
        maps.mkdir(exist_ok=True)
        (maps / f"{i:08d}.pfm").write_bytes(b"Pf\n%d %d\n-1.000000\n" % (W, H) + z[::-1].astype("<f4").tobytes())
        write_text(
            root / project / "cams" / f"{i:08d}_cam.txt",
            f"extrinsic\n{text(np.linalg.inv(pose))}\nintrinsic\n{text(from_zero(K))}\n1.0 0.05 128 9.0\n",
        )
    write_text(root / project / "cams" / "pair.txt", "2\n0\n1 1 0.5\n1\n1 0 0.5\n")


def scannet_frames(motion: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(picture, depth in mm, pose of the colour camera); `motion` is colour camera from depth camera."""
    found = []
    for pose in POSES:
        image, _, _ = photograph(K, pose, H, W)
        _, z, _ = photograph(K_DEPTH, pose @ (np.eye(4) if motion is None else motion), H_DEPTH, W_DEPTH)
        found.append((image, millimetres(z), pose))
    return found


def scannet_sens(root: Path, scene: str = "scene0003_01", lost: bool = True) -> Path:
    """The second frame has no pose if `lost`."""
    folder = root / "scans" / scene
    path = jpeg(folder / "x.jpg", np.zeros((8, 8, 3), np.uint8)).with_name(f"{scene}.sens")
    eye, floats = np.eye(4), struct.Struct("<16f")
    parts = [struct.pack("<IQ", 4, 15), b"StructureSensor"]
    parts += [floats.pack(*m.ravel()) for m in (four(from_zero(K)), eye, four(from_zero(K_DEPTH)), eye)]
    parts.append(struct.pack("<iiIIIIfQ", 2, 1, W, H, W_DEPTH, H_DEPTH, 1000.0, 2))
    for i, (image, depth, pose) in enumerate(scannet_frames()):
        colour, packed = jpeg(folder / "x.jpg", image).read_bytes(), zlib.compress(depth.tobytes())
        pose = np.full((4, 4), -np.inf) if lost and i == 1 else pose
        parts += [floats.pack(*pose.ravel()), struct.pack("<QQQQ", i, i, len(colour), len(packed)), colour, packed]
    path.write_bytes(b"".join([*parts, struct.pack("<Q", 0)]))
    (folder / "x.jpg").unlink()
    return path


def scannet(root: Path, scene: str = "scene0003_00", motion: np.ndarray | None = None) -> None:
    """As SensReader exports it."""
    folder = root / scene
    for i, (image, depth, pose) in enumerate(scannet_frames(motion)):
        jpeg(folder / "color" / f"{i}.jpg", image)
        png(folder / "depth" / f"{i}.png", depth)
        write_text(folder / "pose" / f"{i}.txt", text(pose))
    matrices = {
        "intrinsic_color": four(from_zero(K)),
        "intrinsic_depth": four(from_zero(K_DEPTH)),
        "extrinsic_color": np.eye(4),
        "extrinsic_depth": np.eye(4) if motion is None else motion,
    }
    for name, matrix in matrices.items():
        write_text(folder / "intrinsic" / f"{name}.txt", text(matrix))


def arkitscenes(root: Path, video: str = "41069021", high: bool = False) -> None:
    """Low resolution: picture and depth of one size, and confidence; high: both of twice that."""
    folder = root / "Training" / video
    matrix, height, width = (np.diag([2, 2, 1]) @ K, 2 * H, 2 * W) if high else (K, H, W)
    names = ("wide", "highres_depth") if high else ("lowres_wide", "lowres_depth")
    lines = []
    for time, pose in zip((305.244, 1007.343), POSES):
        image, z, _ = photograph(matrix, pose, height, width)
        frame = f"{video}_{time:.3f}"
        png(folder / names[0] / f"{frame}.png", image)
        png(folder / names[1] / f"{frame}.png", millimetres(z))
        if not high:
            sure = np.full((height, width), 2, np.uint8)
            sure[:, :10] = 0
            png(folder / "confidence" / f"{frame}.png", sure)
        numbers = [width, height, matrix[0, 0], matrix[1, 1], matrix[0, 2] - 0.5, matrix[1, 2] - 0.5]
        camera_file = f"{video}_{time - 0.001:.3f}.pincam"  # a millisecond off, as some are
        write_text(folder / f"{names[0]}_intrinsics" / camera_file, " ".join(map(repr, map(float, numbers))))
        from_world = np.linalg.inv(pose)
        motion = [time + 0.002, *axis_angle_of(from_world[:3, :3]), *from_world[:3, 3]]
        lines.append(" ".join(repr(float(value)) for value in motion))
    write_text(folder / "lowres_wide.traj", "\n".join(reversed(lines)) + "\n")


VEHICLE_FROM_CAMERA = np.array([[0, 0, 1, 1.2], [-1, 0, 0, 0.1], [0, -1, 0, 1.4], [0, 0, 0, 1.0]])
SWEEP, SHOT = 315966265259836000, 315966265279836000
CENTRES = "ring_front_center"


def vehicle_at(time: int) -> np.ndarray:
    """City from vehicle: it drives and turns. At SHOT the camera stands where POSES[0] has it."""
    seconds = (time - SHOT) / 1e9
    turn, drive = np.eye(4), np.eye(4)
    c, s = np.cos(3 * seconds), np.sin(3 * seconds)
    turn[:2, :2] = [[c, -s], [s, c]]
    drive[0, 3] = 15 * seconds
    return np.asarray(POSES[0] @ np.linalg.inv(VEHICLE_FROM_CAMERA) @ drive @ turn)


def argoverse2(root: Path, log: str = "7fab2350-7eaf-3b7e-a39d-6937a4c1bede") -> np.ndarray:
    """-> the points of the sweep that the camera sees, in the city. It has others, from behind the ball."""
    folder = root / "val" / log
    image, _, _ = photograph(K, POSES[0], H, W)
    jpeg(folder / "sensors" / "cameras" / CENTRES / f"{SHOT}.jpg", image)
    # points of the stage along rays of another grid than the picture's, some beside it and behind the camera
    directions = rays(intrinsics(60, 60, 80, 60), 120, 160).reshape(-1, 3)
    local = directions * (met(directions, POSES[0]) / np.linalg.norm(directions, axis=1))[:, None]
    points = local[local[:, 2] > 0] @ POSES[0][:3, :3].T + POSES[0][:3, 3]
    sweep_from_city = np.linalg.inv(vehicle_at(SWEEP))
    every = np.concatenate([points, behind_the_ball(points)])
    cloud = (every @ sweep_from_city[:3, :3].T + sweep_from_city[:3, 3]).astype(np.float32)
    feather(folder / "sensors" / "lidar" / f"{SWEEP}.feather", dict(zip("xyz", cloud.T)))
    lens = {"fx_px": K[0, 0], "fy_px": K[1, 1], "cx_px": K[0, 2] - 0.5, "cy_px": K[1, 2] - 0.5}
    lens |= {"k1": -0.24, "k2": -0.21, "k3": 0.32, "height_px": H, "width_px": W}
    feather(folder / "calibration" / "intrinsics.feather", {"sensor_name": [CENTRES], **_columns(lens)})
    mounting = {"sensor_name": [CENTRES], **_columns(se3(VEHICLE_FROM_CAMERA))}
    feather(folder / "calibration" / "egovehicle_SE3_sensor.feather", mounting)
    poses = [{"timestamp_ns": time, **se3(vehicle_at(time))} for time in (SHOT + 1000, SWEEP, SWEEP - 10**8)]
    feather(folder / "city_SE3_egovehicle.feather", {name: [pose[name] for pose in poses] for name in poses[0]})
    return points


def behind_the_ball(points: np.ndarray) -> np.ndarray:
    """For points (N,3) in the world that the camera sees at the middle of the ball: others 1.6 times as far away, on
    its rays a little beside them, so that they come to lie between the pixels of those.
    """
    from_camera = points - POSES[0][:3, 3]
    axis = (BALL - POSES[0][:3, 3]) / np.linalg.norm(BALL - POSES[0][:3, 3])
    off_axis = np.linalg.norm(from_camera - (from_camera @ axis)[:, None] * axis, axis=1)
    on_ball = np.abs(np.linalg.norm(points - BALL, axis=1) - RADIUS) < 1e-3
    return np.asarray(POSES[0][:3, 3] + (from_camera[on_ball & (off_axis < 0.5)] + (0, 0, 0.03)) * 1.6)


def se3(motion: np.ndarray) -> dict[str, float]:
    w, x, y, z = quaternion_of(motion[:3, :3])
    t = motion[:3, 3]
    return {"qw": w, "qx": x, "qy": y, "qz": z, "tx_m": t[0], "ty_m": t[1], "tz_m": t[2]}


def feather(path: Path, columns: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.feather.write_feather(pa.table(dict(columns)), path)


def _columns(values: dict[str, float]) -> dict[str, list[float]]:
    return {name: [value] for name, value in values.items()}


RADIAL, TANGENTIAL = (0.06, -0.2, 0.05), (0.002, -0.003)
TIME, SEGMENT = 1552440195362591, "10023947602400723454_1120_000_1140_000"
BEAMS, COLUMNS = 40, 600
WAYMO_FROM_CAMERA = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])  # ours to theirs


def distort(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """OpenCV's model, written out once more."""
    (k1, k2, k3), (p1, p2) = RADIAL, TANGENTIAL
    r2 = x**2 + y**2
    factor = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x**2), y * factor + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y


def seen_distorted() -> np.ndarray:
    """The picture of the stage through the lens: each pixel's ray is found by Newton's method."""
    v, u = np.mgrid[0:H, 0:W] + 0.5
    goal = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]])
    at = goal.copy()
    for _ in range(20):
        error, step = np.stack(distort(*at)) - goal, 1e-6
        right = (np.stack(distort(at[0] + step, at[1])) - np.stack(distort(*at))) / step
        below = (np.stack(distort(at[0], at[1] + step)) - np.stack(distort(*at))) / step
        determinant = right[0] * below[1] - below[0] * right[1]
        at[0] -= (error[0] * below[1] - error[1] * below[0]) / determinant
        at[1] -= (error[1] * right[0] - error[0] * right[1]) / determinant
    directions = np.stack([at[0], at[1], np.ones((H, W))], -1)
    z = met(directions, POSES[0]) / np.linalg.norm(directions, axis=-1)
    points = directions * z[..., None] @ POSES[0][:3, :3].T + POSES[0][:3, 3]
    return np.where(z[..., None] > 0, colour(points), 0).astype(np.uint8)


def waymo(root: Path) -> np.ndarray:
    """One picture and one scanner whose vehicle moves while it turns. -> the points (N,3) that the camera sees, in the
    world. Every other column came back as the second return; in the rest that is what lies behind the ball.
    """
    vehicle_from_theirs = VEHICLE_FROM_CAMERA @ np.linalg.inv(WAYMO_FROM_CAMERA)
    vehicle_at_shot = POSES[0] @ np.linalg.inv(VEHICLE_FROM_CAMERA)
    yaw = 0.4
    mounting = np.eye(4)
    mounting[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    mounting[:3, 3] = VEHICLE_FROM_CAMERA[:3, 3] + (0, 0, 0.03)  # hardly above the camera: it sees what that sees
    # pose of the vehicle at each pixel: roll, pitch, yaw and place of world from vehicle at that time
    angles = np.arctan2(vehicle_at_shot[2, 1], vehicle_at_shot[2, 2]), -np.arcsin(vehicle_at_shot[2, 0])
    heading = np.arctan2(vehicle_at_shot[1, 0], vehicle_at_shot[0, 0])
    poses = np.zeros((BEAMS, COLUMNS, 6))
    poses[..., 0], poses[..., 1] = angles
    poses[..., 2] = heading + np.linspace(-0.02, 0.02, COLUMNS)
    poses[..., 3:] = vehicle_at_shot[:3, 3] + np.linspace(-0.1, 0.1, COLUMNS)[:, None] * (1, 0.5, 0)
    low, high = -0.6, 0.3
    ranges, projections, points = np.full((2, BEAMS, COLUMNS, 4), -1.0), np.zeros((2, BEAMS, COLUMNS, 6)), []
    for row in range(BEAMS):
        inclination = low + (BEAMS - 1 - row + 0.5) / BEAMS * (high - low)
        for column in range(COLUMNS):
            azimuth = np.pi - 2 * np.pi * (column + 0.5) / COLUMNS - yaw
            if abs(azimuth + yaw) > 1.0:
                continue  # not towards the camera
            ray = [np.cos(inclination) * np.cos(azimuth), np.cos(inclination) * np.sin(azimuth), np.sin(inclination)]
            roll, pitch, turn = poses[row, column, :3]
            world_from_vehicle = np.eye(4)
            world_from_vehicle[:3, :3] = _about("z", turn) @ _about("y", pitch) @ _about("x", roll)
            world_from_vehicle[:3, 3] = poses[row, column, 3:]
            scanner = world_from_vehicle @ mounting
            distance = float(met(np.array(ray), scanner))
            if not distance:
                continue
            ranges[column % 2, row, column, 0] = distance
            point = scanner[:3, :3] @ np.array(ray) * distance + scanner[:3, 3]
            local = np.linalg.inv(POSES[0]) @ [*point, 1]
            x, y = distort(local[0] / local[2], local[1] / local[2])
            u, v = K[0, 0] * x + K[0, 2], K[1, 1] * y + K[1, 2]
            if local[2] > 0 and 0 <= u < W and 0 <= v < H:
                projections[column % 2, row, column, :3] = 1, np.floor(u), np.floor(v)
                points.append(point)
                if column % 2 == 0 and len(behind_the_ball(point[None])):
                    ranges[1, row, column, 0] = 1.6 * distance
                    projections[1, row, column, :3] = 1, np.floor(u), np.floor(v) + 1
    picture = jpeg(root / "x.jpg", seen_distorted()).read_bytes()
    (root / "x.jpg").unlink()
    frame = {"key.segment_context_name": SEGMENT, "key.frame_timestamp_micros": TIME}
    camera_key, laser_key = {"key.camera_name": 1}, {"key.laser_name": 1}
    lens = dict(zip(("k1", "k2", "k3", "p1", "p2"), (*RADIAL, *TANGENTIAL)))
    lens |= {"f_u": K[0, 0], "f_v": K[1, 1], "c_u": K[0, 2], "c_v": K[1, 2]}
    component(
        root,
        "camera_image",
        "CameraImageComponent",
        {**frame, **camera_key},
        {"image": picture, "pose.transform": vehicle_at_shot},
    )
    calibration: dict[str, Any] = {f"intrinsic.{name}": value for name, value in lens.items()}
    calibration |= {"extrinsic.transform": vehicle_from_theirs, "height": H, "width": W}
    component(root, "camera_calibration", "CameraCalibrationComponent", camera_key, calibration)
    scanner_values = {"extrinsic.transform": mounting, "beam_inclination.min": low, "beam_inclination.max": high}
    component(root, "lidar_calibration", "LiDARCalibrationComponent", laser_key, scanner_values)
    returns = {**image("range_image_return1", ranges[0]), **image("range_image_return2", ranges[1])}
    component(root, "lidar", "LiDARComponent", {**frame, **laser_key}, returns)
    seen = {**image("range_image_return1", projections[0]), **image("range_image_return2", projections[1])}
    component(root, "lidar_camera_projection", "LiDARCameraProjectionComponent", {**frame, **laser_key}, seen)
    component(root, "lidar_pose", "LiDARPoseComponent", {**frame, **laser_key}, image("range_image_return1", poses))
    pose = {"world_from_vehicle.transform": vehicle_at_shot @ rigid_by(0.5)}  # of the frame, not of its pictures
    component(root, "vehicle_pose", "VehiclePoseComponent", frame, pose)
    return np.array(points)


def rigid_by(metres: float) -> np.ndarray:
    motion = np.eye(4)
    motion[0, 3] = metres
    return motion


def image(name: str, values: np.ndarray) -> Mapping[str, Any]:
    return {f"{name}.values": values.astype(np.float32), f"{name}.shape": np.array(values.shape, np.int32)}


def component(root: Path, folder: str, prefix: str, keys: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """One row in a parquet file of version 2."""
    row = dict(keys)
    for name, value in values.items():
        row[f"[{prefix}].{name}"] = value.ravel() if isinstance(value, np.ndarray) else value
    path = root / "training" / folder / f"{SEGMENT}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: pa.array([value]) for name, value in row.items()}), path)


def _about(axis: str, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    matrices = {
        "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.array(matrices[axis], np.float64)
