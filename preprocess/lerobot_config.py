"""Options of `msdyn-preprocess --from lerobot`: those of any video, and which episode it is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msdyn.options import POSITIONAL, Named, Range
from msdyn.preprocess.config import PreprocessConfig

if TYPE_CHECKING:
    from msdyn.preprocess.frames.extract import FrameOptions

__all__ = ["EpisodeConfig", "LerobotConfig"]


@dataclass(frozen=True, kw_only=True)
class LerobotConfig(PreprocessConfig):
    """Turn an episode of a LeRobotDataset into a scene directory."""

    headings: ClassVar[dict[str, str]] = {
        **PreprocessConfig.headings,
        "video": "Input",
        "kind": "Input",
    }

    video: Annotated[Path, POSITIONAL]
    """Folder of a LeRobotDataset v3.0, with meta/, data/ and videos/."""
    out: Path | None = None
    """Scene directory to write; by default the dataset's name and that of the episode, in the
    current directory."""
    kind: Annotated[Literal["lerobot"], Named("from")]
    """The format of the folder: lerobot (LeRobotDataset v3.0)."""
    episode: Annotated[int, Range(0)]
    """Number of the episode, from 0."""
    camera: str | None = None
    """Name of the camera's feature, such as observation.images.front; not needed where there is
    only one."""

    @property
    def directory(self) -> Path:
        """The scene directory."""
        if self.out is not None:
            return self.out
        return Path(f"{self.video.resolve().name}-episode-{self.episode:06d}")


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig(PreprocessConfig):
    """Options of a video of which one episode is taken; made by `preprocess_lerobot`."""

    name: str
    """Of the episode, under which the scene keeps where its frames are from."""
    first_second: float
    """Of the file; frames before it are not of the episode."""
    last_second: float
    """Of the file; frames from it on are not of the episode."""
    length: Annotated[int, Range(1)]
    """Number of frames of the episode."""

    @property
    def source_name(self) -> str:
        return self.name

    @property
    def frames(self) -> FrameOptions:
        from msdyn.preprocess.frames.extract import Segment

        segment = Segment(self.first_second, self.last_second, self.length)
        return dataclasses.replace(super().frames, segment=segment)
