"""TAPVid-3D's clips, one npz each: images and point tracks.

    images_jpeg_bytes  [T] bytes of a JPEG file each
    tracks_XYZ         [T, N, 3] positions in camera coordinates in each frame, OpenCV axes, metres
    visibility         [T, N] bool
    queries_xyt        [N, 3] pixel and frame of each query
    fx_fy_cx_cy        [4] px, shared by all frames; pixel centres at +0.5
    extrinsics_w2c     [T, 4, 4] cam_from_world; not in files of static cameras, nor in the first
                       releases of the benchmark

`numpy.savez` makes an array of fixed-length bytes of a list of JPEG files, which is read without
pickle. (Bytes lose zeros at their end, which a JPEG file does not have.) Images may also be stored
decoded, [T, H, W, 3] uint8, under the same name.

Reference: Koppula et al., "TAPVid-3D", 2024; tapnet/tapvid3d in github.com/google-deepmind/tapnet.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped, UInt8

from msdyn.errors import InputError
from msdyn.geometry import Cameras
from msdyn.io.posed_images import checked_cameras, pinhole_matrix
from msdyn.reading import load_npz, npz_keys, read_rgb
from msdyn.scene import Tracks

__all__ = ["Tapvid3dClip", "read_tapvid3d", "read_tapvid3d_clip"]

_KEYS = ("tracks_XYZ", "visibility", "queries_xyt", "fx_fy_cx_cy")
_IMAGES, _POSES = "images_jpeg_bytes", "extrinsics_w2c"


@dataclass(frozen=True)
class Tapvid3dClip:
    """A clip with its true tracks.

    Attributes:
        name: of the file, without suffix.
        images: JPEG files, or RGB.
        cameras: one per frame; None where the file has no poses.
        static: the cameras if the camera does not move: at the origin of the world.
        xyz: true positions in the camera of each frame.
        visible: true visibility.
        query_frame: frame of each query.
        query_xy: px.
    """

    name: str
    images: Shaped[np.ndarray, "frames ..."]
    cameras: Cameras | None
    static: Cameras
    xyz: Float64[np.ndarray, "frames tracks 3"]
    visible: Bool[np.ndarray, "frames tracks"]
    query_frame: Int[np.ndarray, " tracks"]
    query_xy: Float64[np.ndarray, "tracks 2"]

    def __len__(self) -> int:
        return len(self.xyz)

    def image(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """Return an RGB image.

        Raises:
            InputError: it cannot be decoded, or is of another size than the first.
        """
        image = _decoded(self.images[frame], f"{self.name}: {_IMAGES}: frame {frame}")
        size = (self.static.height, self.static.width)
        if image.shape[:2] != size:
            raise InputError(
                f"{self.name}: {_IMAGES}: frame {frame}: expected {size[1]}x{size[0]}, "
                f"got {image.shape[1]}x{image.shape[0]}"
            )
        return image

    def first(self, count: int) -> Tapvid3dClip:
        """Return the first frames, with the tracks that are queried in them."""
        count = min(count, len(self))
        kept = self.query_frame < count
        return replace(
            self,
            images=self.images[:count],
            cameras=None if self.cameras is None else self.cameras[:count],
            static=self.static[:count],
            xyz=self.xyz[:count, kept],
            visible=self.visible[:count, kept],
            query_frame=self.query_frame[kept],
            query_xy=self.query_xy[kept],
        )


def read_tapvid3d_clip(path: str | os.PathLike) -> Tapvid3dClip:
    """Read images, cameras and tracks of a TAPVid-3D npz.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of another shape, or the images are not readable.
    """
    path = Path(path)
    xyz, visible, queries, intrinsics = _read_tracks(path)
    try:
        images = load_npz(path, (_IMAGES,))[_IMAGES]
    except InputError as error:
        raise InputError(
            f"{error}; expected JPEG files as an array of bytes: numpy.array(list_of_bytes) is one"
        ) from error
    jpegs = images.ndim == 1 and images.dtype.kind == "S"
    if not jpegs and not (images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3):
        raise InputError(
            f"{path}: {_IMAGES}: expected bytes [frames] or uint8 [frames, height, width, 3], "
            f"got {images.dtype} {images.shape}"
        )
    if len(images) != len(xyz) or not len(xyz):
        raise InputError(
            f"{path}: {_IMAGES}: expected {len(xyz)} frames as in tracks_XYZ and at least one, "
            f"got {len(images)}"
        )
    height, width = _decoded(images[0], f"{path}: {_IMAGES}: frame 0").shape[:2]
    k = pinhole_matrix(*intrinsics.tolist())[None]
    eyes = np.tile(np.eye(4), (len(xyz), 1, 1))
    cameras = None
    if _POSES in npz_keys(path):
        poses = load_npz(path, (_POSES,))[_POSES].astype(np.float64)
        if poses.shape != (len(xyz), 4, 4):
            raise InputError(f"{path}: {_POSES}: expected {(len(xyz), 4, 4)}, got {poses.shape}")
        cameras = checked_cameras(path, k, poses, width, height)
    return Tapvid3dClip(
        path.stem,
        images,
        cameras,
        checked_cameras(path, k, eyes, width, height),
        xyz,
        visible,
        np.round(queries[:, 2]).astype(int),
        queries[:, :2].astype(np.float64),
    )


def _decoded(
    image: UInt8[np.ndarray, "height width 3"] | bytes, what: str
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an RGB image of a JPEG file in memory, or as it is."""
    return image if isinstance(image, np.ndarray) else read_rgb(bytes(image), what)


