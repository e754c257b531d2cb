"""What a fit is made of, its options and the files it reads, and what has changed in it since."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msdyn.fit.config import FitConfig
from msdyn.scene import Scene, frame_path

__all__ = ["differences", "fingerprint"]

# Options that do not change the result; a fit with other values of them can resume.
_IRRELEVANT = ("scene", "out", "restart", "device", "max_memory", "log")
# Options whose name on the command line has no prefix.
_WITHOUT_PREFIX = "motion."
_FRAMES = {"images": ".png", "depth": ".npy", "depth_confidence": ".png", "masks": ".png"}
_FILES = ("tracks.npz", "cameras.json")
_SHOWN = 3


def fingerprint(scene: Scene, config: FitConfig) -> dict[str, dict[str, Any]]:
    """Return a JSON value that is equal for fits with equal options to scenes of equal content.

    The files are hashed whole: sizes and times may stay the same when a file is edited. That takes
    a second for each gigabyte or two, and the fit reads the same files anyway.

    Args:
        scene: the scene directory, with the prediction, if the fit starts from that.
        config: the options.
    """
    options = _flat({k: v for k, v in asdict(config).items() if k not in _IRRELEVANT})
    info, directory = scene.info, scene.directory
    by_kind = config.refine in ("auto", "joint")
    backend = info.stages.get("cameras", {}).get("backend") if by_kind else None
    files: dict[str, Any] = {
        "timestamps": hashlib.blake2b(info.timeline.seconds.tobytes(), digest_size=16).hexdigest(),
        "image size": [info.width, info.height],
        "world units": info.world_units,
        "kind of cameras": backend,
    }
    for name, suffix in _FRAMES.items():
        folder = directory / name
        files[name] = _digest([frame_path(folder, n, suffix) for n in range(len(scene))])
    for name in _FILES:
        files[name] = _digest([directory / name])
    if config.init != "tracks":
        files["prediction"] = _digest([directory / "predict" / "sequence.safetensors"])
    return {"options": json.loads(json.dumps(options, default=str)), "scene": files}


def differences(old: Any, new: dict[str, dict[str, Any]]) -> str:
    """Return in words what differs between the fingerprints of a checkpoint and of a fit.

    Empty if nothing does.
    """
    if old == new:
        return ""
    if not isinstance(old, dict) or any(not isinstance(old.get(key), dict) for key in new):
        return "the checkpoint is of another version of msdyn"
    changed = [k for k, v in new["scene"].items() if old["scene"].get(k) != v]
    changed += [k for k in old["scene"] if k not in new["scene"]]
    words = []
    if changed:
        words.append(f"{_some(changed)} of the scene changed")
    was, now = old["options"], new["options"]
    names = [name for name in {**now, **was} if was.get(name) != now.get(name)]
    if names:
        words.append(
            _some([f"{_option(k)} was {was.get(k, 'not there')}, is {now.get(k)}" for k in names])
        )
    return "; ".join(words)


def _some(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _option(name: str) -> str:
    return "--" + name.removeprefix(_WITHOUT_PREFIX).replace("_", "-")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dots in the names."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _digest(paths: list[Path]) -> str:
    """Return the digest of files; of one that is not there, that it is not."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        if not path.is_file():
            digest.update(b"\0")
            continue
        digest.update(b"\1" + path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
