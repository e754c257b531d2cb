"""Drivers of batches for tests, with the stages of `batch_stages`.

`python batch_driver.py MANIFEST OUT [I/N] [ray] [gpus]` runs a manifest.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from batch_stages import options  # noqa: E402

from msdyn.batch import LocalEngine, RetryConfig, RunConfig, read_rows, retry_batch, run_batch  # noqa: E402
from msdyn.batch.store import Store  # noqa: E402

LIMITS = {"max_memory": 400_000_000, "time_limit": 3.0}


def run(manifest, out, shard=None, engine=None, **given):
    """Run a manifest on two workers; return the summary."""
    engine = engine or LocalEngine(options(out, **LIMITS), 2)
    return run_batch(RunConfig(str(manifest), str(out), shard=shard, **given), engine)


def retry(out, *only, **limits):
    """Run clips in quarantine again."""
    return retry_batch(RetryConfig(str(out), only), LocalEngine(options(out, **LIMITS | limits), 2))


def ends(out):
    """Return what came of each clip: all but times, of rows that are not of lost workers."""
    rows = [row for row in read_rows(Store(str(out))) if row.state != "lost"]
    found = {}
    for row in rows:
        facts = (row.round, row.attempt, row.stage, row.state, row.verdict, row.psnr, row.ended)
        found.setdefault(row.clip, []).append((*facts, row.error_class, row.smaller, row.metadata))
    return found


def contents(out):
    """Return the results of all clips: names and contents of the files in their scenes."""
    files = (path for path in Path(out).glob("clips/*/scene/**/*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


if __name__ == "__main__":
    manifest, out, *rest = sys.argv[1:]
    shard = next((text for text in rest if "/" in text), None)
    if "ray" in rest:
        from msdyn.batch.ray_engine import RayEngine, connect

        ray, _ = connect(None, 4, 2 if "gpus" in rest else 0)  # GPUs that are not there
        run(manifest, out, shard, RayEngine(ray, options(out, **LIMITS), 2))
    else:
        run(manifest, out, shard)
