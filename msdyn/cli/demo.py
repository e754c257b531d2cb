"""`msdyn-demo`: the whole toolkit on a synthetic clip with known truth."""

from collections.abc import Sequence
from typing import Any

from msdyn.cli.run import RESUMES, parse, run
from msdyn.demo.config import DemoConfig
from msdyn.progress import stage

DESCRIPTION = (
    "Make a short synthetic clip, reconstruct it, and evaluate novel views and 3D tracks against "
    "the truth. Writes a folder with a video, images and figures."
)
EXAMPLES = (
    "--out out/demo  # minutes on a CPU",
    "--out out/demo --bare  # from the video alone, too",
    "--quick --out out/quick  # a minute",
    "--frames 12 --width 128 --epochs 5  # of other sizes",
)
_ROWS = {
    "full": "full method (L1-L3)",
    "frozen": "the same, motion frozen",
    "levels_1": "fit with --levels 1",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    config = parse(DemoConfig, argv, "msdyn-demo", DESCRIPTION, examples=EXAMPLES)
    return run(_demo, config, interrupted=RESUMES)


def _demo(config: DemoConfig) -> None:
    with stage("loading"):
        from msdyn.demo.demo import run_demo

    metrics = run_demo(config)
    _print_run("cameras and depth of the recording", metrics["recording"])
    if config.bare:
        _print_run("everything from the mp4 alone", metrics["bare"])
        bare, recording = (metrics[run]["full"]["mpsnr"] for run in ("bare", "recording"))
        difference = "not known"
        if bare is not None and recording is not None:
            difference = f"{bare - recording:+.2f} dB"
        print(f"\ndifference of the mp4 alone to the recording: {difference}")
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
        moving = tracks["epe3d_moving"] if tracks else None
        error = "" if moving is None else f"{100 * moving:9.1f} cm"
        quality = " ".join(
            f"{'-' if row[key] is None else format(row[key], f'.{digits}f'):>7}"
            for key, digits in (("mpsnr", 2), ("mssim", 3), ("ssim", 3))
        )
        print(f"{name:<26} {quality} {error:>12}")
    seconds = figures["seconds"]
    stages = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    print(f"seconds: {stages}; {sum(seconds.values()):.0f} in all")


if __name__ == "__main__":
    raise SystemExit(main())
