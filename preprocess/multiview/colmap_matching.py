"""Features of frames and their matches, in a database of COLMAP.

Files are written to a folder of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from msdyn.geometry import nearest_pixels
from msdyn.io import load_pycolmap
from msdyn.preprocess.contracts import Masks
from msdyn.preprocess.multiview.absolute_pose import longest_in_cells
from msdyn.preprocess.multiview.colmap import CAMERA_ID, colmap_camera, quiet
from msdyn.preprocess.multiview.intrinsics import KnownIntrinsics
from msdyn.scene import STATIC, Scene, Tracks, frame_path, write_image
from msdyn.writing import require_space

__all__ = [
    "extract_features",
    "features_on",
    "match_features",
    "match_neighbours",
    "match_tracks",
    "planar_share",
]

# Chosen on real clips with known cameras; more features or larger images are not better there.
MAX_IMAGE_SIZE = 640
MAX_FEATURES = 2048
PEAK_THRESHOLD = 0.002  # a third of COLMAP's default: dark, smooth clips have weak features
OVERLAP = 8  # frames matched to the next 8, and at gaps 16, 32, ... up to 2^8
CHUNK = 16  # frames extracted between two steps of the progress bar
# Pairs of frames are verified with this focal length (in units of the longer side) or, where it
# does not fit, without any. Of 0.7, 1.2 and none, with 2 seeds each, it gave the best path on a
# known clip (0.117 % off instead of 0.124 to 0.131 %), by a margin not far above chance.
VERIFICATION_FOCAL = 1.2
MASK_MARGIN_PX = 8  # descriptors depend on the surroundings of a feature

# Of a database and its copy, with the most features and matches that these numbers allow.
BYTES_PER_FRAME = 2 * (MAX_FEATURES * (6 * 4 + 128) + 2 * 12 * MAX_FEATURES * 8)

TRACK_GAPS = (1, 2, 4, 8, 16, 32)


def match_features(
    scene: Scene,
    masks: Masks | None,
    folder: Path,
    *,
    seed: int,
    frames: Sequence[int] | None = None,
    known: KnownIntrinsics | None = None,
    step: Callable[[int], object] = lambda frames: None,
) -> Path:
    """Find SIFT features in frames and match neighbouring ones; return the database.

    Args:
        scene: the clip.
        masks: features on or next to nonzero pixels are left out.
        folder: for the files.
        seed: of the geometric verification.
        frames: F frames of the clip, increasing; all by default.
        known: intrinsics, with which pairs of frames are verified.
        step: called with the number of frames done since the last call, 2 F in total.
    """
    import cv2

    frames = range(len(scene)) if frames is None else frames
    usable = None
    if masks is not None:
        around = np.ones((2 * MASK_MARGIN_PX + 1,) * 2, np.uint8)
        moving = ((masks[frame] != STATIC).astype(np.uint8) for frame in frames)
        usable = (cv2.dilate(mask, around) == 0 for mask in moving)
    database = extract_features(scene, usable, folder, frames=frames, known=known, step=step)
    match_neighbours(database, seed=seed)
    step(len(frames))
    return database


def extract_features(
    scene: Scene,
    usable: Iterable[Bool[np.ndarray, "height width"]] | None,
    folder: Path,
    *,
    frames: Sequence[int] | None = None,
    known: KnownIntrinsics | None = None,
    step: Callable[[int], object] = lambda frames: None,
) -> Path:
    """Find SIFT features in frames, on pixels where `usable` (a mask [H, W] per frame) is true.

    Returns:
        A new database.
    """
    pycolmap = load_pycolmap()
    frames = range(len(scene)) if frames is None else frames
    names = [_name(scene, frame) for frame in frames]
    database = _new_database(scene, folder / "features.db", known)
    # Added here and in order: extraction numbers images in the order in which its threads finish,
    # and the random choices of later steps depend on the numbers.
    _add_images(scene, database, frames)
    reader = pycolmap.ImageReaderOptions()
    reader.existing_camera_id = CAMERA_ID
    if usable is not None:
        for name, mask in zip(names, usable, strict=True):
            write_image(folder / "masks" / f"{name}.png", mask * np.uint8(255))
        reader.mask_path = str(folder / "masks")
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size = MAX_IMAGE_SIZE
    extraction.sift.max_num_features = MAX_FEATURES
    extraction.sift.peak_threshold = PEAK_THRESHOLD
    with quiet():
        for start in range(0, len(names), CHUNK):
            chunk = names[start : start + CHUNK]
            images = scene.directory / "images"
            pycolmap.extract_features(
                database, images, chunk, reader_options=reader, extraction_options=extraction
            )
            step(len(chunk))
    return database


def match_neighbours(database: Path, *, seed: int) -> None:
    """Match the features of every frame with those of the frames near it.

    In one thread: with two, COLMAP 4.2.1 sometimes loses a third and more of the matches of one
    frame (in 4 of 150 runs on one clip, with one thread in none of 150), and takes 13 % less time.
    """
    pycolmap = load_pycolmap()
    pairing = pycolmap.SequentialPairingOptions()
    pairing.overlap = OVERLAP
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = 1
    with quiet():
        pycolmap.match_sequential(
            database,
            matching_options=matching,
            pairing_options=pairing,
            verification_options=_verification(seed),
        )


def features_on(scene: Scene, database: Path, masks: Masks, label: int, folder: Path) -> Path:
    """Return a new database of the features on an object of the masks, without matches."""
    pycolmap = load_pycolmap()
    path = _new_database(scene, folder / f"object{label}.db")
    height, width = scene.size
    with pycolmap.Database.open(database) as source:
        frames = sorted(int(Path(image.name).stem) for image in source.read_all_images())
    images = _add_images(scene, path, frames)
    with pycolmap.Database.open(database) as source, pycolmap.Database.open(path) as target:
        for image in source.read_all_images():
            frame = int(Path(image.name).stem)
            keypoints = source.read_keypoints(image.image_id)
            row, column, _ = nearest_pixels(keypoints[:, :2], height, width)
            on = masks[frame][row, column] == label
            descriptors = source.read_descriptors(image.image_id)
            descriptors.data = descriptors.data[on]
            target.write_keypoints(images[frame], keypoints[on])
            target.write_descriptors(images[frame], descriptors)
    return path


def match_tracks(
    scene: Scene,
    tracks: Tracks,
    folder: Path,
    *,
    seed: int,
    frames: Sequence[int] | None = None,
    known: KnownIntrinsics | None = None,
) -> Path:
    """Return a new database with static tracks as features and matches; see `match_features`.

    For clips in which optical flow can follow points where SIFT finds too few features.
    """
    pycolmap = load_pycolmap()
    path = _new_database(scene, folder / "tracks.db", known)
    frames = range(len(scene)) if frames is None else frames
    images = _add_images(scene, path, frames)
    kept = {frame: longest_in_cells(tracks, frame) for frame in frames}
    pairs = []
    with pycolmap.Database.open(path) as database:
        for frame, rows in kept.items():
            database.write_keypoints(images[frame], tracks.look_up(rows, frame)[0])
        for gap in TRACK_GAPS:
            for first, second in zip(frames[:-gap], frames[gap:], strict=True):
                _, a, b = np.intersect1d(kept[first], kept[second], return_indices=True)
                if len(a):
                    matches = np.stack([a, b], axis=1).astype(np.uint32)
                    database.write_matches(images[first], images[second], matches)
                    pairs.append(f"{_name(scene, first)} {_name(scene, second)}\n")
    (folder / "pairs.txt").write_text("".join(pairs), encoding="utf-8")
    with quiet():
        pycolmap.verify_matches(path, folder / "pairs.txt", _verification(seed))
    return path


def planar_share(database: Path) -> float:
    """Return the share of verified pairs of frames whose motion one homography explains.

    It is high for a camera that only rotates, and for a planar scene.
    """
    pycolmap = load_pycolmap()
    kinds = pycolmap.TwoViewGeometryConfiguration
    planar = (kinds.PLANAR, kinds.PANORAMIC, kinds.PLANAR_OR_PANORAMIC)
    verified = (*planar, kinds.CALIBRATED, kinds.UNCALIBRATED)
    with pycolmap.Database.open(database) as opened:
        geometries = opened.read_two_view_geometries()[1]
    kind = [kinds(g.config) for g in geometries]
    count = sum(k in verified for k in kind)
    return sum(k in planar for k in kind) / count if count else 0.0


def _new_database(scene: Scene, path: Path, known: KnownIntrinsics | None = None) -> Path:
    """Create a database with the camera of a scene; return its path."""
    # A full disk makes COLMAP abort the process.
    cure = "free some space, or set TMPDIR to a folder with more"
    require_space(path.parent, BYTES_PER_FRAME * len(scene), cure)
    with load_pycolmap().Database.open(path) as database:
        camera = colmap_camera(scene, known or VERIFICATION_FOCAL * max(scene.size))
        database.write_camera(camera, use_camera_id=True)
    return path


def _add_images(scene: Scene, database: Path, frames: Sequence[int]) -> dict[int, int]:
    """Add frames without features to a database; return the image id of each."""
    pycolmap = load_pycolmap()
    reader = pycolmap.ImageReaderOptions()
    reader.existing_camera_id = CAMERA_ID
    names = [_name(scene, frame) for frame in frames]
    images = scene.directory / "images"
    with quiet():
        pycolmap.import_images(database, images, pycolmap.CameraMode.AUTO, names, reader)
    with pycolmap.Database.open(database) as opened:
        return {int(Path(image.name).stem): image.image_id for image in opened.read_all_images()}


def _verification(seed: int) -> Any:
    """Return COLMAP's options of geometric verification."""
    options = load_pycolmap().TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    return options


def _name(scene: Scene, frame: int) -> str:
    """Return the name of the image of a frame."""
    return frame_path(scene.directory / "images", frame, ".png").name
