"""Which kind of recording a path is, by the names of files, so that --from need not be given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msdyn.errors import InputError
from msdyn.options import text_of

__all__ = ["AUTO", "KNOWN_BY", "kind_of", "with_kind"]

AUTO = "auto"
"""Of --from: the kind is found by the files."""
KNOWN_BY = {
    "lerobot": "meta/info.json",
    "nerfies": "dataset.json and camera/ without depth/",
    "dycheck": "dataset.json",
    "panoptic": "train_meta.json",
    "blender": "transforms_train.json",
    "recording": "cameras.json (without scene.json)",
    "vipe": "rgb/ and pose/",
    "record3d": "EXR_RGBD/ or a file .r3d",
    "mcap": "metadata.yaml or a file .mcap, .db3, .bag",
}
"""What each kind of recording is known by, as a message says it."""
_SUFFIXES = {".r3d": "record3d", ".mcap": "mcap", ".db3": "mcap", ".bag": "mcap"}
_FILES = {"lerobot": "meta/info.json", "panoptic": "train_meta.json",
          "blender": "transforms_train.json", "recording": "cameras.json",
          "record3d": "EXR_RGBD", "mcap": "metadata.yaml"}  # fmt: skip
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_COLMAP = ("sparse/0", "sparse", "colmap/sparse/0")
_COLMAP_FILES = ("cameras.bin", "cameras.txt")


def kind_of(path: Path) -> str | None:
    """Return the kind of a recording, one of `KNOWN_BY`, or None; a scene directory is none."""
    if path.is_file():
        return _SUFFIXES.get(path.suffix.lower())
    if not path.is_dir():
        return None
    if (path / "dataset.json").is_file():  # with a scene.json of its own
        apart = (path / "camera").is_dir() and not (path / "depth").is_dir()
        return "nerfies" if apart else "dycheck"
    if (path / "scene.json").is_file():
        return None
    if (path / "rgb").is_dir() and (path / "pose").is_dir():
        return "vipe"
    return next((kind for kind, name in _FILES.items() if (path / name).exists()), None)


def with_kind(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Return arguments with the kind of the recording, and a line that says which; "" as they were.

    The kind is found where it is `--from auto`, and where there is no `--from` but a path that is a
    recording and no folder of images. (Paths that follow an option are taken for its value.)

    Raises:
        InputError: the path is of no known kind, with `--from auto`, or images and cameras are
            given apart, as nerfstudio's and COLMAP's.
    """
    given = text_of("--from", arguments)
    if given not in ("", AUTO) or "--check" in arguments or "--help" in arguments:
        return list(arguments), ""
    before = ["", *arguments]
    paths = [
        Path(argument)
        for argument, previous in zip(arguments, before, strict=False)
        if argument and not argument.startswith("-") and not previous.startswith("--")
    ]
    for path in paths:
        kind = kind_of(path)
        if kind is not None and (given == AUTO or not _has_images(path)):
            line = f"{path}: read as --from {kind} ({KNOWN_BY[kind]})"
            return ["--from", kind, *_without_from(arguments)], line
    for path in paths:
        if path.is_dir() and not _has_images(path):
            _refuse_apart(path)
    if given == AUTO:
        looked = ", ".join(f"{files} ({kind})" for kind, files in KNOWN_BY.items())
        where = paths[0] if paths else "no path"
        raise InputError(
            f"{where}: no recording of a known layout; looked for {looked}; a video or a folder of "
            "images needs no --from"
        )
    return list(arguments), ""


def _has_images(path: Path) -> bool:
    """Return whether a path is a folder with images in it, a clip of its own."""
    return path.is_dir() and any(file.suffix.lower() in _IMAGES for file in path.iterdir())


def _without_from(arguments: Sequence[str]) -> list[str]:
    """Return arguments without --from and its value."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("--from="):
            skip = False
        elif argument == "--from":
            skip = True
        else:
            kept.append(argument)
    return kept


def _refuse_apart(path: Path) -> None:
    """Raise InputError where a folder has images and cameras that are given apart."""
    images = path / "images"
    if not images.is_dir():
        return
    cameras = path / "transforms.json"
    layout = "nerfstudio (transforms.json)"
    if not cameras.is_file():
        layout = "COLMAP"
        models = (path / name for name in _COLMAP)
        found = (m for m in models if any((m / name).is_file() for name in _COLMAP_FILES))
        cameras = next(found, None)
    if cameras is not None:
        raise InputError(
            f"{path}: a folder of {layout}, whose images and cameras are given apart: "
            f"msdyn-preprocess {images} --cameras files --cameras-path {cameras}"
        )
