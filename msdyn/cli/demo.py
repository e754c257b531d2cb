"""`msdyn-demo`: the whole toolkit on a synthetic clip with known truth."""

from collections.abc import Sequence
from typing import Any

from msdyn.cli.run import RESUMES, parse, run
from msdyn.demo import DemoConfig, run_demo

DESCRIPTION = (
    "Make a short synthetic clip, reconstruct it, and evaluate novel views and 3D tracks against "
    "the truth. Writes a folder with a video, images and figures."
)
_ROWS = {
    "full": "full method (L1-L3)",
    "frozen": "the same, motion frozen",
    "levels_1": "fit with --levels 1",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    config = parse(DemoConfig, argv, "msdyn-demo", DESCRIPTION)
    return run(_demo, config, interrupted=RESUMES)


def _demo(config: DemoConfig) -> None:
    metrics = run_demo(config)
    _print_run("cameras and depth of the recording", metrics["recording"])
    if config.bare:
        _print_run("everything from the mp4 alone", metrics["bare"])
        difference = metrics["bare"]["full"]["mpsnr"] - metrics["recording"]["full"]["mpsnr"]
        print(f"\ndifference of the mp4 alone to the recording: {difference:+.2f} dB")
    folder = config.out / "bare" if config.bare else config.out
    novel = metrics["bare" if config.bare else "recording"].get("novel_view")
    if novel:
        print(f"\nnovel.mp4: {novel['path']}")
    print(f"\nlook at {folder / 'novel.mp4'} and {folder / 'comparison.png'};")
    print(f"the figures are in {config.out / 'metrics.json'}")


def _print_run(title: str, figures: dict[str, Any]) -> None:
    print(f"\n{title}")
    print(f"{'held-out cameras':<26} {'mPSNR':>7} {'mSSIM':>7} {'SSIM':>7} {'track error':>12}")
    for key, name in _ROWS.items():
        row = figures[key]
        tracks = row.get("tracks")
        error = f"{100 * tracks['epe3d_moving']:9.1f} cm" if tracks else ""
        print(
            f"{name:<26} {row['mpsnr']:>7.2f} {row['mssim']:>7.3f} {row['ssim']:>7.3f} {error:>12}"
        )
    seconds = figures["seconds"]
    stages = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    print(f"seconds: {stages}; {sum(seconds.values()):.0f} in all")
