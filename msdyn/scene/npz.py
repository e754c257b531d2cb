"""Writing npz files; `msdyn.reading` reads them."""

from __future__ import annotations

import os
import zipfile
from io import BufferedIOBase
from typing import IO

import numpy as np
from jaxtyping import Shaped

from msdyn.reading import Blocks
from msdyn.writing import atomic_path

__all__ = ["save_npz"]


def save_npz(path: str | os.PathLike, **arrays: Shaped[np.ndarray, "*_"] | Blocks) -> None:
    """Write arrays as a compressed npz, atomically. Equal arrays give equal bytes."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_array(member, array)


def _write_array(
    member: BufferedIOBase | IO[bytes], array: Shaped[np.ndarray, "*_"] | Blocks
) -> None:
    if not isinstance(array, Blocks):
        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        return
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": False,
        "shape": array.shape,
    }
    np.lib.format.write_array_header_1_0(member, header)
    for block in array:
        member.write(block.astype(array.dtype, copy=False).tobytes())
