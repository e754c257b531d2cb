"""Points, each seen in one frame, among which the first Gaussians are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from msdyn.fit.sampling import Sample
from msdyn.motion import Motion

__all__ = ["Candidates"]


@dataclass(frozen=True)
class Candidates:
    """Possible Gaussians.

    Attributes:
        points: [N, 3] canonical positions, world of the fit.
        colours: [N, 3] RGB in [0, 1].
        labels: [N] mask index of the object; 0 of static points.
        source: [N] index, into the frames that are compared, of that in which each was sampled.
        footprints: [N] size of a pixel at its depth, world of the fit.
        tangents: [N, 3, 2] canonical, see `Sample`.
        motion: of the candidates; None if they are at rest.
    """

    points: Float[np.ndarray, "points 3"]
    colours: Float[np.ndarray, "points 3"]
    labels: Int[np.ndarray, " points"]
    source: Int[np.ndarray, " points"]
    footprints: Float[np.ndarray, " points"]
    tangents: Float[np.ndarray, "points 3 2"]
    motion: Motion | None

    @classmethod
    def at_rest(cls, sample: Sample, source: Int[np.ndarray, " points"]) -> Candidates:
        """Return static points, of which `source` says in which frames they were sampled."""
        labels = np.zeros(len(source), int)
        points, colours, footprints, tangents = sample
        return cls(points, colours, labels, source, footprints, tangents, None)

    @classmethod
    def joined(cls, parts: list[Candidates]) -> Candidates:
        """Return the candidates of several parts, at least one, all of which move, or none."""
        motions = [part.motion for part in parts if part.motion is not None]
        return cls(
            np.concatenate([part.points for part in parts]),
            np.concatenate([part.colours for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.footprints for part in parts]),
            np.concatenate([part.tangents for part in parts]),
            type(motions[0]).concatenated(motions) if motions else None,
        )

    def positions(self, frame: int) -> Float[np.ndarray, "points 3"]:
        """Return the positions in a frame of the clip."""
        if self.motion is None:
            return self.points
        points = torch.from_numpy(self.points).float()
        moved = self.motion.positions(points, torch.tensor([float(frame)]))
        return moved[0].double().numpy()

    def cosines(self, frame: int, centre: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " points"]:
        """Return the cosine between the normal of each surface and the direction of a camera.

        It is negative where the surface has turned away, and one where no surface is known.

        Args:
            frame: of the clip.
            centre: of its camera.
        """
        across, down = np.moveaxis(self.tangents, 2, 0)
        normals, points = np.cross(down, across), self.points
        if self.motion is not None:
            canonical = torch.from_numpy(self.points).float()
            quats = torch.eye(4)[0].expand(len(canonical), 4)
            pose = self.motion.pose(canonical, quats, torch.tensor([float(frame)]))
            points = pose.means[0].double().numpy()
            normals = np.einsum("nij,nj->ni", pose.rotations[0].double().numpy(), normals)
        towards = centre - points
        length = np.linalg.norm(normals, axis=1) * np.linalg.norm(towards, axis=1)
        cosines = (normals * towards).sum(1) / np.where(length > 0, length, 1.0)
        return np.where(length > 0, cosines, 1.0)

    def sampled(self, frames: Int[np.ndarray, " frames"]) -> Float[np.ndarray, "points 3"]:
        """Return the positions in the frames in which they were sampled; `frames` in the clip."""
        result = self.points.copy()
        for own, frame, motion in self._by_source(frames):
            points = torch.from_numpy(self.points[own]).float()
            result[own] = motion.positions(points, torch.tensor([frame]))[0].double().numpy()
        return result

    def canonical(
        self, sampled: Float[np.ndarray, "points 3"], frames: Int[np.ndarray, " frames"]
    ) -> Float[np.ndarray, "points 3"]:
        """Return the canonical positions of points in the frames in which they were sampled."""
        result = sampled.copy()
        for own, frame, motion in self._by_source(frames):
            points = torch.from_numpy(sampled[own]).float()
            result[own] = motion.undo(points, frame).double().numpy()
        return result

    def _by_source(
        self, frames: Int[np.ndarray, " frames"]
    ) -> Iterator[tuple[Int[np.ndarray, " own"], float, Motion]]:
        """Yield the candidates of each frame, the frame in the clip, and their motion, if any."""
        if self.motion is None:
            return
        for number in np.unique(self.source):
            own = np.flatnonzero(self.source == number)
            yield own, float(frames[number]), self.motion.select(torch.from_numpy(own))

    def select(self, rows: Int[np.ndarray, " chosen"]) -> Candidates:
        """Return some of the candidates."""
        return Candidates(
            self.points[rows],
            self.colours[rows],
            self.labels[rows],
            self.source[rows],
            self.footprints[rows],
            self.tangents[rows],
            None if self.motion is None else self.motion.select(torch.from_numpy(rows)),
        )
