"""Which part of a sequence's motion is evaluated."""

from __future__ import annotations

from dataclasses import dataclass

from msdyn.evaluate.camera_search import CameraSearch, FoundCamera
from msdyn.geometry import Cameras
from msdyn.render import Order, RenderedImage, input_axis, render_image
from msdyn.scene import View
from msdyn.sequence import GaussianSequence

__all__ = ["Variant"]


@dataclass(frozen=True)
class Variant:
    """Which part of a sequence's motion is evaluated.

    Attributes:
        levels: use only the first so many motion levels.
        frozen: render the canonical frame at every time.
        order: of the Gaussians in an image, see `render_image`.
    """

    levels: int | None = None
    frozen: bool = False
    order: Order = "input"

    @property
    def used_levels(self) -> int | None:
        """Number of motion levels in use: 0 if frozen, None for all."""
        return 0 if self.frozen else self.levels

    def time(self, sequence: GaussianSequence, frame: int) -> float:
        """Return the normalised time that is rendered for a frame."""
        shown = sequence.canonical_frame if self.frozen else frame
        return sequence.timeline.time_of_frame(shown)

    def render(
        self,
        sequence: GaussianSequence,
        camera: Cameras,
        frame: int,
        *,
        exposure: bool = False,
        time: float | None = None,
    ) -> RenderedImage:
        """Render the time of a frame, or a given one; `exposure` as for `render_image`."""
        if time is None or self.frozen:
            time = self.time(sequence, frame)
        return render_image(
            sequence, camera, time, levels=self.levels, exposure=exposure, order=self.order
        )

    def find(
        self,
        search: CameraSearch,
        sequence: GaussianSequence,
        camera: Cameras,
        view: View,
        frame: int,
    ) -> FoundCamera:
        """Return the camera that fits an image of a view best on its covisible pixels."""
        own = None if self.frozen else view.times.get(frame)
        time = self.time(sequence, frame) if own is None else own
        posed = sequence.at(time, levels=self.levels)
        along = input_axis(sequence, camera, time) if self.order == "input" else None
        return search(posed, camera, view.image(frame), view.covisible(frame), along)
