"""A scene of known truth for tests of converters: a tilted disc before a sky, with points on it.

Cameras have OpenCV axes and pixel centres at +0.5, as clips have.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from msdyn.geometry import invert_transforms, look_at

NORMAL = np.array([0.2, -0.5, -1.0]) / np.linalg.norm([0.2, -0.5, -1.0])
CENTRE = np.array([0.4, -0.3, 5.0])
RADIUS = 2.2


@dataclass(frozen=True)
class DiscScene:
    """Intrinsics are fx, fy, cx, cy, px; tracks [T, N, 3] are points that move on the disc."""

    width: int
    height: int
    intrinsics: np.ndarray
    world_from_cam: np.ndarray
    tracks: np.ndarray

    @property
    def cam_from_world(self):
        return invert_transforms(self.world_from_cam)

    def __len__(self):
        return len(self.world_from_cam)

    def depth(self, frame, finer=1, sky=np.nan):
        """Z-depth; `finer` times as many rows and columns."""
        directions, origin = self.rays(frame, finer)
        distance = (NORMAL @ (CENTRE - origin)) / (directions @ NORMAL)
        points = origin + distance[..., None] * directions
        hit = (distance > 0) & (np.linalg.norm(points - CENTRE, axis=-1) < RADIUS)
        assert hit.any() and not hit.all()
        return np.where(hit, distance, sky)

    def rays(self, frame, finer=1):
        """World directions of unit z-depth, and the camera's centre."""
        fx, fy, cx, cy = self.intrinsics
        y, x = (np.mgrid[0 : self.height * finer, 0 : self.width * finer] + 0.5) / finer
        directions = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1)
        pose = self.world_from_cam[frame]
        return directions @ pose[:3, :3].T, pose[:3, 3]

    def image(self, frame):
        """An image of its own per frame, flat enough for lossy formats."""
        depth = np.nan_to_num(self.depth(frame))
        grey = np.clip(depth * 30, 0, 255)
        return np.stack([grey, 255 - grey, np.full_like(grey, 20 + 40 * frame)], -1).astype(
            np.uint8
        )

    def pixels(self, frame):
        """Pixels and z-depth of the tracks."""
        fx, fy, cx, cy = self.intrinsics
        pose = self.cam_from_world[frame]
        x, y, z = (self.tracks[frame] @ pose[:3, :3].T + pose[:3, 3]).T
        return np.stack([fx * x / z + cx, fy * y / z + cy], -1), z

    def inside(self, frame):
        xy, z = self.pixels(frame)
        return (z > 0) & (xy >= 0).all(-1) & (xy < [self.width, self.height]).all(-1)


def make_disc(frames=3, width=32, height=24, intrinsics=(36.0, 38.0, 17.0, 11.0), seed=0):
    """Return the scene seen by cameras that move and turn, also about their axis."""
    rng = np.random.default_rng(seed)
    poses = []
    for i in range(frames):
        down = Rotation.from_euler("z", 0.2 + 0.1 * i).apply([0, 1, 0])
        pose = look_at(np.array([0.3 * i, 0.1 - 0.1 * i, 0.2 * i]), CENTRE + [0.5, 0.2, 0], down)
        poses.append(pose)
    in_plane = np.linalg.svd(NORMAL[None])[2][1:]
    start = CENTRE + rng.uniform(-2, 2, (40, 2)) @ in_plane
    velocity = np.where(np.arange(40)[:, None] < 20, 0, rng.normal(size=(40, 2)) * 0.1) @ in_plane
    tracks = start + np.arange(frames)[:, None, None] * velocity
    return DiscScene(
        width, height, np.array(intrinsics), invert_transforms(np.stack(poses)), tracks
    )


