"""The process of a worker of `msdyn-batch`: runs the stages of clips by the commands of msdyn.

It is started by `msdyn.batch.Supervisor`, not by users: `python -m msdyn.cli.batch_worker OPTIONS`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from msdyn.batch.needs import free_words, words_of
from msdyn.batch.store import Store, local_path
from msdyn.batch.worker import StageResult, StageWork, serve
from msdyn.batch.workspace import Workspace, tail_of
from msdyn.errors import MsdynError, printable
from msdyn.options import text_of
from msdyn.preprocess.checkpoints.kept import keep_networks

__all__ = ["run_stage"]

_ONLY: dict[str, tuple[str, ...]] = {
    "tracks": ("frames", "tracks"),
    "masks": ("masks",),
    "cameras": ("cameras",),
    "refine": ("masks",),
    "depth": ("depth",),
}
"""Stages of `msdyn-preprocess` of each stage of a batch."""
_OF_RECORD = {"refine": "masks"}
_MEMORY_SHARE = 0.9
"""Of a worker's memory: a command that is told this limit ends before the worker is killed."""
_OF_MEMORY = ("--max-memory", "the memory is full")
"""What a command that ends with 4 says of memory: its limit, or what the system refused."""
_LONG_SIDE, _LEAST_SIDE = 960, 64
_NETWORKS = 2
"""Networks that stay loaded: one for masks, one for depth."""
_THUMBNAIL = 320
_TAIL = 1 << 16


def run_stage(work: StageWork) -> StageResult:
    """Run a stage of a clip by a command, in this process."""
    workspace = work.workspace
    begin = workspace.log.stat().st_size if workspace.log.is_file() else 0
    try:
        code = _run(work)
    except MsdynError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = error.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    said = tail_of(workspace.log, max(0, workspace.log.stat().st_size - begin))[-_TAIL:]
    lines = said.decode(errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    verdict, psnr = _verdict(work), None
    # Verdicts before that on depth are not final: masks and cameras are made again.
    if code == 3 and not errors and work.stage in ("tracks", "masks", "cameras", "refine"):
        code = 0
    if code == 0:
        if work.stage == "evaluate":
            verdict, psnr = _evaluation(workspace)
        if work.stage in ("depth", "evaluate"):
            _write_thumbnail(workspace)
        if work.stage == "depth":
            workspace.drop_source()
        return StageResult(verdict=verdict, psnr=psnr)
    if work.stage in _ONLY:
        _write_thumbnail(workspace)
    warnings = [line.removeprefix("warning: ") for line in lines if " poor: " in line]
    line = printable((errors or warnings or ["see log.txt"])[-1], 600)
    if code == 3:
        return StageResult("poor", "poor", error_class="PoorInputError", error=line)
    if code == 4:
        of_memory = any(words in line for words in _OF_MEMORY)
        return StageResult(
            "out-of-memory" if of_memory else "refused", error_class="ResourceError", error=line
        )
    return StageResult("bad-input", verdict, error_class="InputError", error=line)


def _run(work: StageWork) -> int:
    """Run the command of a stage; return its exit code."""
    from msdyn.cli import evaluate, fit, preprocess

    scene = str(work.workspace.scene)
    memory = []
    if work.max_memory is not None:
        memory = [f"--max-memory={max(1, int(_MEMORY_SHARE * work.max_memory / 1e6))}M"]
    if work.stage in _ONLY:
        words = free_words(work.preprocess, "--preprocess")
        options = [f"--only={name}" for name in _ONLY[work.stage]]
        clip = work.clip
        options += [f"--start={clip.start!r}"] if clip.start is not None else []
        options += [f"--end={clip.end!r}"] if clip.end is not None else []
        options += [f"--long-side={_smaller_side(work, words)}"] if work.smaller else []
        return _call(
            preprocess.main,
            [_video(work.workspace, clip.uri), *words, f"--out={scene}", *memory, *options],
        )
    if work.stage == "fit":
        return _call(fit.main, [scene, *free_words(work.fit, "--fit"), *memory])
    device = text_of("--device", words_of(work.fit, "--fit"))
    return _call(evaluate.main, [scene, *([f"--device={device}"] if device else [])])


def _call(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Return the exit code of a command, also where its options are refused."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2


def _video(workspace: Workspace, uri: str) -> str:
    """Return the path of a clip's video; it is fetched where it is elsewhere."""
    path = local_path(uri)
    if path is not None:
        return str(path)
    folder, _, name = uri.rpartition("/")
    path = workspace.source / name
    if not path.is_file():
        Store(folder).get(name, path)
    return str(path)


def _smaller_side(work: StageWork, words: Sequence[str]) -> int:
    """Return half of the longer side that the images have, or would have."""
    from msdyn.scene import Scene

    asked = text_of("--long-side", words)
    side = int(asked) if asked and asked.isdecimal() and int(asked) > 0 else _LONG_SIDE
    record = work.workspace.folder / "full_side.txt"
    store = Store(str(record.parent))
    known = store.read(record.name)
    if known is None and (work.workspace.scene / "scene.json").is_file():
        known = str(max(Scene(work.workspace.scene).size)).encode()
        store.write(record.name, known)
    if known is not None and known.decode().isdecimal():
        side = min(side, int(known))
    return max(_LEAST_SIDE, side // 2)


def _verdict(work: StageWork) -> str:
    """Return the verdict on a stage of preprocessing, "" where there is none."""
    from msdyn.preprocess.report.quality import judge_stages
    from msdyn.scene import Scene

    scene = work.workspace.scene
    if work.stage not in _ONLY or not (scene / "scene.json").is_file():
        return ""
    verdicts: dict[str, Any] = dict(judge_stages(Scene(scene).info.stages))
    verdict = verdicts.get(_OF_RECORD.get(work.stage, work.stage))
    return "" if verdict is None else verdict.grade


def _evaluation(workspace: Workspace) -> tuple[str, float | None]:
    """Return the verdict on the scene, and the PSNR of frames that the fit did not see."""
    from msdyn.reading import read_json

    result: Any = read_json(workspace.scene / "fit" / "eval.json")
    frames = result["frames"]
    kept_out = frames["kept_out_of_the_fit"]
    return result["input"]["grade"], frames["mpsnr"] if kept_out else None


def _write_thumbnail(workspace: Workspace) -> None:
    """Write a small picture: of the input and the rendering, or of the first frame."""
    from PIL import Image

    from msdyn.reading import read_rgb
    from msdyn.writing import atomic_path

    scene = workspace.scene
    pictures = sorted((scene / "fit" / "eval").glob("frame_*.png"))
    pictures = pictures or sorted((scene / "images").glob("*.png"))
    if not pictures:
        return
    image = Image.fromarray(read_rgb(pictures[len(pictures) // 2]))
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    with atomic_path(workspace.folder / "thumbnail.jpg") as temporary:
        image.save(temporary, quality=80)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the process of a worker; its only argument are options as JSON."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="%(message)s")
    keep_networks(_NETWORKS)
    return serve(run_stage, arguments)


if __name__ == "__main__":
    sys.exit(main())
