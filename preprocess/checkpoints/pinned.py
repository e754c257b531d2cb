"""Small files of weights at fixed addresses, checked by their digests.

A file is searched for in the folder that the environment variable MSDYN_WEIGHTS names, then in the
cache (`$XDG_CACHE_HOME/msdyn/weights`, by default `~/.cache/msdyn/weights`), where it is put when
it has been fetched. No account is needed.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from msdyn.errors import InputError
from msdyn.preprocess.checkpoints.huggingface import TIMEOUT_SECONDS, Availability
from msdyn.preprocess.checkpoints.torch_hub import one_line
from msdyn.reading import read_bytes
from msdyn.writing import atomic_path, of_one_process

__all__ = ["PINNED", "PinnedFile", "find_pinned", "pinned_path"]

_log = logging.getLogger(__name__)

_FAILURES = (OSError, http.client.HTTPException, ValueError)  # urllib's errors are OSErrors


@dataclass(frozen=True)
class PinnedFile:
    """A file of weights.

    Attributes:
        name: of the checkpoint.
        file: name on disk.
        url: where it is fetched.
        sha256: its digest.
        size: bytes.
        licence: of the weights.
    """

    name: str
    file: str
    url: str
    sha256: str
    size: int
    licence: str


PINNED = {
    pinned.name: pinned
    for pinned in (
        PinnedFile(
            "tcmonodepth-small",
            "tcmonodepth_ckpt_small.pt.tar",
            "https://raw.githubusercontent.com/yu-li/TCMonoDepth/"
            "128a98c6478bfe5541c8eecfe7bc3f7459861b3b/weights/_ckpt_small.pt.tar",
            "c7a87f34a432d11b831d9d27c531eaaef90e0282e2f8a7b87c0202b80ad76b2b",
            914_272,
            "MIT",
        ),
        PinnedFile(
            "u2netp",
            "u2netp.onnx",
            "https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2netp.onnx",
            "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
            4_574_861,
            "Apache-2.0",
        ),
    )
}


def find_pinned(name: str, *, offline: bool) -> Availability:
    """Return whether a file of `PINNED` is available; `offline`, without opening a socket.

    With the environment variable HF_HUB_OFFLINE=1 no socket is opened either.
    """
    pinned = PINNED[name]
    if _on_disk(pinned):
        return Availability("cached", "on this disk")
    if offline:
        return Availability("no", "not on this disk, and nothing is fetched with --preset offline")
    if os.environ.get("HF_HUB_OFFLINE", "0") == "1":
        return Availability("no", "not on this disk, and HF_HUB_OFFLINE is set")
    request = urllib.request.Request(pinned.url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            pass
    except _FAILURES as error:
        return Availability("no", f"not on this disk, and not to be fetched ({one_line(error)})")
    return Availability("online", f"to be fetched, {pinned.size / 1e6:.1f} MB")


def pinned_path(name: str, *, offline: bool) -> Path:
    """Return the path of a file of `PINNED`, which is fetched if it is not on disk.

    Raises:
        InputError: it cannot be had, or is not the file that is expected.
    """
    pinned = PINNED[name]
    found = _on_disk(pinned)
    if found:
        _check(pinned, read_bytes(found), str(found))
        return found
    advice = f"put {pinned.file} into a folder and set MSDYN_WEIGHTS to it, from {pinned.url}"
    if offline:
        raise InputError(f"{name}: not on this disk, and nothing is fetched offline; {advice}")
    with of_one_process(pinned.url):
        # Unless another process has fetched it meanwhile.
        return _on_disk(pinned) or _fetch(pinned, name, advice)


def _fetch(pinned: PinnedFile, name: str, advice: str) -> Path:
    """Fetch a file; return its path."""
    _log.warning(
        "fetching %s (%.1f MB, licence: %s) from %s",
        name,
        pinned.size / 1e6,
        pinned.licence,
        pinned.url,
    )
    try:
        with urllib.request.urlopen(pinned.url, timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read(pinned.size + 1)
    except _FAILURES as error:
        raise InputError(f"{name}: cannot be fetched ({one_line(error)}); {advice}") from error
    _check(pinned, content, pinned.url)
    path = _cache() / pinned.file
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "msdyn" / "weights"


def _on_disk(pinned: PinnedFile) -> Path | None:
    """Return where a file is on this disk."""
    given = os.environ.get("MSDYN_WEIGHTS")
    folders = ([Path(given)] if given else []) + [_cache()]
    return next(
        (folder / pinned.file for folder in folders if (folder / pinned.file).is_file()), None
    )


def _check(pinned: PinnedFile, content: bytes, source: str) -> None:
    """Raise unless a file is the one that is expected."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != pinned.sha256:
        raise InputError(
            f"{source}: not the expected file of weights: SHA-256 {pinned.sha256[:12]}... "
            f"expected, {digest[:12]}... found ({len(content)} bytes); remove it"
        )
