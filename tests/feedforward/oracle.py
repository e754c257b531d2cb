"""A network that knows the truth of a synthetic scene."""

from dataclasses import replace

import numpy as np
import torch

from msdyn.feedforward import Features, ModelConfig, Movies, PixelMotion, StaticPixels
from msdyn.feedforward.splats import ATTRIBUTES, points_from_depth
from msdyn.synthetic.raycast import Caster, pixel_centres, rays_through

SCALE = 3.0

CONFIG = replace(
    ModelConfig.small(),
    width=16,
    encoder_blocks=1,
    encoder_heads=1,
    position_grid=2,
    pairs=1,
    heads=1,
    head_layers=(0, 0, 0, 0),
    head_channels=(4, 4, 4, 4),
    head_features=4,
    moving=0.003,
)


class Oracle(Movies):
    """Answers with the true depth, colours and motion.

    Attributes:
        windows: the frames of the clips that it will be asked about, in order.
        depth_factors: by which the depth, and the motion, of each window is wrong.
    """

    def __init__(self, truth, windows, depth_factors=None):
        super().__init__(CONFIG)
        self.truth, self.caster = truth, Caster(truth.spec)
        self.windows = list(windows)
        self.depth_factors = depth_factors or [1.0] * len(self.windows)

    def encode(self, clip):
        self.clip, self.asked = clip, self.windows.pop(0)
        self.factor = self.depth_factors.pop(0) / SCALE
        height, width = clip.size
        self.cameras = self.truth.spec.cameras[self.asked].resized(width, height)
        self.hits, self.depths = [], []
        for frame, camera in zip(self.asked, self.cameras, strict=True):
            rays = rays_through(camera, pixel_centres(camera))
            hits, _ = self.caster.mesh(frame).cast(camera.centres[0], rays)
            self.hits.append(hits)
            depth = self.caster.depth(frame, camera, rays, hits.face)
            self.depths.append(depth.reshape(height, width))
        return Features(clip, {}, (0, 0))

    def static(self, features):
        clip = features.clip
        depth = torch.from_numpy(np.stack(self.depths)).float()[None] * self.factor
        raw = torch.zeros(*depth.shape, ATTRIBUTES)
        colours = clip.images.movedim(2, -1).clamp(0.01, 0.99)
        raw[..., :3] = torch.atanh(2 * colours - 1)
        raw[..., 3:6] = -0.5
        raw[..., 6] = 1  # no rotation in the canonical world
        raw[..., 10] = 3
        points = points_from_depth(depth, clip.world_from_cam, clip.intrinsics)
        return StaticPixels(depth, torch.ones_like(depth), points, raw)

    def move(self, features, static, query_times):
        times = features.clip.times[0]
        target = self.asked[int((times - query_times[0]).abs().argmin())]
        rotation = self.cameras.world_from_cam[0, :3, :3]
        moved = []
        for frame, hits in zip(self.asked, self.hits, strict=True):
            change = self.caster.positions(target, hits) - self.caster.positions(frame, hits)
            moved.append((change @ rotation).reshape(*static.depth.shape[2:], 3))
        displacement = torch.from_numpy(np.stack(moved)).float()[None] * self.factor
        return PixelMotion(displacement, torch.ones_like(static.depth), None)
