"""Stages for tests of batches: what happens is in the uri of the clip, as `crash@fit` or `ok`.

Run as a script it is the process of a worker, as `msdyn.cli.batch_worker` is.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from msdyn.batch import StageResult, WorkerOptions, serve  # noqa: E402

COMMAND = (sys.executable, str(Path(__file__).resolve()))


def options(out, scratch="", **given):
    return WorkerOptions(str(out), str(scratch), command=COMMAND, **given)


def run_stage(work):
    kind, _, where = work.clip.uri.rpartition("/")[2].partition("@")
    scene = work.workspace.scene
    scene.mkdir(parents=True, exist_ok=True)
    print(f"{work.stage} of {work.clip.id}, {work.preprocess!r}")
    print(f"GPU of {work.stage}: {os.environ.get('CUDA_VISIBLE_DEVICES', '')}")
    if where == work.stage or (where == "first" and work.stage == "fit" and not work.smaller):
        match kind:
            case "crash":
                os.abort()
            case "raise":
                raise RuntimeError("an unexpected\nerror")
            case "eat":
                held = []
                while True:
                    held.append(bytearray(b"x") * (16 << 20))
                    time.sleep(0.01)
            case "hang":
                time.sleep(1000)
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "bad":
                return StageResult("bad-input", error_class="InputError", error="bad: it is bad")
            case "poor":
                return StageResult("poor", "poor", error_class="PoorInputError", error="poor")
    if kind == "slow":
        time.sleep(float(where))
    name = f"{work.stage}-small" if work.smaller else work.stage
    # Not with what an interrupted try of the same stage has left.
    others = sorted(path for path in scene.iterdir() if path.name != name)
    before = "".join(path.read_text() for path in others)
    (scene / name).write_text(f"{work.clip.id} {work.stage} {len(before)}\n")
    psnr = 20.0 + len(work.clip.id) if work.stage == "evaluate" else None
    return StageResult(verdict="good", psnr=psnr)


if __name__ == "__main__":
    sys.exit(serve(run_stage, sys.argv[1:]))
