"""Evaluating a fitted scene directory, with pictures: the work of `msdyn-eval`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import numpy as np

from msdyn.devices import choose_device
from msdyn.errors import InputError
from msdyn.evaluate.config import EvaluateConfig
from msdyn.evaluate.lpips import LPIPS_MISSING, Lpips, load_lpips
from msdyn.evaluate.pictures import save_comparison
from msdyn.evaluate.protocol import (
    evaluate_frames,
    evaluate_object_motion,
    evaluate_points,
    evaluate_tracks,
    evaluate_views,
)
from msdyn.evaluate.stamp import code_stamp
from msdyn.evaluate.variant import Variant
from msdyn.indices import evenly_spaced
from msdyn.progress import stage
from msdyn.reading import as_schema, read_json
from msdyn.render import RenderedImage
from msdyn.scene import Scene, View, frame_path
from msdyn.sequence import GaussianSequence, load_sequence, motion_by_level
from msdyn.writing import refuse_links, without_nan, write_json

__all__ = ["EvaluateConfig", "evaluate_scene"]


_IMAGE_FIGURES = ("mpsnr", "mssim", "mlpips", "images")
# Most fitted frames that are evaluated beside those held out.
_FITTED_FRAMES = 32
_OPTIMISED_VIEWS = "views_test_time_cameras"
_OPTIMISED = (
    "the camera of each held-out image, on its own covisible pixels, for the figures under "
    "*_test_time_cameras; none for all others"
)


class _Options(TypedDict):
    holdout_every: Annotated[int, msgspec.Meta(ge=0)]
    seed: Annotated[int, msgspec.Meta(ge=0)]


class _Config(TypedDict):
    options: _Options


def evaluate_scene(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a fit on held-out views, true tracks and frames of the clip; write `eval.json`.

    Frames of the clip are those held out from the fit, if any, and otherwise every eighth frame of
    the fit (marked as such). Where frames were held out, up to 32 fitted ones are evaluated too.

    Raises:
        FileNotFoundError: no scene, no fit, or no file of weights at a given path.
        InputError: a truth of another clip, or one that does not meet the protocol.
    """
    from msdyn.preprocess.report.fitness import judge_scene

    scene = Scene(config.scene)
    fit = config.folder
    device = choose_device(config.device)
    with stage("reading the sequence"):
        sequence = load_sequence(config.fit or scene.directory, device, source=config.source)
    truth = Scene(config.truth) if config.truth else scene
    options = _fit_options(fit / "config.json")
    if config.protocol == "dycheck":
        _check_dycheck(config, truth)
    if config.test_time_cameras and not truth.views:
        raise InputError(
            f"{truth.directory / 'views'}: no held-out views, whose cameras --test-time-cameras "
            "optimises; leave the option out, or name a scene that has some with --truth"
        )
    variant = Variant(config.levels, config.frozen)
    lpips = load_lpips(config.lpips, download=config.lpips_download)
    folder = fit / "eval"
    refuse_links(scene.directory if fit.is_relative_to(scene.directory) else fit, folder)
    every = options["holdout_every"]
    held_out = list(range(every - 1, len(scene) - 1, every)) if every else []
    frames = held_out or list(range(0, len(scene), 8))

    def keep_frame(frame: int, image: RenderedImage) -> None:
        if config.pictures:
            save_comparison(folder / f"frame_{frame:05d}.png", scene.image(frame), image.rgb8)

    def keep_view(view: View, frame: int, image: RenderedImage) -> None:
        chosen = evenly_spaced(len(view.frames), 5)
        if config.pictures and frame in np.asarray(view.frames)[chosen]:
            path = folder / f"{view.name}_{frame:05d}.png"
            save_comparison(path, view.image(frame), image.rgb8, view.covisible(frame))

    result: dict[str, Any] = {
        "protocol": _protocol(config, scene, truth, sequence, lpips, options),
        "input": asdict(judge_scene(scene)),
        "frames": {
            "kept_out_of_the_fit": bool(held_out),
            **evaluate_frames(
                sequence, scene, frames, variant=variant, lpips=lpips, keep=keep_frame
            ),
        },
    }
    if held_out:
        fitted = np.setdiff1d(np.arange(len(scene)), held_out)
        chosen = evenly_spaced(len(fitted), _FITTED_FRAMES)
        result["fitted_frames"] = evaluate_frames(
            sequence, scene, fitted[chosen].tolist(), variant=variant
        )
    if truth.views:
        result["views"] = evaluate_views(
            sequence, truth, align=config.align, variant=variant, lpips=lpips, keep=keep_view
        )
    if config.test_time_cameras:
        result[_OPTIMISED_VIEWS] = evaluate_views(
            sequence, truth, align=config.align, variant=variant, lpips=lpips,
            test_time_cameras=True,
        )  # fmt: skip
    settings: dict[str, Any] = {"align": config.align, "variant": variant}
    with stage("tracks and object motion"):
        result["tracks"] = evaluate_tracks(sequence, truth, **settings)
        result["points"] = evaluate_points(sequence, truth, **settings)
        result["object_motion"] = evaluate_object_motion(sequence, truth, **settings)
    result["motion_by_level"] = {
        str(label): np.sqrt((rows**2).mean(1)).tolist()
        for label, rows in motion_by_level(sequence).items()
    }
    if config.protocol == "dycheck":
        result["dycheck"] = _dycheck_summary(result)
        if config.test_time_cameras:
            views = result[_OPTIMISED_VIEWS]
            result["dycheck_test_time_cameras"] = {key: views[key] for key in _IMAGE_FIGURES}
    result = without_nan(result)
    write_json(fit / "eval.json", result)
    return result


