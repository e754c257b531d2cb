"""The first static Gaussians, on the static pixels of depth maps of frames over the clip."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from msdyn.fit.candidates import Candidates
from msdyn.fit.config import FitConfig
from msdyn.fit.data import FitData
from msdyn.fit.first_gaussians import gaussians_at, spacing_of
from msdyn.fit.fusion import LEAST_TOLERANCE, Sampled, fuse_depth
from msdyn.fit.sampling import Sample, sample_frame, spread_over, subsample
from msdyn.fit.static_lives import resting_points
from msdyn.geometry import jumps
from msdyn.sequence import Gaussians

__all__ = ["FUSED_FRAMES", "static_gaussians"]

# Number of frames whose depth maps are sampled.
_STATIC_FRAMES = 12
# Of a camera that jumps, each of whose frames shows another part of the background.
_STATIC_FRAMES_OF_JUMPS = 96
# Number of frames with which the depth of the samples is compared.
FUSED_FRAMES = 48


def static_gaussians(data: FitData, config: FitConfig, rng: np.random.Generator) -> Gaussians:
    """Sample the static pixels of depth maps of frames over the clip."""
    count = config.static_gaussians
    jumping = jumps(data.cameras[data.frames])
    chosen = spread_over(data.frames, _STATIC_FRAMES_OF_JUMPS if jumping else _STATIC_FRAMES)
    samples = []
    for frame in chosen:
        own = data.mask.numpy(frame) == 0
        samples.append(sample_frame(data, frame, own, 3 * count // len(chosen), rng))
    source = np.repeat(chosen, [len(sample.points) for sample in samples])
    found = Sample.joined(samples)
    kept, tolerance = np.ones(len(source), bool), LEAST_TOLERANCE
    if config.initial_depth == "fused":
        sampled = Sampled(found.points, source, np.zeros(len(source), int))
        compared = spread_over(data.frames, FUSED_FRAMES)
        fused = fuse_depth(data, sampled, compared, lambda points: lambda _: points)
        kept, tolerance = fused.kept, fused.tolerance
        found = found._replace(points=fused.points)
    surface = config.initial_shape == "surface"

    def gaussians(of: Sample, spacing: Float[np.ndarray, " points"]) -> Gaussians:
        tangents = of.tangents if surface else None
        return gaussians_at(of.points, of.colours, spacing, config.sh_degree, tangents)

    resting = None
    if config.life_spans == "on":
        compared = np.union1d(chosen, spread_over(data.frames, FUSED_FRAMES))
        candidates = Candidates.at_rest(found, np.searchsorted(compared, source))
        resting = resting_points(data, candidates, kept, tolerance, compared, count)
        count -= len(resting.chosen)
        kept &= ~resting.short
    always = found.select(kept)
    always = always.select(subsample(always.points, always.footprints, count))
    result = gaussians(always, spacing_of(always.points))
    if resting is None or not len(resting.chosen):
        return result
    own = found.select(resting.chosen)
    spans = np.concatenate([np.full((len(always.points), 2), (-np.inf, np.inf)), resting.spans])
    result = result.beside(gaussians(own, resting.spacing * own.footprints))
    return result.with_life_spans(torch.from_numpy(spans).float())
