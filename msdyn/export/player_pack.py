"""The arrays of the page of `html`: Gaussians as whole numbers of steps, which deflate well.

An array of whole numbers has rows and columns. It is stored as differences of neighbouring rows, of
neighbouring columns, or of both, whichever is smaller; negative numbers are interleaved with the
others (0, -1, 1, -2, ... are 0, 1, 2, 3, ...), and the lowest bytes of all numbers come first, then
the next bytes.
"""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Real, Shaped
from torch import Tensor

from msdyn.geometry import (
    SH_C0,
    Cameras,
    depth_in_camera,
    multiply_quats_wxyz,
    rotations_from_quats_wxyz,
)
from msdyn.progress import track
from msdyn.sequence import GaussianSequence, PartSelection

__all__ = ["Packed", "pack_array", "packed_sequence"]

_FAINT = 1 / 255
_SCALE_STEP = 0.02
"""Of natural logarithms: scales are at most 1 % off."""
_QUAT_STEP = 1 / 512
"""Of components of unit quaternions: orientations are at most about 0.2 degrees off."""
_COLOUR_STEP = 1 / 255
_OPACITY_STEP = 1 / 255
_STEPS_IN_TOLERANCE = 8
_NEAR = 0.02
"""Share of the Gaussians that may be nearer to the clip's cameras than the step allows for."""
_FINEST = 1 / 2**26
"""The smallest step of positions, as a share of their extent."""


@dataclass(frozen=True)
class Packed:
    """The arrays of a page.

    Attributes:
        rows: name, shape, offset and coding of each array.
        blob: their bytes.
        header: numbers by which the arrays are read.
        labels: mask indices that occur, 0 for the static Gaussians.
    """

    rows: list[dict[str, Any]]
    blob: bytes
    header: dict[str, Any]
    labels: list[int]


@torch.no_grad()
def packed_sequence(
    sequence: GaussianSequence,
    times: Real[np.ndarray, " times"],
    what: PartSelection,
    *,
    tolerance_px: float,
) -> Packed:
    """Return the arrays of the Gaussians that are visible at some of the times.

    Args:
        sequence: the fit.
        times: normalised.
        what: the part to store.
        tolerance_px: eight steps of the positions, in pixels of the clip's cameras.
    """
    taken = _taken(sequence, times, what)
    static = taken.num_static
    means, quats, symmetry = taken.means, taken.quats, _symmetries(taken.quats[0])
    quats = _continuous(_product(quats, symmetry[None]))
    scales = _permuted(taken.scales, symmetry)
    cameras = sequence.cameras.interpolated(sequence.timeline.frame_positions(times))
    low = means.min((0, 1)) if means.size else np.zeros(3)
    step = _position_step(means, cameras, tolerance_px)
    smallest = float(np.log(scales).min()) if scales.size else 0.0
    grid = np.rint((means - low) / step).astype(np.int64)
    order = _order(grid[0], taken.labels, static)
    grid, quats, scales = grid[:, order], quats[:, order], scales[order]
    alpha = np.rint(taken.opacities[:, order] / _OPACITY_STEP).astype(np.int64)
    count, moving = len(order), len(order) - static
    small = np.rint(quats / _QUAT_STEP).astype(np.int64)
    arrays = {
        "fixed_positions": grid[0, :static].T,
        "moving_positions": grid[:, static:].swapaxes(1, 2).reshape(len(times) * 3, moving),
        "fixed_quats": small[0, :static, 1:].T,
        "moving_quats": small[:, static:].swapaxes(1, 2).reshape(len(times) * 4, moving),
        "scales": np.rint((np.log(scales) - smallest) / _SCALE_STEP).astype(np.int64).T,
        "colours": np.rint(taken.colours[order] / _COLOUR_STEP).astype(np.int64).T,
        "labels": taken.labels[order][None],
        "alpha": alpha if (alpha != alpha[:1]).any() else alpha[:1],
    }
    rows, blob = [], bytearray()
    for name, array in arrays.items():
        period = {"moving_positions": 3, "moving_quats": 4}.get(name, 1)
        row, content = pack_array(array, period)
        rows.append({"name": name, **row, "offset": len(blob)})
        blob += content
    header = {
        "fixed": static,
        "moving": count - static,
        "low": low.tolist(),
        "step": step,
        "quat_step": _QUAT_STEP,
        "colour_step": _COLOUR_STEP,
        "opacity_step": _OPACITY_STEP,
        "log_scale": [smallest, _SCALE_STEP],
    }
    return Packed(rows, bytes(blob), header, np.unique(taken.labels).tolist())


def pack_array(
    array: Int[np.ndarray, "rows columns"], period: int = 1
) -> tuple[dict[str, Any], bytes]:
    """Return how an array is coded, and its bytes.

    Args:
        array: numbers below 2^28 in size.
        period: rows are compared with the one so many before.

    Returns:
        `rows` and `columns` (the shape), `bytes` per number, and `differences`: the distance of
        rows, and of columns, whose differences are stored, 0 for none.
    """
    best: tuple[int, dict[str, Any], bytes] | None = None
    rows, columns = array.shape
    for down, across in itertools.product((0, period), (0, 1)):
        coded = array
        if down:
            coded = np.concatenate([coded[:down], coded[down:] - coded[:-down]])
        if across:
            coded = np.diff(coded, axis=1, prepend=0)
        coded = np.where(coded < 0, -2 * coded - 1, 2 * coded)
        size = next(n for n in (1, 2, 3, 4) if coded.max(initial=0) < 256**n)
        planes = coded.astype("<u4").ravel()[:, None].view("u1")[:, :size].T
        content = planes.tobytes()
        length = len(zlib.compress(content, 6))
        if best is None or length < best[0]:
            best = length, {
                "rows": rows, "columns": columns, "bytes": size, "differences": [down, across],
            }, content  # fmt: skip
    assert best is not None
    return best[1:]


