"""Exporting a fitted scene: the work of `msdyn-export`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from jaxtyping import Float, Real

from msdyn.devices import choose_device
from msdyn.errors import InputError
from msdyn.export.cameras import export_cameras
from msdyn.export.config import FORMATS, ExportConfig, Format
from msdyn.export.flow import export_flow
from msdyn.export.fourdgs import export_4dgs
from msdyn.export.gaussians import export_ply
from msdyn.export.glb import export_glb
from msdyn.export.objects import export_objects, resampled_times
from msdyn.export.player import export_player
from msdyn.export.points import export_points
from msdyn.export.recording import export_rrd
from msdyn.export.simulation import SimulationOptions, export_simulation
from msdyn.export.spz import export_compressed_ply, export_spz
from msdyn.export.tracks import export_tracks
from msdyn.export.usd import export_usd
from msdyn.progress import stage
from msdyn.render import grid_points, point_tracks, straight_pixels
from msdyn.scene import FrameLenses, Scene, original_lenses
from msdyn.sequence import (
    GaussianSequence,
    PartSelection,
    TimeSelection,
    load_sequence,
)
from msdyn.writing import refuse_links, writing_to

__all__ = ["FORMATS", "ExportConfig", "Exported", "export_as", "export_scene", "export_sequence"]

_FILES = {
    "glb": "sequence.glb",
    "usdc": "sequence.usdc",
    "4dgs": "sequence.4dgs",
    "html": "sequence.html",
    "rrd": "sequence.rrd",
    "tracks": "tracks.npz",
}
"""Default names of the formats that are one file; the others are folders."""
_FILES_OF_A_TIME = {"spz": "sequence.spz", "compressed-ply": "sequence.compressed.ply"}
"""Default names of the formats that are one file where a single time is chosen, else a folder."""
_OTHER_SUFFIXES = {"usdc": ".usda"}
"""What the name of a single file may end with, too."""


@dataclass(frozen=True)
class Exported:
    """The result of an export: the file or folder, its files, and their total size in bytes."""

    path: Path
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    def __str__(self) -> str:
        size = self.size
        for unit in ("bytes", "kB", "MB", "GB"):
            if size < 1000 or unit == "GB":
                break
            size /= 1000
        count = len(self.files)
        files = "1 file" if count == 1 else f"{count} files"
        return f"{self.path} ({files}, {size:.{0 if unit == 'bytes' else 1}f} {unit})"


def export_scene(config: ExportConfig) -> Exported:
    """Export a fitted scene directory.

    Raises:
        FileNotFoundError: there is no fit.
        InputError: contradictory options, or objects or levels that the sequence does not have.
    """
    with stage("reading the sequence"):
        sequence = load_sequence(config.scene, choose_device(config.device), source=config.source)
    out = config.out
    if out is None:
        folder = config.scene if config.scene.is_dir() else config.scene.parent
        out = folder / "export" / (_file_name(config) or config.format)
        refuse_links(folder, out)
    if config.format == "lerobot":
        return _export_episode(sequence, replace(config, out=out))
    with stage(f"export {config.format}"):
        return export_sequence(sequence, replace(config, out=out))


def _export_episode(sequence: GaussianSequence, config: ExportConfig) -> Exported:
    """Write the episode that a scene directory was made of."""
    from msdyn.export.lerobot import export_episode

    assert config.out is not None
    if not (config.scene / "scene.json").is_file():
        raise InputError(f"{config.scene}: lerobot: expected the scene directory of an episode")
    with stage("export lerobot"), writing_to(config.out):
        files = export_episode(
            sequence,
            Scene(config.scene),
            config.out,
            views=config.views,
            degrees=config.degrees,
            tracks=config.track_count,
            objects=config.object_count,
            append=config.append,
        )
    return Exported(config.out, tuple(files))


def export_sequence(sequence: GaussianSequence, config: ExportConfig) -> Exported:
    """Export a sequence to `config.out`; of `config.scene` the lenses are read, if asked for.

    Raises:
        InputError: as for `export_scene`, and where `config.out` is None.
    """
    if config.out is None:
        raise InputError("export: expected a file or folder to write to, got none")
    if config.format == "lerobot":
        raise InputError("lerobot: needs the scene directory of an episode, not a sequence alone; "
                         "use msdyn-export")  # fmt: skip
    if config.format == "report":
        raise InputError("report: needs the folder of a fit, not a sequence alone; "
                         "use msdyn-export, or msdyn.view.write_report")  # fmt: skip
    out = config.out
    suffix = Path(_file_name(config)).suffix
    allowed = [suffix, _OTHER_SUFFIXES.get(config.format, suffix)]
    if out.suffix.lower() not in allowed and (suffix or out.is_file()):
        expected = f"a {' or '.join(dict.fromkeys(allowed))} file" if suffix else "a folder"
        raise InputError(f"--out: expected {expected} for {config.format}, got {out}")
    # A single file is renamed when it is complete, and needs no lock.
    with contextlib.nullcontext() if suffix else writing_to(out):
        return Exported(out, tuple(_export(sequence, out, config)))


def _file_name(config: ExportConfig) -> str:
    """Return the default name of the file that is written, or nothing where it is a folder."""
    when = config.when
    if any(value is not None for value in (when.time, when.frame, when.seconds)):
        return (_FILES | _FILES_OF_A_TIME).get(config.format, "")
    return _FILES.get(config.format, "")


def _export(sequence: GaussianSequence, out: Path, config: ExportConfig) -> list[Path]:
    """Write a format to a file or folder and return the files."""
    times = _times(sequence, config)
    config.what.num_levels(sequence)  # refuse levels and objects that the sequence does not have
    config.what.labels(sequence)
    return _WRITERS[config.format](sequence, out, times, config)


Times: TypeAlias = Real[np.ndarray, " times"]


def _tracks(
    sequence: GaussianSequence, out: Path, times: Times, config: ExportConfig
) -> list[Path]:
    what = config.what
    labels, frames = what.labels(sequence), sequence.timeline.frame_positions(times)
    xy, frame = _queries(sequence, config)
    lenses = _lenses(sequence, config)
    if lenses is not None and config.points is not None:
        xy = straight_pixels(sequence, lenses[frame], xy)
        if not np.isfinite(xy).all():
            raise InputError("--points: expected pixels whose rays the lens has, got others")
    tracks = point_tracks(sequence, xy, frame, frames=frames, levels=what.num_levels(sequence))
    if labels is not None or what.background == "off":
        allowed = [*(labels or sequence.objects)]
        allowed += [0] if what.background == "on" else []
        tracks = tracks.select(np.isin(tracks.object, allowed))
    return export_tracks(sequence, out, tracks, lenses)


def _lenses(sequence: GaussianSequence, config: ExportConfig) -> FrameLenses | None:
    """Return the lenses of the images as they were taken, for --lens original."""
    if config.lens == "pinhole":
        return None
    return original_lenses(config.scene, len(sequence.timeline))


def _objects(
    sequence: GaussianSequence, out: Path, times: Times, config: ExportConfig
) -> list[Path]:
    what = config.what
    return export_objects(
        sequence, out, times, levels=what.num_levels(sequence), labels=what.labels(sequence)
    )


def _simulation(
    sequence: GaussianSequence, out: Path, times: Times, config: ExportConfig
) -> list[Path]:
    options = SimulationOptions(
        units_per_metre=config.units_per_metre,
        up=config.up,
        floor=config.floor,
        joints=config.joints,
        tolerance_px=config.body_tolerance_px,
        triangles=config.triangles,
    )
    format = "mjcf" if config.format == "mjcf" else "urdf"
    return export_simulation(sequence, out, times, config.what, options, format=format)


_WRITERS: dict[str, Callable[[GaussianSequence, Path, Times, ExportConfig], list[Path]]] = {
    "ply": lambda sequence, out, times, config: export_ply(sequence, out, times, config.what),
    "glb": lambda sequence, out, times, config: export_glb(
        sequence,
        out,
        times,
        config.what,
        tolerance_px=config.tolerance_px,
        baked=config.baked,
        lives=config.lives,
    ),
    "usdc": lambda sequence, out, times, config: export_usd(
        sequence, out, times, config.what, tolerance_px=config.tolerance_px, baked=config.baked
    ),
    "tracks": _tracks,
    "objects": _objects,
    "flow": lambda sequence, out, times, config: export_flow(
        sequence,
        out,
        times,
        config.what,
        moving_px=config.moving_px,
        lenses=_lenses(sequence, config),
    ),
    "cameras": lambda sequence, out, times, config: export_cameras(
        sequence, out, times, _lenses(sequence, config)
    ),
    "points": lambda sequence, out, times, config: export_points(
        sequence, out, times, config.what, clean=config.clean, voxel=config.voxel
    ),
    "html": lambda sequence, out, times, config: export_player(
        sequence, out, times, config.what, title=out.stem, tolerance_px=config.tolerance_px
    ),
    "rrd": lambda sequence, out, times, config: export_rrd(
        sequence, out, times, config.what, tolerance_px=config.tolerance_px
    ),
    "4dgs": lambda sequence, out, times, config: export_4dgs(
        sequence, out, times, config.what, tolerance_px=config.tolerance_px
    ),
    "spz": lambda sequence, out, times, config: export_spz(sequence, out, times, config.what),
    "compressed-ply": lambda sequence, out, times, config: export_compressed_ply(
        sequence, out, times, config.what
    ),
    "mjcf": _simulation,
    "urdf": _simulation,
}
"""What writes each format of a sequence alone."""


def _times(sequence: GaussianSequence, config: ExportConfig) -> Times:
    moments = config.when.normalised_times(sequence.timeline)
    if config.fps is not None:
        return resampled_times(sequence, config.fps)
    return sequence.timeline.times if moments is None else moments


def _queries(
    sequence: GaussianSequence, config: ExportConfig
) -> tuple[Float[np.ndarray, "queries 2"], int]:
    """Return the query pixels and their frame."""
    frame = sequence.canonical_frame if config.query_frame is None else config.query_frame
    sequence.timeline.time_of_frame(frame)  # refuses frames outside the clip
    if config.points is None:
        return grid_points(sequence, config.grid), frame
    with contextlib.suppress(ValueError):
        pixels = [[float(v) for v in pair.split(",")] for pair in config.points.split(":")]
        if all(len(pixel) == 2 for pixel in pixels):
            return np.array(pixels), frame
    raise InputError(f"--points: expected x,y or x,y:x,y in pixels, got {config.points!r}")


def export_as(sequence: GaussianSequence, format: str, out: str | Path, **options: Any) -> Exported:
    """Export a sequence from Python, as `sequence.export("objects", "out/", fps=100)`.

    Args:
        sequence: the fit.
        format: one of `FORMATS`.
        out: file or folder to write.
        options: fields of `ExportConfig`, `TimeSelection` and `PartSelection` by their own names.

    Raises:
        InputError: another format, or options as for `export_sequence`.
    """
    when = {k: options.pop(k) for k in ("time", "frame", "seconds", "times") if k in options}
    what = {k: options.pop(k) for k in ("levels", "objects", "background") if k in options}
    if format not in FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    config = ExportConfig(
        format=cast(Format, format),
        out=Path(out),
        when=TimeSelection(**when),
        what=PartSelection(**what),
        **options,
    )
    return export_sequence(sequence, config)
