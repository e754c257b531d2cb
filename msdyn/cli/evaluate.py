"""`msdyn-eval`: measure a fitted scene."""

from collections.abc import Sequence

from msdyn.cli.run import parse, run
from msdyn.evaluate.run import EvaluateConfig, evaluate_scene

DESCRIPTION = (
    "Measure a fitted scene on frames kept out of the fit and, where there are any, on held-out "
    "cameras and true 3D tracks."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(_evaluate, parse(EvaluateConfig, argv, "msdyn-eval", DESCRIPTION))


def _evaluate(config: EvaluateConfig) -> None:
    result = evaluate_scene(config)
    frames = result["frames"]
    kind = "kept out of the fit" if frames["kept_out_of_the_fit"] else "of the fit itself"
    print(f"{'what':<34} {'images':>6} {'mPSNR':>7} {'mSSIM':>7} {'SSIM':>7}")
    _row(f"frames {kind}", frames)
    if frames["kept_out_of_the_fit"]:
        each = ", ".join(f"{frame}: {psnr:.2f}" for frame, psnr in frames["frames"].items())
        print(f"  PSNR of each, by frame: {each}")
    if "views" in result:
        for name, figures in result["views"]["views"].items():
            _row(f"held-out view {name}", figures)
        _row("held-out views, mean", result["views"])
        print("mPSNR in dB and mSSIM by DyCheck's definitions; SSIM of covisible pixels alone")
    if result.get("tracks"):
        t = result["tracks"]
        print(
            f"3D tracks: error {t['epe3d_moving']:.4f} on moving points "
            f"({t['epe3d_moving_visible']:.4f} while visible), "
            f"{t['epe3d']:.4f} on all {t['tracks']}"
        )
    fit = config.fit or config.scene / "fit"
    print(f"written to {fit / 'eval.json'}, pictures beside it in eval/")


def _row(name: str, figures: dict) -> None:
    print(
        f"{name:<34} {figures['images']:>6} {figures['mpsnr']:>7.2f} {figures['mssim']:>7.4f} "
        f"{figures['ssim']:>7.4f}"
    )