@dataclass(frozen=True)
class _Taken:
    """The Gaussians to store, static ones first; means, quaternions and opacities at all times."""

    means: Float[np.ndarray, "times gaussians 3"]
    quats: Float[np.ndarray, "times gaussians 4"]
    opacities: Float[np.ndarray, "times gaussians"]
    scales: Float[np.ndarray, "gaussians 3"]
    colours: Float[np.ndarray, "gaussians 3"]
    labels: Int[np.ndarray, " gaussians"]

    @property
    def num_static(self) -> int:
        return int((self.labels == 0).sum())


def _taken(
    sequence: GaussianSequence, times: Real[np.ndarray, " times"], what: PartSelection
) -> _Taken:
    levels = what.num_levels(sequence)
    means, quats, opacities = [], [], []
    first = what.select(sequence.at(float(times[0]), levels=levels), sequence)
    for time in track(times, "export html", unit="time"):
        posed = what.select(sequence.at(float(time), levels=levels), sequence)
        means.append(_array(posed.means[0]))
        quats.append(_array(torch.nn.functional.normalize(posed.quats_wxyz[0], dim=-1)))
        opacities.append(_array(posed.opacities[0]))
    opacity = np.stack(opacities)
    visible = opacity.max(0) > _FAINT
    colours = (first.harmonics[:, 0] * SH_C0 + 0.5).clamp_min(0)
    return _Taken(
        np.stack(means)[:, visible],
        np.stack(quats)[:, visible],
        opacity[:, visible],
        _array(first.scales)[visible],
        _array(colours)[visible],
        first.labels.cpu().numpy()[visible],
    )


def _array(values: Shaped[Tensor, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    return values.double().cpu().numpy()


def _position_step(
    means: Float[np.ndarray, "times gaussians 3"], cameras: Cameras, tolerance_px: float
) -> float:
    """Return the step of all positions: a part of a pixel for those nearest to the cameras."""
    if not means.size:
        return 1.0
    depth = depth_in_camera(cameras.cam_from_world, means)
    extent = float(np.ptp(means, axis=(0, 1)).max())
    seen = depth[depth > 0]
    near = float(np.quantile(seen, _NEAR)) if seen.size else extent
    pixel = near / float(cameras.intrinsics[:, :2, :2].max())
    return max(tolerance_px / _STEPS_IN_TOLERANCE * pixel, _FINEST * extent, 1e-12)


def _order(
    grid: Int[np.ndarray, "gaussians 3"], labels: Int[np.ndarray, " gaussians"], static: int
) -> Int[np.ndarray, " gaussians"]:
    """Return the Gaussians by label, those of a label along a Morton curve."""
    if not len(grid):
        return np.zeros(0, np.int64)
    cells = grid - grid.min(0)
    cells >>= max(int(cells.max()).bit_length() - 16, 0)
    key = np.zeros(len(cells), np.int64)
    for bit, axis in itertools.product(range(16), range(3)):
        key |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return np.lexsort((key, labels))


def _group() -> Float[np.ndarray, "symmetries 4"]:
    """Return the quaternions of the 24 rotations that map the coordinate axes onto themselves."""
    found = [np.eye(4)[0]]
    quarter = np.array([[1, 1, 0, 0], [1, 0, 1, 0]]) / np.sqrt(2)
    for quat in found:  # grows meanwhile
        for turn in quarter:
            new = _product(turn, quat)
            if all(abs(new @ old) < 0.99 for old in found):
                found.append(new)
    return np.stack(found)


def _product(
    first: Float[np.ndarray, "*#batch 4"], second: Float[np.ndarray, "*#batch 4"]
) -> Float[np.ndarray, "*#batch 4"]:
    return multiply_quats_wxyz(torch.from_numpy(first), torch.from_numpy(second)).numpy()


def _symmetries(quats: Float[np.ndarray, "gaussians 4"]) -> Float[np.ndarray, "gaussians 4"]:
    """Return, for each orientation, the relabelling of its axes that makes its angle smallest.

    The scalar part of the product is then at least 0.85, and the other three say it.
    """
    group = _group() * [1, -1, -1, -1]
    chosen = np.abs(quats @ group.T).argmax(1)  # the scalar part of q g is q . conjugate(g)
    return (group * [1, -1, -1, -1])[chosen]


def _permuted(
    scales: Float[np.ndarray, "gaussians 3"], symmetry: Float[np.ndarray, "gaussians 4"]
) -> Float[np.ndarray, "gaussians 3"]:
    """Return the standard deviations along the relabelled axes."""
    turns = rotations_from_quats_wxyz(torch.from_numpy(symmetry)).numpy()
    return np.einsum("gij,gi->gj", np.abs(turns).round(), scales)


def _continuous(
    quats: Float[np.ndarray, "times gaussians 4"],
) -> Float[np.ndarray, "times gaussians 4"]:
    """Return the quaternions with w >= 0 at the first time, and no change of sign after it."""
    signs = [np.where(quats[0, :, :1] < 0, -1, 1)]
    for before, after in itertools.pairwise(quats):
        agrees = (before * after).sum(-1, keepdims=True) >= 0
        signs.append(np.where(agrees, signs[-1], -signs[-1]))
    return quats * np.stack(signs)
