"""Is one shard what its manifest rows say? Every byte of it, and every member of every sample."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..amount import counted
from ..archive import BLOCK, END, archive_part, split_part, walk_file
from ..contract import Clip, Sample
from ..layers.planes import planes_in
from ..layout import SHARDS
from ..manifest import digest_of, members_of
from ..sample import decode, describe
from ..store import Store

RUN = 16 << 20  # bytes that are read at once


@dataclass(frozen=True)
class Problem:
    """`keys` are the samples that it costs; `member` is the part of the one sample it lies in, if that is known.
    `content` is the sha256 of a shard in which nothing is what it should hold: it may be another shard of the dataset.
    """

    where: str
    what: str
    keys: tuple[str, ...] = ()
    member: str | None = None
    content: str | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"

    def as_json(self) -> dict[str, Any]:
        return {"where": self.where, "what": self.what, "lost": list(self.keys), "member": self.member}


@dataclass(frozen=True)
class Task:
    """A shard, its manifest rows, and whether to look at its size and its ends only."""

    store: Store
    shard: str
    rows: pa.Table
    quick: bool = False


def check_shard(task: Task) -> list[Problem]:
    """All that is wrong with it. OSError where its store cannot be read."""
    rows = sorted(task.rows.to_pylist(), key=lambda row: int(row["offset"]))
    name = f"{SHARDS}/{task.shard}"
    try:
        size = task.store.size(name)
    except FileNotFoundError:
        what = f"is missing, but the manifest names it: {_lost(rows)}; {remedy(name)}"
        return [Problem(name, what, _keys(rows))]
    problems = list(_gaps(name, rows))
    end = max((row["offset"] + row["bytes"] for row in rows), default=0)
    cut = [row for row in rows if row["offset"] + row["bytes"] > size]
    if cut:
        what = f"ends at byte {size}, before byte {end} that the manifest names: truncated; {_lost(cut)}"
        problems.append(Problem(name, f"{what}; {remedy(name)}", _keys(cut)))
    elif size != end + len(END) or task.store.part(name, end, len(END)) != END:
        what = f"does not end after its last sample, at byte {end}: truncated or added to; {_mend()}"
        problems.append(Problem(name, what))
    whole = [row for row in rows if row["offset"] + row["bytes"] <= size]
    if task.quick:
        return problems + list(_first_headers(task.store, name, whole))
    digest = hashlib.sha256()
    ours = False  # whether any member in it is where it should be
    wrong: dict[str, Problem] = {}  # by the sha256 that is missed
    for row, part in parts(task.store, name, whole):
        digest.update(part)
        if hashlib.sha256(part).hexdigest() == row["sha256"]:
            ours = True
            problems += check_part(name, row, part)
        else:
            ours = ours or any_member(row, part)
            wrong[row["sha256"]] = _damage(name, row, part)
    if wrong:
        moved = _moved(task.store, name, wrong)
        if len(rows) > 1 and not ours and not moved:
            return [_foreign(task.store, name, rows)]
        problems += [problem for missed, problem in wrong.items() if missed not in moved]
        if moved:
            keys = tuple(key for missed in wrong if missed in moved for key in wrong[missed].keys)
            verb = "lies" if len(keys) == 1 else "lie"
            what = f"{counted(len(keys), 'sample')} {verb} at other bytes than the manifest says ({_few(keys)})"
            problems.append(Problem(name, f"{what}: nothing is lost, `verify --repair` mends it", keys))
    if not problems:
        digest.update(END)
        if (stated := {row["shard_sha256"] for row in rows} - {""}) and stated != {digest.hexdigest()}:
            problems.append(Problem("manifest.parquet", f"shard_sha256 is not that of {name}"))
        if any(row["shard_bytes"] not in (0, size) for row in rows):
            problems.append(Problem("manifest.parquet", f"shard_bytes is not that of {name}, {size}"))
    return problems


def check_part(where: str, row: Mapping[str, Any], part: bytes) -> list[Problem]:
    """Of the bytes of a sample, which are those that its manifest row names, and of the rest of this row."""
    key = row["key"]
    try:
        members = split_part(key, part, key)
        sample = decode(key, members, planes_in(members))
    except ValueError as error:
        return [Problem(where, str(error), (key,))]
    found = describe(key, frames_of(sample))
    if row["members"]:  # none in version 1
        found["members"] = members_of(members)
    wrong = [name for name, value in found.items() if not agree(name, value, row[name])]
    if not wrong:
        return []
    what = ", ".join(f"{name} is {row[name]!r}, the sample says {found[name]!r}" for name in wrong)
    return [Problem("manifest.parquet", f"{key}: {what}")]


def contents(row: Mapping[str, Any], part: bytes) -> dict[str, bytes] | None:
    """The members of a part whose headers may be damaged, found by the sizes in its row; None where these do not fit
    the part, or the row has none (version 1).
    """
    members: dict[str, bytes] = {}
    here = 0
    for member in row["members"]:
        here += BLOCK
        members[member["name"]] = part[here : here + member["bytes"]]
        here += -(-member["bytes"] // BLOCK) * BLOCK
    return members if members and here == len(part) == row["bytes"] else None


def healed(row: Mapping[str, Any], part: bytes) -> bytes | None:
    """The part as it was written, if no member is damaged but the archive around them; else None."""
    members = contents(row, part)
    if members is None:
        return None
    anew = archive_part(row["key"], members)
    return anew if hashlib.sha256(anew).hexdigest() == row["sha256"] else None


def any_member(row: Mapping[str, Any], part: bytes) -> bool:
    """Whether a member of a damaged part is one that was written there."""
    members = contents(row, part) or {}
    stated = {member["name"]: member["digest"] for member in row["members"]}
    return any(digest_of(content) == stated[name] for name, content in members.items())


def parts(store: Store, name: str, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """(row, the bytes it names), of rows in the order of their offsets, read many at a time; fewer bytes, or none,
    where the shard ends before. FileNotFoundError where it is missing.
    """
    size = store.size(name)  # whatever a damaged row says, no more is asked for
    run: list[dict[str, Any]] = []
    for row in [*rows, None]:
        if run and (row is None or row["offset"] + row["bytes"] - run[0]["offset"] > RUN):
            begin = min(run[0]["offset"], size)
            end = min(max(each["offset"] + each["bytes"] for each in run), size)
            content = store.part(name, begin, end - begin) if begin < end else b""
            for each in run:
                yield each, content[max(each["offset"] - begin, 0) :][: each["bytes"]]
            run = []
        if row is not None:
            run.append(row)


def frames_of(sample: Sample) -> tuple[Any, ...]:
    return sample.frames if isinstance(sample, Clip) else (sample,)


def _damage(where: str, row: Mapping[str, Any], part: bytes) -> Problem:
    """Which member the damage lies in."""
    key = row["key"]
    differs = f"{key}: the bytes are not those of the manifest (sha256 differs)"
    members = contents(row, part)
    if members is not None:
        if healed(row, part) is not None:
            what = f"{differs}, in a header or padding of the archive: no content is lost; {_mend()}"
            return Problem(where, what, (key,), "archive")
        stated = {member["name"]: member["digest"] for member in row["members"]}
        if damaged := [name for name in stated if digest_of(members[name]) != stated[name]]:
            what = f"{differs}, in .{', .'.join(damaged)}; {remedy(where)}"
            return Problem(where, what, (key,), damaged[0] if len(damaged) == 1 else None)
    try:
        split_part(key, part, key)
    except ValueError as error:
        differs += f"; {error}"
    return Problem(where, f"{differs}; {remedy(where)}", (key,))


def _first_headers(store: Store, name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Of the first sample and of the last."""
    for row in {row["offset"]: row for row in (*rows[:1], *rows[-1:])}.values():
        header = store.part(name, row["offset"], BLOCK)
        if not header.startswith(f"{row['key']}.".encode()) or header[257:262] != b"ustar":
            yield Problem(name, f"{row['key']} does not begin at byte {row['offset']}, where the manifest has it")


