"""The index beside a shard: what its clips are, and where in the tar their members lie.

    clips-000000.tar           members `DATASET/NAME.meta.json`, `DATASET/NAME.cameras.npz`, and for
                               each frame `DATASET/NAME.00012.image.jpg`, `.depth.png`,
                               `.objects.png` and `.tracks.npz`, as far as the clip has them
    clips-000000.index.json    this index

A folder is opened by its indices alone, and a frame is read at its offset. Everything is checked
against the size of the tar before it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from msdyn.errors import InputError
from msdyn.feedforward.batches import MOTION_KINDS, MotionKind
from msdyn.feedforward.data.clip import CLIP_NAME
from msdyn.reading import check_image_size, read_json, reading

__all__ = ["FRAME_MEMBERS", "INDEX_SUFFIX", "ClipEntry", "index_content", "read_index"]

FORMAT = "msdyn-clips"
VERSION = 1
INDEX_SUFFIX = ".index.json"
FRAME_MEMBERS = ("image.jpg", "image.png", "depth.png", "objects.png", "tracks.npz")
"""Members of a frame."""
_CLIP_MEMBERS = ("meta.json", "cameras.npz")
_COUNTS = ("frames", "targets", "width", "height", "tracks", "objects")


@dataclass(frozen=True)
class ClipEntry:
    """A clip as the index describes it.

    Attributes:
        tar: the shard.
        name, dataset, motion: of the clip.
        frames: all frames, of which `targets` are of the target view.
        width, height: of the frames, px.
        tracks, objects: how many tracks and object poses the clip has.
        members: offset and size, in bytes, of the clip's own members.
        frame_members: offset and size of each frame's members; size 0 where a frame has none.
    """

    tar: Path
    name: str
    dataset: str
    motion: MotionKind
    frames: int
    targets: int
    width: int
    height: int
    tracks: int
    objects: int
    members: dict[str, tuple[int, int]]
    frame_members: dict[str, Int64[np.ndarray, "frames 2"]]

    @property
    def key(self) -> str:
        """Part of the member names before the first dot."""
        return f"{self.dataset}/{self.name}"

    @property
    def inputs(self) -> int:
        """Frames that may be input."""
        return self.frames - self.targets

    @property
    def has_depth(self) -> bool:
        """Whether some frame has depth."""
        return "depth.png" in self.frame_members

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.height, self.width


def index_content(entries: list[ClipEntry], tar_bytes: int) -> dict[str, Any]:
    """Return the index of a shard as JSON."""
    clips = [
        {
            "name": entry.name,
            "dataset": entry.dataset,
            "motion": entry.motion,
            **{name: getattr(entry, name) for name in _COUNTS},
            "members": {name: list(span) for name, span in entry.members.items()},
            "frame_members": {
                name: {"offsets": spans[:, 0].tolist(), "sizes": spans[:, 1].tolist()}
                for name, spans in entry.frame_members.items()
            },
        }
        for entry in entries
    ]
    return {"format": FORMAT, "version": VERSION, "bytes": tar_bytes, "clips": clips}


def read_index(path: Path) -> list[ClipEntry]:
    """Read the index of a shard and check it against the size of the tar.

    Raises:
        InputError: the index is damaged, of another version, or not that of the tar beside it.
    """
    tar = path.with_name(path.name.removesuffix(INDEX_SUFFIX) + ".tar")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: format: expected {FORMAT!r}; not an index of clips")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: version: expected {VERSION}, got {content.get('version')!r}; update msdyn"
        )
    if not tar.is_file():
        raise InputError(f"{path}: expected the shard {tar.name} beside it, found none")
    size = tar.stat().st_size
    if content.get("bytes") != size:
        raise InputError(
            f"{tar}: expected {content.get('bytes')!r} bytes as its index says, got {size}; "
            "copy or write the shard again"
        )
    clips = content.get("clips")
    if not isinstance(clips, list):
        raise InputError(f"{path}: clips: expected a list, got {type(clips).__name__}")
    with reading(path, "index of clips"):
        return [_entry(clip, tar, size) for clip in clips]


def _entry(clip: Any, tar: Path, tar_bytes: int) -> ClipEntry:
    if not isinstance(clip, dict):
        raise InputError(f"clip: expected an object, got {type(clip).__name__}")
    for name in ("name", "dataset"):
        value = clip.get(name)
        if not isinstance(value, str) or not CLIP_NAME.fullmatch(value):
            raise InputError(f"clip: {name}: expected letters, digits, _ and -, got {value!r}")
    label = f"clip {clip['dataset']}/{clip['name']}"
    motion = clip.get("motion")
    if motion not in MOTION_KINDS:
        raise InputError(
            f"{label}: motion: expected one of {', '.join(MOTION_KINDS)}, got {motion!r}"
        )
    counts: dict[str, int] = {}
    for name in _COUNTS:
        value: Any = clip.get(name)
        least = 1 if name in ("frames", "width", "height") else 0
        if not _is_count(value) or value < least:
            raise InputError(
                f"{label}: {name}: expected a number of at least {least}, got {value!r}"
            )
        counts[name] = value
    check_image_size(counts["width"], counts["height"], label)
    frames = counts["frames"]
    if counts["targets"] >= frames:
        raise InputError(f"{label}: targets: expected fewer than {frames}, got {counts['targets']}")
    members, frame_members = clip.get("members"), clip.get("frame_members")
    if not isinstance(members, dict) or set(members) != set(_CLIP_MEMBERS):
        raise InputError(f"{label}: members: expected {', '.join(_CLIP_MEMBERS)}")
    if not isinstance(frame_members, dict) or not set(frame_members) <= set(FRAME_MEMBERS):
        raise InputError(f"{label}: frame_members: expected some of {', '.join(FRAME_MEMBERS)}")
    spans: dict[str, np.ndarray] = {}
    for name, value in frame_members.items():
        columns: list[Any] = []
        if isinstance(value, dict):
            columns = [value.get("offsets"), value.get("sizes")]
        if [len(c) if isinstance(c, list) else None for c in columns] != [frames, frames]:
            raise InputError(f"{label}: {name}: expected {frames} offsets and sizes")
        spans[name] = _spans(columns, tar_bytes, f"{label}: {name}")
    own = {
        name: _spans([[part] for part in span], tar_bytes, f"{label}: {name}")[0].tolist()
        for name, span in members.items()
        if isinstance(span, list) and len(span) == 2
    }
    if len(own) < len(members) or any(size == 0 for _, size in own.values()):
        raise InputError(f"{label}: members: expected an offset and a size each")
    images = sum((s[:, 1] > 0).astype(int) for n, s in spans.items() if n.startswith("image."))
    if not np.all(images == 1):
        raise InputError(f"{label}: expected one image per frame")
    return ClipEntry(
        tar,
        clip["name"],
        clip["dataset"],
        motion,
        members={name: (span[0], span[1]) for name, span in own.items()},
        frame_members=spans,
        **counts,
    )


def _spans(columns: list[list[Any]], tar_bytes: int, label: str) -> Int64[np.ndarray, "spans 2"]:
    """Return offsets and sizes, all within the tar."""
    try:
        spans = np.array(columns).T
    except ValueError:
        spans = np.array([])  # of lists in lists
    # Whole numbers above 2^63 have another type; those up to the size of the tar can be added.
    if spans.dtype != np.int64 or (spans < 0).any() or (spans > tar_bytes - spans[:, ::-1]).any():
        raise InputError(f"{label}: expected offsets and sizes within {tar_bytes} bytes")
    return spans


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
