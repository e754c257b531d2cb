"""Rendering to images, arrays or videos of several outputs: the work of `msdyn-render`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from msdyn.cli.render_config import RenderConfig
from msdyn.cli.render_plan import Plan, make_plan
from msdyn.colours import colour_depth, colour_flow, colour_objects, object_palette
from msdyn.devices import choose_device
from msdyn.errors import InputError
from msdyn.estimates import announce
from msdyn.io import VideoWriter
from msdyn.memory import limited_memory
from msdyn.progress import stage, track, write_line
from msdyn.render import LensPainter, RenderedImage
from msdyn.render.estimate import estimate_rendering, smaller_renderings
from msdyn.render.pictures import Painter
from msdyn.scene import frame_path, original_lenses
from msdyn.sequence import GaussianSequence, load_sequence
from msdyn.writing import atomic_path, write_json, writing_to

__all__ = ["render_to_files"]

_DEPTH_STEPS = 65535


def render_to_files(config: RenderConfig) -> list[Path]:
    """Render a fitted scene and return the files or folders written.

    Raises:
        FileNotFoundError: there is no fit, or no camera file.
        InputError: contradictory options, a time outside the clip, or a malformed camera file.
        ResourceError: the disk is full, or more memory is needed than `config.max_memory`.
    """
    outputs = config.outputs
    with stage("reading the sequence"):
        sequence = load_sequence(config.scene, choose_device(config.device), source=config.source)
    what = config.what
    painter = Painter(
        sequence,
        what.num_levels(sequence),
        what.labels(sequence),
        what.background == "on",
        exposure=config.exposure == "clip",
    )
    if config.exposure == "clip" and sequence.exposure is None:
        write_line("warning: --exposure clip: the sequence has no exposure (msdyn-fit --exposure)")
    if config.lens == "original":
        lenses = original_lenses(config.scene, len(sequence.timeline))
        painter = LensPainter(**vars(painter), lenses=lenses)
    suffix = "" if config.out is None else config.out.suffix.lower()
    with stage("camera path"):
        plan = make_plan(
            sequence,
            config.when.normalised_times(sequence.timeline),
            camera=config.camera,
            path=config.path,
            frames=config.frames,
            fps=config.fps,
            objects=what.labels(sequence),
            video=suffix == ".mp4",
        )
    out = _output_path(config, plan, suffix)
    if plan.chosen is not None:
        write_line(f"path auto: {plan.chosen}")
    size = _size(painter, plan)
    announce(
        "rendering",
        estimate_rendering(sequence, len(plan), size, outputs, out.suffix.lower()),
        config.max_memory,
        smaller_renderings(sequence, len(plan), size, outputs),
    )
    canvas = _Canvas(painter, plan, config)
    targets = {name: _target(out, name, outputs, config) for name in outputs}
    with ExitStack() as stack:
        stack.enter_context(limited_memory(config.max_memory))
        if out.suffix == "":
            stack.enter_context(writing_to(out))
        writers = {name: _writer(path, stack, config, sequence) for name, path in targets.items()}
        rows = track(range(len(plan)), f"render {out.name}", unit="image")
        for row in rows:
            for name, picture in canvas.pictures(row, outputs, out.suffix.lower()):
                writers[name](row, picture)
        if out.suffix == "":
            write_json(out / "render.json", canvas.record(outputs))
            return [out]
    return list(targets.values())


def _size(painter: Painter, plan: Plan) -> tuple[int, int]:
    """Return width and height of the images."""
    if isinstance(painter, LensPainter) and painter.lenses is not None:
        lens = painter.lenses[0].lens
        return lens.width, lens.height
    return plan.cameras.width, plan.cameras.height


def _output_path(config: RenderConfig, plan: Plan, suffix: str) -> Path:
    """Return the file or folder to write, checked against the number of images."""
    single = len(plan) == 1 and config.path is None
    if config.out is None:
        float_depth = single and config.output == "depth" and config.depth_as == "float"
        image = "render.npy" if float_depth else "render.png"
        return Path(image if single else f"{plan.name}.mp4")
    if suffix and suffix not in ((".png", ".npy") if single else (".mp4",)):
        wanted = "a .png or .npy for one image" if single else "a .mp4 for several images"
        raise InputError(f"--out: expected {wanted}, or a folder, got {config.out}")
    if config.out.is_file() and not suffix:
        raise InputError(f"--out: expected a folder, got the file {config.out}")
    return config.out


def _target(out: Path, name: str, outputs: list[str], config: RenderConfig) -> Path:
    """Return the file or folder of one output."""
    if out.suffix == "":
        return out / name
    if name == "depth" and config.depth_as == "float" and out.suffix.lower() == ".png":
        out = out.with_suffix(".npy")
    return out if len(outputs) == 1 else out.with_name(f"{out.stem}-{name}{out.suffix}")


def _writer(
    target: Path, stack: ExitStack, config: RenderConfig, sequence: GaussianSequence
) -> Callable[[int, Any], None]:
    """Return a function that writes successive pictures to a file or folder."""
    if target.suffix.lower() == ".mp4":
        fps = config.fps or sequence.timeline.fps
        video = stack.enter_context(VideoWriter(target, fps))
        return lambda row, picture: video.add(picture.values)
    if target.suffix == "":
        return lambda row, picture: picture.save(frame_path(target, row, picture.suffix))
    return lambda row, picture: picture.save(target)


@dataclass(frozen=True)
class _Picture:
    """An image (with a palette or text entries) or an array, ready to be stored.

    Attributes:
        values: pixels of the image, or numbers for a .npy file.
        suffix: of the file.
        palette: RGB by index.
        notes: text entries of the PNG.
    """

    values: Shaped[np.ndarray, "height width *channels"]
    suffix: str = ".png"
    palette: UInt8[np.ndarray, "256 3"] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary:
            if self.suffix == ".npy":
                with temporary.open("wb") as file:
                    np.save(file, self.values, allow_pickle=False)
                return
            from PIL import Image
            from PIL.PngImagePlugin import PngInfo

            image = Image.fromarray(self.values)
            if self.palette is not None:
                image.putpalette(self.palette.ravel().tolist())
            info = PngInfo()
            for key, value in self.notes.items():
                info.add_text(key, json.dumps(value))
            image.save(temporary, pnginfo=info, compress_level=4)


class _Canvas:
    """Renders the outputs of a plan, with the colour scales of the first image for all."""

    def __init__(self, painter: Painter, plan: Plan, config: RenderConfig) -> None:
        self.painter, self.plan, self.config = painter, plan, config
        self.depth_range: tuple[float, float] | None = None
        self.depth_step: float | None = None
        self.longest_flow: float | None = None

    def pictures(self, row: int, outputs: list[str], suffix: str) -> Iterator[tuple[str, _Picture]]:
        """Yield the outputs of one camera and time, for files with a suffix."""
        camera, time = self.plan.cameras[row], float(self.plan.times[row])
        image = self.painter.image(camera, time)
        for name in outputs:
            if name == "rgb":
                yield name, self._rgb(image, suffix)
            elif name == "depth":
                yield name, self._depth(image.depth, suffix)
            elif name == "alpha":
                grey = (image.alpha * 255).round().astype(np.uint8)
                yield name, self._array_or_image(image.alpha, grey, suffix)
            elif name == "objects":
                labels = self.painter.labels(camera, time)
                yield name, self._labels(labels, suffix)
            elif name == "flow":
                yield name, self._flow(row, suffix)
            else:
                trails = self.painter.tracks(camera, time, image)
                yield name, self._array_or_image(trails, trails, suffix)

    def record(self, outputs: list[str]) -> dict[str, Any]:
        """Return the description of a folder of images, for `render.json`."""
        cameras, chosen = self.plan.cameras, self.plan.chosen
        width, height = _size(self.painter, self.plan)
        through = isinstance(self.painter, LensPainter) and self.painter.lenses
        return {
            "format": "msdyn-render",
            "version": 1,
            "outputs": outputs,
            "times": self.plan.times.tolist(),
            "width": width,
            "height": height,
            "cam_from_world": cameras.cam_from_world.tolist(),
            "intrinsics": cameras.intrinsics.tolist(),
            "world_units": self.painter.sequence.world_units,
            "depth_step": self.depth_step,
            "auto_path": None if chosen is None else chosen.record(),
            "lens": through.content() if through else None,
        }

    def _array_or_image(
        self,
        values: Shaped[np.ndarray, "height width *channels"],
        image: UInt8[np.ndarray, "height width *_channels"],
        suffix: str,
    ) -> _Picture:
        if suffix == ".npy":
            return _Picture(values, ".npy")
        if suffix == ".mp4" and image.ndim == 2:
            image = np.repeat(image[..., None], 3, axis=-1)
        return _Picture(image)

    def _rgb(self, image: RenderedImage, suffix: str) -> _Picture:
        if self.painter.background or suffix == ".mp4":
            return self._array_or_image(image.rgb, image.rgb8, suffix)
        # Straight (not premultiplied) alpha, as PNG stores it.
        alpha = image.alpha[..., None]
        straight = np.where(alpha > 1e-3, image.rgb / np.maximum(alpha, 1e-3), 0).clip(0, 1)
        rgba = np.concatenate([straight, alpha], axis=-1)
        return self._array_or_image(rgba, (rgba * 255).round().astype(np.uint8), suffix)

    def _depth(self, depth: Float[np.ndarray, "height width"], suffix: str) -> _Picture:
        if suffix == ".npy" or (suffix != ".mp4" and self.config.depth_as == "float"):
            return _Picture(depth, ".npy")
        known = depth[depth > 0]
        if self.depth_range is None and known.size:
            low, high = np.percentile(known, [1, 99]).tolist()
            self.depth_range = (0.9 * low, 1.1 * high)
            metric = self.painter.sequence.world_units == "metric"
            # 1 mm; in arbitrary units, 1/16384 of the largest depth of the first image.
            self.depth_step = 0.001 if metric else 4 * float(known.max()) / _DEPTH_STEPS
        if suffix == ".mp4" or self.config.depth_as == "colour":
            return _Picture(colour_depth(depth, *(self.depth_range or (1.0, 2.0))))
        step = self.depth_step or 0.001
        steps = (depth / step).round()
        # Depth beyond 16 bits is stored as unknown.
        stored = np.where(steps <= _DEPTH_STEPS, steps, 0).astype(np.uint16)
        return _Picture(stored, notes={"depth_step": step})

    def _labels(self, labels: UInt8[np.ndarray, "height width"], suffix: str) -> _Picture:
        if suffix == ".mp4":
            return _Picture(colour_objects(labels))
        return (
            self._array_or_image(labels, labels, suffix)
            if suffix == ".npy"
            else _Picture(labels, palette=object_palette())
        )

    def _flow(self, row: int, suffix: str) -> _Picture:
        plan, frames = self.plan, len(self.painter.sequence.timeline)
        time = float(plan.times[row])
        sign = 1.0
        if row + 1 < len(plan):
            other = row + 1
            later = float(plan.times[other])
        elif row > 0:  # the last of several: the flow to the previous image, negated
            other, later, sign = row - 1, float(plan.times[row - 1]), -1.0
        else:  # one image: to one frame later (at the end, from one earlier), in the same camera
            other, step = row, 1 / (frames - 1)
            later, sign = (time + step, 1.0) if time + step <= 1 + 1e-9 else (time - step, -1.0)
            later = min(max(later, 0.0), 1.0)
        flow = self.painter.flow((plan.cameras[row], plan.cameras[other]), (time, later))
        xy = sign * flow.xy
        if suffix == ".npy":
            return _Picture(xy, ".npy")
        if self.longest_flow is None:
            lengths = np.linalg.norm(xy[flow.valid], axis=-1)
            self.longest_flow = max(float(np.percentile(lengths, 99)) if lengths.size else 1.0, 1.0)
        return _Picture(colour_flow(xy, flow.valid, self.longest_flow))
