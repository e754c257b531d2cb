"""Still images: PNG, JPEG, BMP, TIFF, WebP."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16

from msdyn.errors import InputError
from msdyn.reading.guard import reading, required_file
from msdyn.reading.limits import check_image_size

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["image_size", "opened_image", "read_pixels", "read_png16", "read_rgb"]

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")  # JPEG includes MPO, of several images


@contextlib.contextmanager
def opened_image(
    source: str | os.PathLike | bytes,
    name: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    cure: str = "",
) -> Iterator[Image]:
    """Open an image for decoding in the block; whatever fails there is an `InputError`.

    Args:
        source: a file, or the content of one.
        name: of the image, for messages; that of the file by default.
        size: (height, width) that it must have.
        cure: what to do about a missing file, appended to the message.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a readable image, too large, or of another size.
    """
    import PIL.Image

    file = io.BytesIO(source) if isinstance(source, bytes) else required_file(source, cure)
    name = str(file) if name is None else name
    with reading(name, "image"), warnings.catch_warnings():
        # Our limit is checked instead, and what libraries say of damaged files is in the error.
        warnings.simplefilter("ignore")
        with PIL.Image.open(file, formats=_FORMATS) as image:
            check_image_size(*image.size, name)
            if size is not None and image.size != size[::-1]:
                raise InputError(
                    f"{name}: expected {size[1]}x{size[0]} px, got {image.size[0]}x{image.size[1]}"
                )
            yield image


def image_size(source: str | os.PathLike | bytes, name: str | None = None) -> tuple[int, int]:
    """Return the width and height of an image, without decoding it.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not a readable image.
    """
    with opened_image(source, name) as image:
        return image.size


def read_pixels(
    source: str | os.PathLike | bytes,
    name: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    cure: str = "",
) -> Shaped[np.ndarray, "height width *channels"]:
    """Return the values of an image as they are stored: of a palette image, the indices.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: see `opened_image`.
    """
    with opened_image(source, name, size=size, cure=cure) as image:
        return np.array(image)


def read_rgb(
    source: str | os.PathLike | bytes, name: str | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image converted to RGB; transparency is dropped.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: see `opened_image`.
    """
    with opened_image(source, name) as image:
        return np.array(image.convert("RGB"))


def read_png16(path: str | os.PathLike) -> UInt16[np.ndarray, "height width"]:
    """Return the values of an image of one 16-bit channel.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: another kind of image; see `opened_image`.
    """
    image = read_pixels(path)
    if image.ndim != 2 or image.dtype not in (np.uint16, np.int32):
        raise InputError(f"{path}: expected one 16-bit channel, got {image.dtype} {image.shape}")
    if image.min() < 0 or image.max() > 65535:
        raise InputError(f"{path}: expected values of 16 bits, got {image.min()} to {image.max()}")
    return image.astype(np.uint16)