def check_cameras(clip, scene, frames=None, scale=1.0, atol=1e-5):
    """Check intrinsics, and poses relative to the first frame: the world may be any."""
    frames = range(len(scene)) if frames is None else frames
    assert len(clip) == len(frames) and (np.diff(clip.times) > 0).all()
    size = [scene.width, scene.height] * 2
    np.testing.assert_allclose(clip.intrinsics, [scene.intrinsics / size] * len(clip), atol=1e-6)
    expected = invert_transforms(scene.world_from_cam[frames[0]]) @ scene.world_from_cam[frames]
    expected[:, :3, 3] *= scale
    found = invert_transforms(clip.world_from_cam[0]) @ clip.world_from_cam
    np.testing.assert_allclose(found, expected, atol=atol * max(1, scale))


def check_depth(clip, scene, frames=None, scale=1.0, rtol=1e-3):
    """Check that depth is the scene's and 0 in the sky, and that all frames show one plane."""
    frames = range(len(scene)) if frames is None else frames
    first = scene.world_from_cam[frames[0]]
    normal = first[:3, :3].T @ NORMAL  # the plane in the first camera
    offset = NORMAL @ (CENTRE - first[:3, 3]) * scale
    for index, frame in enumerate(frames):
        loaded, true = clip.frame(index), scene.depth(frame)
        assert loaded.depth.dtype == np.float32 and loaded.image.dtype == np.uint8
        known = loaded.depth > 0
        assert (known == ~np.isnan(true)).mean() > 0.97  # the border may be between two pixels
        both = known & ~np.isnan(true)
        np.testing.assert_allclose(loaded.depth[both], scale * true[both], rtol=rtol)
        assert (loaded.depth[~known] == 0).all()
        points = unprojected(clip, index, loaded.depth)[both]
        in_first = invert_transforms(clip.world_from_cam[0])
        points = points @ in_first[:3, :3].T + in_first[:3, 3]
        np.testing.assert_allclose(points @ normal, offset, rtol=2 * rtol)


def unprojected(clip, index, depth):
    """World points of pixels, by the definition of the fields of a clip."""
    fx, fy, cx, cy = clip.intrinsics[index]
    height, width = depth.shape
    y, x = (np.mgrid[0:height, 0:width] + 0.5) / np.array([height, width])[:, None, None]
    points = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], -1) * depth[..., None]
    pose = clip.world_from_cam[index]
    return points @ pose[:3, :3].T + pose[:3, 3]


def check_images(clip, scene, frames=None, atol=0):
    """Check that each frame has its own image; `atol` is the mean error of lossy formats."""
    for index, frame in enumerate(range(len(scene)) if frames is None else frames):
        image = clip.frame(index).image
        assert image.shape == (scene.height, scene.width, 3)
        error = np.abs(image.astype(float) - scene.image(frame)).mean((0, 1))
        assert (error <= atol).all(), error


def check_tracks(clip, scene, chosen, atol=1e-4):
    """Check that tracks are the chosen ones of the scene, in the clip's world, in clip's pixels.

    Args:
        chosen: indices of the scene's tracks, in the order of the clip's.
    """
    points, visible = clip.tracks.points, clip.tracks.visible
    assert points.shape == (len(scene), len(chosen), 3) and points.dtype == np.float32
    first = invert_transforms(clip.world_from_cam[0])
    true_first = scene.cam_from_world[0]
    for frame in range(len(scene)):
        known = np.isfinite(points[frame]).all(-1)
        assert (visible[frame] <= known).all() and visible[frame].any()
        found = points[frame, known] @ first[:3, :3].T + first[:3, 3]
        true = scene.tracks[frame, chosen][known] @ true_first[:3, :3].T + true_first[:3, 3]
        np.testing.assert_allclose(found, true, atol=atol)
        seen = points[frame, visible[frame]]
        pose = invert_transforms(clip.world_from_cam[frame])
        x, y, z = (seen @ pose[:3, :3].T + pose[:3, 3]).T
        fx, fy, cx, cy = clip.intrinsics[frame]
        xy = np.stack([fx * x / z + cx, fy * y / z + cy], -1) * [scene.width, scene.height]
        true_xy = scene.pixels(frame)[0][chosen][visible[frame]]
        np.testing.assert_allclose(xy, true_xy, atol=1e-2)
        assert (true_xy >= 0).all() and (true_xy <= [scene.width, scene.height]).all()
