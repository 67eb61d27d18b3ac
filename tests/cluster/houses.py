"""Houses in the format of 3D-FRONT, with models and textures, small and of known geometry.

`House.write(folder)` gives what one has after the download: 3D-FRONT, 3D-FUTURE-model and 3D-FRONT-texture, as folders
or as zips. Rooms are boxes along the axes (or an L), +y up, in metres.
"""

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HALF = float(np.sqrt(0.5))
QUARTER_TURN = [0.0, HALF, 0.0, HALF]  # x, y, z, w: 90 degrees about +y, which takes +z to +x and +x to -z
UPRIGHT = [0.0, 0.0, 0.0, 1.0]
CHAIR = ((-0.25, 0.0, -0.3), (0.25, 0.9, 0.5))  # low and high corner of the model, which is not symmetric
Box = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass
class House:
    """The JSON of a house, and the files that it refers to: models and textures by jid and name."""

    name: str = "house-a"
    json: dict[str, Any] = field(
        default_factory=lambda: {
            "uid": "house-a",
            "furniture": [],
            "mesh": [],
            "material": [],
            "scene": {"ref": "-1", "pos": [0, 0, 0], "rot": list(UPRIGHT), "scale": [1, 1, 1], "room": []},
        }
    )
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    textures: dict[str, bytes] = field(default_factory=dict)

    def material(self, uid: str, color: tuple[int, int, int], textured: bool = False, **more: Any) -> str:
        """A material in a colour; with a texture, of which the left half is black."""
        entry: dict[str, Any] = {"uid": uid, "jid": f"jid-{uid}", "texture": "", "color": [*color, 255], **more}
        if textured:
            entry["texture"] = f"https://example.org/jid-{uid}/texture.png"
            self.textures[f"jid-{uid}"] = half_black(color)
        self.json["material"].append(entry)
        return uid

    def mesh(
        self, uid: str, kind: str, quads: list[list[tuple[float, float, float]]], material: str, **more: Any
    ) -> str:
        """Quads, four corners each; u runs along the first side and v up the second, in metres."""
        xyz: list[float] = []
        uv: list[float] = []
        normal: list[float] = []
        faces: list[int] = []
        for k, quad in enumerate(quads):
            a, b, c, d = (np.array(corner, float) for corner in quad)
            across = np.cross(b - a, d - a)
            for corner, (s, t) in zip((a, b, c, d), ((0, 0), (1, 0), (1, 1), (0, 1))):
                xyz += corner.tolist()
                uv += [s * float(np.linalg.norm(b - a)), t * float(np.linalg.norm(d - a))]
                normal += (across / max(float(np.linalg.norm(across)), 1e-9)).tolist()
            faces += [4 * k, 4 * k + 1, 4 * k + 2, 4 * k, 4 * k + 2, 4 * k + 3]
        entry = {"uid": uid, "type": kind, "material": material, "xyz": xyz, "uv": uv, "normal": normal, "faces": faces}
        self.json["mesh"].append({**entry, "constructid": uid, **more})
        return uid

    def room(self, instance: str, kind: str, children: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        entry = {"type": kind, "instanceid": instance, "children": children, "empty": 0, **more}
        self.json["scene"]["room"].append(entry)
        return entry

    def piece(self, uid: str, jid: str, valid: bool = True, box: Box | None = CHAIR) -> str:
        """Furniture, with a box as its model unless `box` is None."""
        entry = {"uid": uid, "jid": jid, "valid": valid, "size": [0.5, 0.9, 0.8], "bbox": [], "category": "chair"}
        self.json["furniture"].append(entry)
        if box is not None:
            self.models[jid] = model_files(box)
        return uid

    def boxed_room(
        self, tag: str, kind: str, low: tuple[float, float], high: tuple[float, float], height: float
    ) -> list[str]:
        """Floor, ceiling and walls of a rectangular room, facing in; also what is dropped of walls. The wall at high x
        has a window of 1 m, and that at low z a door, closed by a leaf."""
        (x0, z0), (x1, z1), h = low, high, height
        floor, wall = (
            self.material(f"floor-{tag}", (180, 130, 80), True),
            self.material(f"wall-{tag}", (200, 220, 200), True),
        )
        plain = self.material(f"plain-{tag}", (240, 240, 240))
        y0, y1, a, b = 1.0, 2.0, (z0 + z1) / 2 - 0.5, (z0 + z1) / 2 + 0.5
        dx, dw, dh = x0 + 0.4, 0.9, 2.05
        names = [
            self.mesh(f"{tag}/floor", "Floor", [[(x0, 0, z1), (x1, 0, z1), (x1, 0, z0), (x0, 0, z0)]], floor),
            self.mesh(f"{tag}/ceiling", "Ceiling", [[(x0, h, z0), (x1, h, z0), (x1, h, z1), (x0, h, z1)]], plain),
            self.mesh(
                f"{tag}/walls",
                "WallInner",
                [
                    [(x0, 0, z1), (x0, 0, z0), (x0, h, z0), (x0, h, z1)],
                    [(x1, 0, z1), (x0, 0, z1), (x0, h, z1), (x1, h, z1)],
                    [(x0, 0, z0), (dx, 0, z0), (dx, h, z0), (x0, h, z0)],
                    [(dx + dw, 0, z0), (x1, 0, z0), (x1, h, z0), (dx + dw, h, z0)],
                    [(dx, dh, z0), (dx + dw, dh, z0), (dx + dw, h, z0), (dx, h, z0)],
                    [(x1, 0, z0), (x1, 0, z1), (x1, y0, z1), (x1, y0, z0)],
                    [(x1, y1, z0), (x1, y1, z1), (x1, h, z1), (x1, h, z0)],
                    [(x1, y0, z0), (x1, y0, a), (x1, y1, a), (x1, y1, z0)],
                    [(x1, y0, b), (x1, y0, z1), (x1, y1, z1), (x1, y1, b)],
                ],
                wall,
            ),
            self.mesh(
                f"{tag}/hole",
                "Hole",
                [
                    [(x1, y0, a), (x1, y0, b), (x1 + 0.2, y0, b), (x1 + 0.2, y0, a)],
                    [(x1, y1, b), (x1, y1, a), (x1 + 0.2, y1, a), (x1 + 0.2, y1, b)],
                ],
                plain,
            ),
            self.mesh(f"{tag}/door", "Door", [[(dx, 0, z0), (dx + dw, 0, z0), (dx + dw, dh, z0), (dx, dh, z0)]], plain),
        ]
        # Coincident with the ceiling, and behind the walls: layers that nobody wants.
        dropped = [
            self.mesh(
                f"{tag}/top", "WallTop", [[(x0, h, z0), (x1, h, z0), (x1, h, z0 - 0.2), (x0, h, z0 - 0.2)]], wall
            ),
            self.mesh(
                f"{tag}/bottom", "WallBottom", [[(x0, 0, z0), (x1, 0, z0), (x1, 0, z0 - 0.2), (x0, 0, z0 - 0.2)]], wall
            ),
            self.mesh(
                f"{tag}/outer",
                "WallOuter",
                [[(x0, 0, z0 - 0.2), (x1, 0, z0 - 0.2), (x1, h, z0 - 0.2), (x0, h, z0 - 0.2)]],
                wall,
            ),
        ]
        return names + dropped

    def write(self, folder: Path, packed: bool = False) -> Path:
        """The three folders or zips under `folder`, which is returned."""
        files = {f"3D-FRONT/{self.name}.json": json.dumps(self.json).encode()}
        for jid, parts in self.models.items():
            files |= {f"3D-FUTURE-model/{jid}/{name}": data for name, data in parts.items()}
        files |= {f"3D-FRONT-texture/{jid}/texture.png": data for jid, data in self.textures.items()}
        files["3D-FUTURE-model/model_info.json"] = json.dumps(
            [{"model_id": jid, "super-category": "Chair", "category": "Armchair"} for jid in self.models]
        ).encode()
        write_files(folder, files, packed)
        return folder


def child(
    ref: str, pos: tuple[float, float, float] = (0, 0, 0), rot: list[float] = UPRIGHT, scale: Any = (1, 1, 1)
) -> dict:
    return {"ref": ref, "instanceid": f"x/{ref}", "pos": list(pos), "rot": list(rot), "scale": list(scale)}


def house() -> House:
    """Three rooms: LivingRoom-1 (4 x 3 x 2.8 m, two chairs, one of them turned and scaled), an L-shaped Bedroom-2, and
    Library-3, whose meshes say by `roomId` where they belong."""
    made = House()
    chair, absent = made.piece("f1", "model-chair"), made.piece("f2", "model-unpublished", valid=False, box=None)
    lamp = made.piece("f3", "model-lamp", box=((-0.15, -0.4, -0.15), (0.15, 0.0, 0.15)))
    living = [child(ref) for ref in made.boxed_room("living", "LivingRoom", (0, 0), (4, 3), 2.8)]
    living += [
        child(chair, (2.0, 0.0, 1.5), QUARTER_TURN, (1, 1, 2)),
        child(chair, (3.4, 0.0, 0.6)),
        child(absent, (1, 0, 1)),
        child(lamp, (2.0, 2.8, 1.5)),
        child("nobody"),
    ]
    made.room("LivingRoom-1", "LivingRoom", living)
    plain = made.material("plain", (210, 160, 160))
    walls = [(6, 0), (10, 0), (10, 2), (8, 2), (8, 4), (6, 4)]
    bedroom = [
        made.mesh(
            "bed/floor",
            "Floor",
            [[(6, 0, 4), (8, 0, 4), (8, 0, 0), (6, 0, 0)], [(8, 0, 2), (10, 0, 2), (10, 0, 0), (8, 0, 0)]],
            plain,
        ),
        made.mesh(
            "bed/ceiling",
            "CustomizedCeiling",
            [
                [(6, 2.5, 0), (8, 2.5, 0), (8, 2.5, 4), (6, 2.5, 4)],
                [(8, 2.5, 0), (10, 2.5, 0), (10, 2.5, 2), (8, 2.5, 2)],
            ],
            plain,
        ),
        made.mesh(
            "bed/walls",
            "WallInner",
            [
                [(x0, 0, z0), (x1, 0, z1), (x1, 2.7, z1), (x0, 2.7, z0)]
                for (x0, z0), (x1, z1) in zip(walls, [*walls[1:], walls[0]])
            ],
            plain,
        ),
    ]
    made.room("Bedroom-2", "Bedroom", [*map(child, bedroom), child(chair, (7.0, 0.0, 1.0))])
    for ref in made.boxed_room("library", "Library", (20, 0), (25, 4), 3.0):
        next(entry for entry in made.json["mesh"] if entry["uid"] == ref)["roomId"] = "Library-3"
    made.room("Library-3", "Library", [child(chair, (22.0, 0.0, 2.0), QUARTER_TURN)])
    return made


def model_files(box: Box, color: tuple[int, int, int] = (60, 90, 200)) -> dict[str, bytes]:
    """A 3D-FUTURE model: a box of quads. Its .mtl glows and transmits by mistake, as the real ones do."""
    (x0, y0, z0), (x1, y1, z1) = box
    lines = ["mtllib model.mtl", "g box"]
    lines += [f"v {x} {y} {z}" for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1", "usemtl paint"]
    quads = ((1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4))
    lines += ["f  " + " ".join(f"{v}/{k + 1}" for k, v in enumerate(quad)) for quad in quads]
    mtl = "newmtl paint\nKd 0.8 0.8 0.8\nKe 1 1 1\nTf 1 1 1\nmap_Kd ./texture.png\n"
    return {"raw_model.obj": "\n".join(lines).encode(), "model.mtl": mtl.encode(), "texture.png": half_black(color)}


def half_black(color: tuple[int, int, int], size: int = 8) -> bytes:
    pixels = np.full((size, size, 3), color, np.uint8)
    pixels[:, : size // 2] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_files(folder: Path, files: dict[str, bytes], packed: bool = False) -> None:
    """Files by relative path; `packed`, a zip for each first folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in sorted(files.items()):
        if packed:
            with zipfile.ZipFile(folder / f"{name.partition('/')[0]}.zip", "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(name, data)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
