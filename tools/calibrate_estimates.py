"""Compare estimates of memory, disk and time with what commands are measured to take.

    python tools/calibrate_estimates.py preprocess clip.mp4 --frames 12 86 --sides 96 384 --out out
    python tools/calibrate_estimates.py fit out/clip_86_96 out/clip_86_384 --out out
    python tools/calibrate_estimates.py render out/clip_86_96/fit --out out
    python tools/calibrate_estimates.py predict out/clip_86_96 --out out

Each command runs in a process of its own, whose memory (without that of files) is looked at every
20 ms. A fit runs with the quick preset, with few Gaussians, with the default ones, and with batches
of 8 frames, for one epoch unless `--epochs` is given. Printed are, per run, what was measured and
the estimate divided by it; at the end the range of these ratios. `--json` keeps the rows.

The constants are in the modules `estimate` of the layers. One that is off for long clips is
`pixel_of_clip`, for large images `pixel_of_batch` or `pixel`, for many Gaussians `gaussian`; start
with `process`, measured on the smallest.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import describe_machine

from msdyn.cli.fit import FitCommand
from msdyn.cli.options import parse
from msdyn.cli.render_config import OUTPUTS
from msdyn.estimates import Estimate
from msdyn.fit.estimate import FitSize, estimate_fit
from msdyn.machine_limits import held_memory
from msdyn.preprocess.config import PreprocessConfig
from msdyn.preprocess.estimate import estimate_preprocessing, expected_clip, uses_saliency
from msdyn.scene import Scene
from msdyn.writing import write_json

_PERIOD = 0.02
_FITS = {
    "quick": ("--preset", "quick"),
    "small": (
        *("--static-gaussians", "1500", "--moving-gaussians", "500", "--prefit-steps", "20"),
        *("--density.max-static", "2000", "--density.max-moving", "800"),
    ),
    "default": (),
    "batch 8": ("--preset", "quick", "--batch", "8"),
}
_SIZES = ((96, 72), (384, 288), (1536, 1152))


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
        memory: bytes that it held at most, without those of files.
        disk: bytes of its results, and at most of files without a name that it had open.
        seconds: from its start to its end.
        processor: seconds of all cores together.
    """

    memory: int
    disk: int
    seconds: float
    processor: float


@dataclass(frozen=True)
class Row:
    """A command, what it took and what was expected."""

    name: str
    measured: Measured
    estimate: Estimate

    def ratios(self) -> dict[str, float]:
        """Return the estimates divided by what was measured."""
        found = {
            "memory": self.estimate.memory / self.measured.memory,
            "disk": self.estimate.disk / max(1, self.measured.disk),
        }
        if self.estimate.seconds is not None:
            found["seconds"] = self.estimate.seconds / self.measured.seconds
        return found


def measure(module: str, arguments: Sequence[str], result: Path) -> Measured:
    """Run the main function of a command of msdyn in a process.

    Raises:
        RuntimeError: it ended with another code than 0 or 3.
    """
    code = f"import sys; from msdyn.cli.{module} import main; sys.exit(main())"
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    most, unnamed, spent = 0, 0, 0.0
    while process.poll() is None:
        most = max(most, held_memory(process.pid) or 0)
        unnamed = max(unnamed, _unnamed_files(process.pid))
        spent = _processor_seconds(process.pid) or spent
        time.sleep(_PERIOD)
    seconds = time.perf_counter() - begin
    if process.returncode not in (0, 3):
        raise RuntimeError(f"msdyn-{module} {' '.join(arguments)}: code {process.returncode}")
    files = [result] if result.is_file() else [f for f in result.rglob("*") if f.is_file()]
    disk = unnamed + sum(file.stat().st_size for file in files)
    return Measured(most, disk, round(seconds, 1), round(spent, 1))