def read_tapvid3d(path: str | os.PathLike) -> Tracks:
    """Read the tracks of a TAPVid-3D npz, projected to the images.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of another shape.
    """
    xyz, visible, queries, intrinsics = _read_tracks(path)
    visible = visible & (xyz[..., 2] > 0) & np.isfinite(xyz).all(-1)
    safe = np.where(visible[..., None], xyz, 1.0)  # no division by zero where not visible
    xy = safe[..., :2] / safe[..., 2:] * intrinsics[:2] + intrinsics[2:]
    visible = visible.T
    return Tracks.from_dense(
        np.where(visible[..., None], xy.swapaxes(0, 1), 0),
        visible,
        visible.astype(np.float32),
        np.full(len(visible), -1),
        np.round(queries[:, 2]).astype(int),
    )


def _read_tracks(
    path: str | os.PathLike,
) -> tuple[
    Float64[np.ndarray, "frames tracks 3"],
    Bool[np.ndarray, "frames tracks"],
    Float64[np.ndarray, "tracks 3"],
    Float64[np.ndarray, " 4"],
]:
    """Return positions, visibility, queries and intrinsics of an npz.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: an array is missing or of another shape, or a query is in no frame.
    """
    arrays = load_npz(path, _KEYS)
    xyz = arrays["tracks_XYZ"].astype(np.float64)
    visible = arrays["visibility"].astype(bool)
    queries = arrays["queries_xyt"].astype(np.float64)
    intrinsics = arrays["fx_fy_cx_cy"].astype(np.float64)
    if xyz.ndim != 3 or xyz.shape[2] != 3 or visible.shape != xyz.shape[:2]:
        raise InputError(
            f"{path}: expected tracks_XYZ [frames, tracks, 3] and visibility [frames, tracks], "
            f"got {xyz.shape} and {visible.shape}"
        )
    if intrinsics.shape != (4,) or queries.shape != (xyz.shape[1], 3):
        raise InputError(
            f"{path}: expected fx_fy_cx_cy [4] and queries_xyt [{xyz.shape[1]}, 3], "
            f"got {intrinsics.shape} and {queries.shape}"
        )
    frame = np.round(queries[:, 2]).astype(int)
    if len(frame) and (frame.min() < 0 or frame.max() >= len(xyz)):
        raise InputError(
            f"{path}: queries_xyt: expected frames 0 to {len(xyz) - 1}, "
            f"got {frame.min()} to {frame.max()}"
        )
    return xyz, visible, queries, intrinsics