def _protocol(
    config: EvaluateConfig,
    scene: Scene,
    truth: Scene,
    sequence: GaussianSequence,
    lpips: Lpips | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Return the setting of an evaluation: data, alignment, masks, variant and versions."""
    masked, views = sum(map(_has_masks, truth.views.values())), len(truth.views)
    masks = {views: "covisibility", 0: "none"}.get(
        masked, f"covisibility for {masked} of {views} views"
    )
    return {
        "name": config.protocol,
        "sequence": config.source,
        "scene": scene.directory.resolve().name,
        "truth": truth.directory.resolve().name,
        "frames": len(scene),
        "resolution": [sequence.cameras.width, sequence.cameras.height],
        "images": "compared with 8 bits a channel",
        "cameras": "aligned by a similarity" if config.align else "world of the input",
        "masks": masks if views else "none",
        "recording": _recording(truth),
        "world_units": truth.info.world_units,
        "lpips": lpips.source if lpips else LPIPS_MISSING,
        "test_time_optimisation": _OPTIMISED if config.test_time_cameras else "none",
        "exposure": {
            "frames": "none"
            if sequence.exposure is None
            else "of the fit, from neighbours for held-out frames",
            "views": "none",
        },
        "variant": {"levels": config.levels, "frozen": config.frozen},
        "seed": options["seed"],
        **code_stamp(),
    }


def _recording(truth: Scene) -> dict[str, Any] | None:
    """Return what was read of a calibrated recording; None of other scenes.

    Its layout, the input camera, the number of images of each held-out camera, and how their
    covisibility was computed.
    """
    path = truth.directory / "recording.json"
    if not path.is_file():
        return None
    content = read_json(path)
    keys = ("layout", "input_camera", "views", "covisibility")
    return {key: content.get(key) for key in keys} if isinstance(content, dict) else None


def _has_masks(view: View) -> bool:
    """Return whether every image of a view has a covisibility mask."""
    paths = (frame_path(view.directory / "covisible", frame, ".png") for frame in view.frames)
    return all(path.is_file() for path in paths)


def _check_dycheck(config: EvaluateConfig, truth: Scene) -> None:
    """Raise InputError where the data do not meet the protocol of DyCheck."""
    if not truth.views:
        raise InputError(
            f"{truth.directory / 'views'}: no held-out views; the dycheck protocol needs them, "
            "as `msdyn-preprocess --from dycheck DIR` writes them"
        )
    for view in truth.views.values():
        if not _has_masks(view):
            raise InputError(
                f"{view.directory / 'covisible'}: expected a mask for each of "
                f"{len(view.frames)} images; the dycheck protocol counts covisible pixels only"
            )


def _dycheck_summary(result: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics that papers report on DyCheck; None where the scene has no points."""
    views, points = result["views"], result["points"]
    summary = {key: views[key] for key in _IMAGE_FIGURES}
    for part, keys in (
        ("transfer", ("epe3d", "delta_0.05", "delta_0.10")),
        ("image", ("average_jaccard", "average_pck", "occlusion_accuracy")),
    ):
        summary |= {key: points[part][key] if points else None for key in keys}
    return {**summary, "pck_t": points["pck_t"] if points else None}


def _fit_options(path: Path) -> dict[str, Any]:
    """Return the options of a fit."""
    content = read_json(path)
    as_schema(content, _Config, str(path))
    return content["options"]  # all of them, also those that are not checked