def _gaps(name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    end = 0
    for row in rows:
        if row["offset"] != end:
            yield Problem(name, f"bytes {end} to {row['offset']} belong to no sample of the manifest")
        end = row["offset"] + row["bytes"]


def agree(name: str, found: Any, stated: Any) -> bool:
    if name in ("z_min", "z_max"):  # measured before the codec moved depths by up to its bound
        return bool(abs(found - stated) <= 1e-3 * abs(stated))
    return bool(found == stated)


def _keys(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(row["key"] for row in rows)


def _lost(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{counted(len(rows), 'sample')} {'is' if len(rows) == 1 else 'are'} lost ({_few(_keys(rows))})"


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def _moved(store: Store, name: str, missed: Mapping[str, Problem]) -> set[str]:
    """Those of the parts that are missed, by their sha256, which lie somewhere else in this shard."""
    found: set[str] = set()
    with suppress(ValueError), store.reading(name) as file:  # what it cannot read is told of already
        for _, _, part in walk_file(file, name):
            found.add(hashlib.sha256(part).hexdigest())
    return found & missed.keys()


def _foreign(store: Store, name: str, rows: Sequence[Mapping[str, Any]]) -> Problem:
    digest = hashlib.sha256()
    for piece in store.pieces(name):
        digest.update(piece)
    what = f"holds none of the {len(rows)} samples that the manifest names ({_few(_keys(rows))})"
    return Problem(name, f"{what}; {remedy(name)}", _keys(rows), content=digest.hexdigest())


def remedy(name: str) -> str:
    return f"restore {name} from a copy, or delete it and run the same render command again"


def _mend() -> str:
    return "`verify --repair --cut` mends it"