def _unnamed_files(process: int) -> int:
    """Return the bytes of files that a process has open and that have no name any more."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                if int(entry.name) > 2 and str(entry.readlink()).endswith(" (deleted)"):
                    total += entry.stat().st_size
    return total


def _processor_seconds(process: int) -> float | None:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / 100


def preprocessing(
    video: Path, frames: Sequence[int], sides: Sequence[int], out: Path
) -> Iterator[Row]:
    """Yield the rows of clips of several lengths and sizes."""
    for count in frames:
        for side in sides:
            folder = out / f"{video.stem}_{count}_{side}"
            shutil.rmtree(folder, ignore_errors=True)
            config = PreprocessConfig(
                video=video,
                out=folder,
                preset="offline",
                max_frames=count,
                long_side=side,
                accept_poor=True,
            )
            options = ["--preset", "offline", "--max-frames", str(count), "--long-side", str(side)]
            options += ["--accept-poor", "--out", str(folder)]
            measured = measure("preprocess", [str(video), *options], folder)
            clip = expected_clip(config)
            assert clip is not None
            yield Row(
                f"{clip.frames} frames of {clip.width}x{clip.height}",
                measured,
                estimate_preprocessing(clip, saliency=uses_saliency(config)),
            )


def fits(scenes: Sequence[Path], epochs: int, out: Path) -> Iterator[Row]:
    """Yield the rows of fits to scene directories with several options."""
    for folder in scenes:
        size = FitSize.of(Scene(folder))
        for name, options in _FITS.items():
            target = out / "fit"
            shutil.rmtree(target, ignore_errors=True)
            arguments = [str(folder), *options, "--epochs", str(epochs), "--out", str(target)]
            default = FitCommand.of("quick" if "quick" in options else "default")
            config = parse(FitCommand, arguments, "msdyn-fit", "", default).config
            measured = measure("fit", arguments, target)
            yield Row(
                f"{size.frames} frames of {size.width}x{size.height}, {name}",
                measured,
                estimate_fit(size, config),
            )


def renderings(sequences: Sequence[Path], out: Path) -> Iterator[Row]:
    """Yield the rows of renderings of sequences at several sizes."""
    from msdyn.render.estimate import estimate_rendering
    from msdyn.scene import write_cameras
    from msdyn.sequence import load_sequence

    for path in sequences:
        sequence = load_sequence(path)
        for size in _SIZES:
            camera = sequence.cameras[[0]].resized(*size)
            write_cameras(out / "camera.json", camera)
            target = out / "rendered"
            shutil.rmtree(target, ignore_errors=True)
            outputs = list(OUTPUTS)
            arguments = [str(path), "--camera", str(out / "camera.json"), "--frames", "4"]
            arguments += ["--output", ",".join(outputs), "--out", str(target)]
            measured = measure("render", arguments, target)
            yield Row(
                f"{path}: {size[0]}x{size[1]}",
                measured,
                estimate_rendering(sequence, 4, size, outputs),
            )


def predictions(scenes: Sequence[Path], out: Path) -> Iterator[Row]:
    """Yield the rows of predictions for scene directories at several sizes."""
    from msdyn.feedforward.estimate import estimate_prediction
    from msdyn.feedforward.inference import input_size
    from msdyn.feedforward.pretrained import DEFAULT_MODEL, find_model
    from msdyn.feedforward.windows import choose_windows, default_overlap

    found = find_model(DEFAULT_MODEL)
    model = found.load()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for folder in scenes:
        height, width = Scene(folder).size
        for side in (found.long_side, 2 * found.long_side):
            target = out / "predict"
            shutil.rmtree(target, ignore_errors=True)
            arguments = [str(folder), "--long-side", str(side), "--out", str(target)]
            measured = measure("predict", arguments, target)
            windows = choose_windows(
                len(Scene(folder)), found.frames, None, default_overlap(found.frames)
            )
            size = input_size(width, height, side, model.config.patch)
            yield Row(
                f"{folder}: {size[0]}x{size[1]}",
                measured,
                estimate_prediction(windows, size, parameters),
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the commands, and print how far the estimates are off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("kind", choices=("preprocess", "fit", "render", "predict"))
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, nargs="+", default=[12, 100])
    parser.add_argument("--sides", type=int, nargs="+", default=[96, 384])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.kind == "preprocess":
        rows = preprocessing(options.inputs[0], options.frames, options.sides, options.out)
    elif options.kind == "fit":
        rows = fits(options.inputs, options.epochs, options.out)
    elif options.kind == "render":
        rows = renderings(options.inputs, options.out)
    else:
        rows = predictions(options.inputs, options.out)
    done: list[Row] = []
    for row in rows:
        done.append(row)
        took, ratios = row.measured, row.ratios()
        words = ", ".join(f"{name} {value:.2f}" for name, value in ratios.items())
        print(
            f"{row.name}: {took.memory / 1e6:.0f} MB, {took.disk / 1e6:.1f} MB of disk, "
            f"{took.seconds:.0f} s ({took.processor:.0f} s of processor); estimate / measured: "
            f"{words}",
            flush=True,
        )
        if options.json is not None:
            facts = {"machine": describe_machine(), "rows": [asdict(r) for r in done]}
            write_json(options.json, facts)
    for name in done[0].ratios():
        values = [row.ratios()[name] for row in done]
        print(f"{name}: estimate / measured from {min(values):.2f} to {max(values):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
