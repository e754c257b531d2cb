"""HDF5 files."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Shaped

from msdyn.errors import InputError, MissingExtraError
from msdyn.reading.guard import reading, required_file
from msdyn.reading.limits import check_bytes, check_packed

__all__ = ["load_h5py", "read_hdf5"]


def load_h5py() -> Any:
    """Return the module h5py.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("h5py")
    except ImportError as error:
        raise MissingExtraError('h5py is not installed: pip install "msdyn[datasets]"') from error


def read_hdf5(path: str | os.PathLike, key: str) -> Shaped[np.ndarray, "*_"]:
    """Return an array of an HDF5 file that holds it; links to other files are not followed.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: not an HDF5 file, there is no such array, or it is larger than the memory.
        MissingExtraError: h5py is not installed.
    """
    h5py = load_h5py()
    path = required_file(path)
    with reading(path, f"HDF5 file of {key}"), h5py.File(path, "r") as file:
        if not isinstance(file.get(key, getlink=True), h5py.HardLink):
            raise InputError(f"{key}: expected an array in this file, found none")
        values = file[key]
        if not isinstance(values, h5py.Dataset) or values.external or values.is_virtual:
            raise InputError(f"{key}: expected an array in this file")
        check_bytes(values.nbytes, key)
        check_packed(path.stat().st_size, values.nbytes, key)
        return np.asarray(values[()])
