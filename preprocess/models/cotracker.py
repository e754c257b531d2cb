"""CoTracker3 by torch hub: tracks that survive occlusions. Weights and code are CC-BY-NC-4.0.

Reference: Karaev et al., "CoTracker3: Simpler and Better Point Tracking by Pseudo-Labelling Real
Videos", 2024.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msdyn.preprocess.models.hub import Availability
from msdyn.preprocess.progress import progress

from msdyn.errors import InputError
from msdyn.io import tracks_of_cotracker
from msdyn.scene import Scene, Tracks

__all__ = ["COTRACKER", "CoTracker", "find_cotracker"]

COTRACKER = "facebookresearch/co-tracker"
_ENTRY = "cotracker3_offline"
LICENCE = "CC-BY-NC-4.0"


@dataclass(frozen=True)
class CoTracker:
    """Tracks by CoTracker3: grids of points from evenly spaced frames, followed there and back."""

    model: str = COTRACKER
    """A repository on GitHub with a `hubconf.py`, or a folder with one."""
    grid: int = 40
    """Points along the longer side of the image, in each of the frames that start points."""
    every: int = 12
    """Points are started in every this many frames, and in the middle of shorter clips."""
    span: int = 80
    """Frames that go through at once; longer clips are cut into overlapping spans."""
    min_life: int = 3
    """Tracks seen in fewer frames are dropped."""
    offline: bool = field(default=False, metadata={"option": False})

    name = "cotracker"

    @property
    def licence(self) -> str:
        return LICENCE if self.model == COTRACKER else "unknown (your own copy)"

    def track(self, scene: Scene) -> tuple[Tracks, dict[str, Any]]:
        """Return tracks through the whole clip (object -1) and quality figures.

        Raises:
            InputError: the repository cannot be had.
        """
        import torch

        network = load_cotracker(self.model, offline=self.offline)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        network = network.to(device).eval()
        parts = []
        spans = _spans(len(scene), self.span)
        for first, last in progress(spans, "tracks"):
            images = np.stack([scene.image(frame) for frame in range(first, last)])
            video = torch.from_numpy(images).permute(0, 3, 1, 2)[None].float().to(device)
            starts = [f - first for f in range(first, last) if f % self.every == self.every // 2]
            queries = _grid(scene.size, self.grid, starts or [(last - first) // 2])
            with torch.inference_mode():
                xy, visibility = network(
                    video,
                    queries=torch.from_numpy(queries)[None].to(device),
                    backward_tracking=True,
                )
            found = tracks_of_cotracker(xy.float().cpu().numpy(), visibility.float().cpu().numpy())
            parts.append(_placed(found, first, len(scene)))
        tracks = _joined(parts, scene, self.min_life)
        life = tracks.visible.sum(1)
        return tracks, {
            "tracks": len(tracks),
            "mean_life_frames": round(float(life.mean()), 2) if len(tracks) else 0.0,
            "device": device,
        }


def find_cotracker(*, offline: bool) -> Availability:
    """Return whether the code and weights can be had; `offline`, without opening a socket."""
    import torch

    code = Path(torch.hub.get_dir()) / f"{COTRACKER.replace('/', '_')}_main"
    weights = Path(torch.hub.get_dir()) / "checkpoints" / "scaled_offline.pth"
    if code.is_dir() and weights.is_file():
        return Availability("cached", "on this disk")
    if offline:
        return Availability("no", "not on this disk, and nothing is fetched with --preset offline")
    import urllib.request

    try:
        urllib.request.urlopen(f"https://github.com/{COTRACKER}", timeout=5).close()
    except (OSError, ValueError) as error:
        return Availability("no", f"not on this disk, and not to be fetched ({error})")
    return Availability("online", "to be fetched, about 97 MB")


def load_cotracker(model: str, *, offline: bool) -> Any:
    """Load the network from a folder, from what torch hub has on disk, or from GitHub.

    Raises:
        InputError: it cannot be had.
    """
    import torch

    folder = Path(model)
    if not folder.is_dir() and offline:
        folder = Path(torch.hub.get_dir()) / f"{model.replace('/', '_')}_main"
        if not folder.is_dir():
            raise InputError(f"{model}: not on this disk, and nothing is fetched offline")
    try:
        if folder.is_dir():
            return torch.hub.load(str(folder), _ENTRY, source="local", verbose=False)
        # The type stub knows trust_repo="check" only.
        trust: Any = True
        return torch.hub.load(model, _ENTRY, trust_repo=trust, verbose=False)
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        line = " ".join(str(error).split())[:160]
        raise InputError(f"{model}: cannot be loaded by torch hub ({line})") from error


def _spans(frames: int, length: int) -> list[tuple[int, int]]:
    """Return [first, last) of spans that cover the frames, neighbours overlapping by half."""
    if frames <= length:
        return [(0, frames)]
    starts = list(range(0, frames - length, length // 2)) + [frames - length]
    return [(start, start + length) for start in starts]


def _grid(size: tuple[int, int], along: int, frames: list[int]) -> np.ndarray:
    """Return queries [N, 3] float32 (frame, x, y), pixel centres of the network at integers."""
    step = max(size) / along
    rows = np.arange(step / 2, size[0], step)
    columns = np.arange(step / 2, size[1], step)
    xy = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2) - 0.5
    parts = [np.concatenate([np.full((len(xy), 1), f), xy], 1) for f in frames]
    return np.concatenate(parts).astype(np.float32)


def _placed(tracks: Tracks, first: int, frames: int) -> Tracks:
    """Return tracks of a span that begins at frame `first` as tracks of the clip."""
    last = first + tracks.num_frames
    xy = np.zeros((len(tracks), frames, 2), np.float32)
    visible = np.zeros((len(tracks), frames), bool)
    confidence = np.zeros((len(tracks), frames), np.float32)
    xy[:, first:last], visible[:, first:last] = tracks.xy, tracks.visible
    confidence[:, first:last] = tracks.confidence
    return Tracks(xy, visible, confidence, tracks.object, tracks.query_frame + first)


def _joined(parts: list[Tracks], scene: Scene, min_life: int) -> Tracks:
    """Return all tracks, without what lies outside of the image or lives too short."""
    xy = np.concatenate([part.xy for part in parts])
    inside = ((xy >= 0) & (xy <= [scene.info.width, scene.info.height])).all(-1)
    visible = np.concatenate([part.visible for part in parts]) & inside
    confidence = np.concatenate([part.confidence for part in parts])
    kept = visible.sum(1) >= min_life
    visible = visible[kept]
    return Tracks(
        np.where(visible[..., None], xy[kept], 0),
        visible,
        np.where(visible, confidence[kept], 0),
        np.full(len(visible), -1),
        visible.argmax(1) if len(visible) else np.zeros(0, int),
    )
