"""OpenEXR images."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Shaped

from msdyn.errors import InputError, MissingExtraError
from msdyn.reading.guard import reading, required_file
from msdyn.reading.limits import check_bytes, check_image_size, check_packed

__all__ = ["read_exr"]

_LARGEST_SAMPLE = 4
"""Bytes of a value of a channel: half, float or uint."""


def read_exr(path: str | os.PathLike) -> dict[str, Shaped[np.ndarray, "height width *channels"]]:
    """Return the channels of an EXR by name; R, G, B (and A) are one, `RGB` or `RGBA`.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a readable EXR, one with several samples per pixel, or too large.
        MissingExtraError: OpenEXR is not installed.
    """
    path = required_file(path)
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: reading EXR needs OpenEXR: pip install 'msdyn[preprocess]'"
        ) from error
    with reading(path, "EXR"):
        # OpenEXR allocates what the header declares, of all parts.
        with _silent(), OpenEXR.File(str(path), header_only=True) as file:
            size = sum(_declared_bytes(part.header) for part in file.parts)
        check_bytes(size, str(path))
        check_packed(path.stat().st_size, size, str(path))
        with _silent(), OpenEXR.File(str(path)) as file:
            return {name: channel.pixels for name, channel in file.channels().items()}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drop what the library itself writes about a damaged file to the standard output and error."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        for stream, descriptor in ((sys.__stdout__, 1), (sys.stderr, 2)):
            if stream is not None:
                stream.flush()
            kept, nowhere = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, descriptor)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
        yield


def _declared_bytes(header: dict[str, Any]) -> int:
    """Return the bytes of the pixels of a part of a file, after checking its size."""
    if "deep" in str(header["type"]):
        raise InputError("expected one sample per pixel, got a deep image")
    (left, top), (right, bottom) = (corner.tolist() for corner in header["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    check_image_size(width, height, "dataWindow")
    return width * height * len(header["channels"]) * _LARGEST_SAMPLE
