"""`msdyn-eval`: evaluate a fitted scene."""

from collections.abc import Sequence
from typing import Any

from msdyn.cli.inputs import require_files, require_scene, require_sequence
from msdyn.cli.run import parse, run
from msdyn.evaluate.config import EvaluateConfig
from msdyn.progress import stage

DESCRIPTION = (
    "Evaluate a fitted scene on frames held out from the fit and, where there are any, on held-out "
    "cameras, true 3D tracks, keypoints and object motion. docs/evaluation.md defines each metric."
)


EXAMPLES = (
    "scene  # frames held out by msdyn-fit --holdout-every, and what else the scene knows",
    "scene --truth other  # held-out cameras and true tracks of another scene directory",
    "scene --frozen  # the baseline without motion",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_evaluate, parse(EvaluateConfig, argv, "msdyn-eval", DESCRIPTION, examples=EXAMPLES))


def _evaluate(config: EvaluateConfig) -> None:
    require_scene(config.scene)
    require_sequence(config.fit or config.scene, config.source)
    if config.truth is not None:
        require_scene(config.truth)
    require_files(*config.lpips)
    with stage("loading"):
        from msdyn.evaluate.run import evaluate_scene

    result = evaluate_scene(config)
    if result["input"]["grade"] == "poor":
        print(f"the input is poor: {result['input']['reason']}")
    units = "m" if result["protocol"]["world_units"] == "metric" else "scene units"
    frames = result["frames"]
    kind = "kept out of the fit" if frames["kept_out_of_the_fit"] else "of the fit itself"
    if result["protocol"]["sequence"] == "predict":
        kind = "of the clip"
    print(f"{'what':<34} {'images':>6} {'mPSNR':>7} {'mSSIM':>7} {'mLPIPS':>7} {'SSIM':>7}")
    _row(f"frames {kind}", frames)
    _print_by_motion(frames)
    if frames["kept_out_of_the_fit"]:
        each = ", ".join(f"{f}: {_figure(psnr, 2)}" for f, psnr in frames["frames"].items())
        print(f"  PSNR of each, by frame: {each}")
    if "fitted_frames" in result:
        _row("frames of the fit itself", result["fitted_frames"])
        _print_by_motion(result["fitted_frames"])
    if "views" in result:
        for name, figures in result["views"]["views"].items():
            _row(f"held-out view {name}", figures)
        _row("held-out views, mean", result["views"])
        if "views_test_time_cameras" in result:
            optimised = result["views_test_time_cameras"]
            for name, figures in optimised["views"].items():
                _row(f"view {name}, camera optimised", figures)
            _row("held-out, cameras optimised, mean", optimised)
        print("mPSNR in dB, mSSIM and mLPIPS by DyCheck's definitions; SSIM of covisible pixels")
        if "views_test_time_cameras" in result:
            print(
                "cameras optimised at test time, on the images that are evaluated: by "
                f"{_figure(optimised['camera_degrees'], 3)} degrees and "
                f"{_figure(optimised['camera_shift'])} {units} on average"
            )
    if frames["mlpips"] is None:
        print(f"mLPIPS: {result['protocol']['lpips']}")
    _print_motion(result, units)
    pictures = ", pictures beside it in eval/" if config.pictures else ""
    print(f"written to {config.folder / 'eval.json'}{pictures}")


def _print_by_motion(frames: dict[str, Any]) -> None:
    if frames["psnr_moving"] is not None:
        moving, static = (_figure(frames[f"psnr_{kind}"], 2) for kind in ("moving", "static"))
        print(f"  PSNR of moving pixels only: {moving}, of static ones: {static}")


def _print_motion(result: dict[str, Any], units: str) -> None:
    if result["tracks"]:
        t = result["tracks"]
        print(
            f"3D tracks: error {_figure(t['epe3d_moving'])} {units} on moving points "
            f"({_figure(t['epe3d_moving_visible'])} while visible), "
            f"{_figure(t['epe3d'])} on all {t['tracks']}"
        )
    if result["points"]:
        p = result["points"]
        transfer, image = p["transfer"], p["image"]
        print(
            f"{p['points']} points between {p['frames']} frames ({p['source']}): "
            f"EPE3D {_figure(transfer['epe3d'])} {units}, "
            f"within .05 {_figure(transfer['delta_0.05'], 3)}, "
            f"within .10 {_figure(transfer['delta_0.10'], 3)}; "
            f"AJ {_figure(image['average_jaccard'], 3)}, PCK {_figure(image['average_pck'], 3)}, "
            f"occlusion accuracy {_figure(image['occlusion_accuracy'], 3)}; "
            f"PCK-T {_figure(p['pck_t'], 3)}"
        )
    if result["object_motion"]:
        motion = result["object_motion"]
        print(
            f"object motion: {_figure(motion['rotation_degrees'], 2)} degrees, "
            f"{_figure(motion['translation'])} {units} off "
            f"({motion['found']:.0%} of {len(motion['objects'])} objects found)"
        )


def _row(name: str, figures: dict[str, Any]) -> None:
    print(
        f"{name:<34} {figures['images']:>6} {_figure(figures['mpsnr'], 2):>7} "
        f"{_figure(figures['mssim']):>7} {_figure(figures['mlpips']):>7} "
        f"{_figure(figures['ssim']):>7}"
    )


def _figure(value: float | None, digits: int = 4) -> str:
    """Return a number as text, "-" for None (not available or not finite)."""
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    raise SystemExit(main())
