"""Images, maps and points of a distorted lens as those of a pinhole camera, and back.

The pinhole camera has the centre and the optical axis of the lens: z-depth is that of the lens. Its
image has the size and the principal point of the lens' image, and the focal length with which it
shows as much as it can and no pixel of it is outside the lens' image, as OpenCV's
`getOptimalNewCameraMatrix` with alpha = 0: images without borders need no masks. It is at least
half the focal length of the lens (COLMAP's limit), and shows at most 120 degrees across.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Shaped

from msdyn.errors import InputError
from msdyn.geometry.cameras import Cameras
from msdyn.geometry.lenses import NEGLIGIBLE_PX, Lens

__all__ = ["Undistortion", "covering_camera", "seen_through"]

Pinhole = tuple[float, float, float, float]
_LEAST_FOCAL, _LARGEST_FOCAL = 0.5, 8.0
"""Of the focal length of the lens."""
_WIDEST_VIEW = np.radians(120.0)
_COVERED = np.tan(np.radians(75.0))
"""What a pinhole rendering shows of the view of a lens: 75 degrees to each side."""
_LARGEST_SIDE = 6000
_MARGIN = 0.05
"""px: what the border may bulge between the points at which it is compared."""


@dataclass(frozen=True)
class Undistortion:
    """A lens and the pinhole camera of its undistorted images, which have the same size.

    Attributes:
        lens: of the images as they were taken.
        pinhole: fx fy cx cy, px of an image of the size of the lens' images.
    """

    lens: Lens
    pinhole: Pinhole

    @classmethod
    def of(cls, lens: Lens) -> Undistortion:
        """Return the undistortion of a lens; see the module for the choice of the camera.

        Raises:
            InputError: the distortion cannot be inverted.
        """
        if lens.displacement <= NEGLIGIBLE_PX:  # raises where it cannot be inverted
            return cls(lens, lens.pinhole)
        fx, fy, _, _ = lens.pinhole
        span = np.tan(_WIDEST_VIEW / 2)
        least = max(_LEAST_FOCAL, lens.width / (2 * span * fx), lens.height / (2 * span * fy))
        low, high = least, _LARGEST_FOCAL
        if not _is_covered(lens, _scaled(lens.pinhole, high)):
            raise InputError(
                f"lens: {lens.model}: its distortion cannot be inverted about the principal "
                f"point; check the parameters {lens.params}"
            )
        if _is_covered(lens, _scaled(lens.pinhole, low)):
            high = low
        while high - low > 1e-5:
            middle = (low + high) / 2
            covered = _is_covered(lens, _scaled(lens.pinhole, middle))
            low, high = (low, middle) if covered else (middle, high)
        return cls(lens, _scaled(lens.pinhole, high))

    @property
    def is_identity(self) -> bool:
        """Whether undistorted images are the images as they are."""
        return self.lens.displacement <= NEGLIGIBLE_PX and self.pinhole == self.lens.pinhole

    @property
    def is_covered(self) -> bool:
        """Whether no pixel of the undistorted image is outside the lens' image."""
        return self.is_identity or _is_covered(self.lens, self.pinhole)

    def intrinsics(self, width: int, height: int) -> Float64[np.ndarray, "3 3"]:
        """Return the intrinsics of undistorted images of a size."""
        fx, fy, cx, cy = self.pinhole
        k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        return np.diag([width / self.lens.width, height / self.lens.height, 1.0]) @ k

    def resized(self, width: int, height: int) -> Undistortion:
        """Return the same for images resampled to another size."""
        k = self.intrinsics(width, height)
        pinhole = float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])
        return Undistortion(self.lens.resized(width, height), pinhole)

    def straight(
        self, xy: Float[np.ndarray, "*batch 2"]
    ) -> tuple[Float64[np.ndarray, "*batch 2"], Bool[np.ndarray, "*batch"]]:
        """Return where pixels of the lens are in the undistorted image, and which are valid.

        A valid pixel may be outside of the undistorted image; the others are NaN.
        """
        points, valid = self.lens.normalised(xy)
        fx, fy, cx, cy = self.pinhole
        return points * [fx, fy] + [cx, cy], valid

    def distorted(self, xy: Float[np.ndarray, "*batch 2"]) -> Float64[np.ndarray, "*batch 2"]:
        """Return where pixels of the undistorted image are in that of the lens, NaN if nowhere."""
        fx, fy, cx, cy = self.pinhole
        return self.lens.pixels((np.asarray(xy, np.float64) - [cx, cy]) / [fx, fy])

    def image(
        self,
        image: Shaped[np.ndarray, "source_height source_width channels"],
        size: tuple[int, int] | None = None,
    ) -> Shaped[np.ndarray, "height width channels"]:
        """Return an image of the lens undistorted, and shrunk to a size (height, width).

        The image may be a resampled one; cubic interpolation.
        """
        import cv2

        height, width = image.shape[:2]
        if self.is_identity and size in (None, (height, width)):
            return image
        x, y = _sampling(self.resized(width, height), height, width)
        straight = cv2.remap(image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        if size is None or size == (height, width):
            return straight
        return cv2.resize(straight, size[::-1], interpolation=cv2.INTER_AREA)

    def nearest(
        self,
        values: Shaped[np.ndarray, "source_height source_width"],
        size: tuple[int, int],
        outside: float = 0,
    ) -> Shaped[np.ndarray, "height width"]:
        """Return a map of the lens undistorted to a size (height, width), by the nearest pixel.

        Args:
            values: labels or z-depth, in any size of the shape of the lens' images.
            size: height and width of the result.
            outside: the value of pixels outside the lens' image.
        """
        return _take_nearest(values, _sampling(self, *size), self.lens, outside)


def covering_camera(lens: Lens, cam_from_world: Float[np.ndarray, "4 4"]) -> Cameras:
    """Return one pinhole camera whose image contains that of a lens, for `seen_through`.

    Its focal length is that of the lens, less where the image would be larger than 6000 px; of
    wider lenses it shows 75 degrees to each side.
    """
    fx, fy, _, _ = lens.pinhole
    points, valid = lens.normalised(_border(lens.width, lens.height, 0.0))
    extent = np.abs(points[valid]).max(0) if valid.all() else np.full(2, _COVERED)
    extent = np.minimum(extent, _COVERED)
    # Two pixels more, so that interpolation at the border is within.
    half = np.ceil(extent * [fx, fy]) + 2
    factor = min(1.0, _LARGEST_SIDE / (2 * half.max()))
    half = np.ceil(half * factor)
    k = np.array([[fx * factor, 0, half[0]], [0, fy * factor, half[1]], [0, 0, 1]])
    return Cameras(k[None], np.asarray(cam_from_world)[None], int(2 * half[0]), int(2 * half[1]))


def seen_through(
    lens: Lens,
    camera: Cameras,
    image: Shaped[np.ndarray, "height width *channels"],
    *,
    nearest: bool = False,
) -> Shaped[np.ndarray, "lens_height lens_width *channels"]:
    """Return a pinhole image as the lens shows it; 0 where the image does not reach.

    Args:
        lens: of the result.
        camera: of the image, one, with the optical axis of the lens.
        image: any channels.
        nearest: take the nearest pixel, as of labels and depth, in place of linear interpolation.
    """
    import cv2

    k = camera.intrinsics[0]
    x, y = _lens_sampling(lens, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))
    rows, columns, inside = _nearest_of(x, y, image.shape[0], image.shape[1])
    if nearest:
        result = image[rows, columns]
    else:
        at_x, at_y = (np.where(inside, v, 0).astype(np.float32) for v in (x, y))
        result = cv2.remap(image, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    result = result.reshape(*inside.shape, *image.shape[2:])  # OpenCV drops a single channel
    result[~inside] = 0
    return result


def _scaled(pinhole: Pinhole, factor: float) -> Pinhole:
    """Return a pinhole camera with another focal length."""
    fx, fy, cx, cy = pinhole
    return fx * factor, fy * factor, cx, cy


def _is_covered(lens: Lens, pinhole: Pinhole) -> bool:
    """Return whether a pinhole image is within that of a lens, by the pixels of its border."""
    fx, fy, cx, cy = pinhole
    border = _border(lens.width, lens.height, 0.5)
    xy = lens.pixels((border - [cx, cy]) / [fx, fy])
    size = np.array([lens.width, lens.height])
    return bool(((xy >= _MARGIN) & (xy <= size - _MARGIN)).all())  # False for NaN


def _border(width: int, height: int, margin: float) -> Float64[np.ndarray, "points 2"]:
    """Return points on the border of an image, so many px within it."""
    x = np.linspace(margin, width - margin, 65)
    y = np.linspace(margin, height - margin, 65)
    sides = [(x, np.full(65, y[0])), (x, np.full(65, y[-1]))]
    sides += [(np.full(65, x[0]), y), (np.full(65, x[-1]), y)]
    return np.concatenate([np.stack(side, axis=1) for side in sides])


@lru_cache(maxsize=4)
def _sampling(
    undistortion: Undistortion, height: int, width: int
) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Return for each pixel of an undistorted image of a size where it is in the lens' image.

    Positions are in px of the lens' images, with the first pixel's centre at 0, as OpenCV's.
    """
    x = np.arange(width) + 0.5
    xs, ys = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    scale = [undistortion.lens.width / width, undistortion.lens.height / height]
    for row in range(height):
        xy = np.stack([x, np.full(width, row + 0.5)], axis=1) * scale
        xs[row], ys[row] = (undistortion.distorted(xy) - 0.5).T
    return xs, ys


@lru_cache(maxsize=2)
def _lens_sampling(
    lens: Lens, fx: float, fy: float, cx: float, cy: float
) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Return for each pixel of a lens where it is in a pinhole image, as OpenCV counts; or NaN."""
    xs, ys = (np.empty((lens.height, lens.width), np.float32) for _ in range(2))
    x = np.arange(lens.width) + 0.5
    rows = max(1, 200_000 // lens.width)
    for top in range(0, lens.height, rows):
        y = np.arange(top, min(top + rows, lens.height)) + 0.5
        points, _ = lens.normalised(np.stack(np.meshgrid(x, y), axis=-1))
        xs[top : top + rows] = points[..., 0] * fx + cx - 0.5
        ys[top : top + rows] = points[..., 1] * fy + cy - 0.5
    return xs, ys


def _take_nearest(
    values: Shaped[np.ndarray, "source_height source_width"],
    sampling: tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]],
    lens: Lens,
    outside: float,
) -> Shaped[np.ndarray, "height width"]:
    height, width = values.shape
    x = (sampling[0] + 0.5) * (width / lens.width) - 0.5
    y = (sampling[1] + 0.5) * (height / lens.height) - 0.5
    rows, columns, inside = _nearest_of(x, y, height, width)
    return np.where(inside, values[rows, columns], np.asarray(outside, values.dtype))


def _nearest_of(x: np.ndarray, y: np.ndarray, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Return rows, columns and whether they are within, of positions as OpenCV counts."""
    with np.errstate(invalid="ignore"):
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    columns = np.rint(np.where(inside, x, 0)).astype(int).clip(0, width - 1)
    rows = np.rint(np.where(inside, y, 0)).astype(int).clip(0, height - 1)
    return rows, columns, inside
