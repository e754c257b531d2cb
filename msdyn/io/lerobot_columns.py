"""Values of features of a LeRobotDataset, as numpy arrays and as columns of its tables.

A feature of shape (1,) is a scalar per frame, one of shape (n,) a list of fixed length, one of more
dimensions a list of lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from msdyn.errors import InputError
from msdyn.reading import check_bytes, load_pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["column_values", "feature_column"]


def column_values(table: pa.Table, name: str) -> Shaped[np.ndarray, "frames ..."]:
    """Return the values of a column as an array, of texts as an array of texts.

    Args:
        table: rows of frames.
        name: of the column.

    Raises:
        InputError: a value is missing, lists of differing lengths, or values that are neither
            numbers, texts nor lists of numbers.
    """
    pa = load_pyarrow()
    column = table.column(name).combine_chunks()
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(values, pa.ExtensionArray):  # where the package datasets is imported
        values = values.storage
    shape = [table.num_rows]
    while pa.types.is_nested(values.type):
        if not (pa.types.is_list(values.type) or _is_other_list(pa, values.type)):
            raise InputError(f"{name}: expected numbers, texts or lists of them, got {values.type}")
        if values.null_count:
            raise InputError(f"{name}: expected a value in every frame")
        flat = values.flatten()
        length, rest = divmod(len(flat), max(len(values), 1))
        lengths = np.unique(np.asarray(values.value_lengths()))
        if rest or not set(lengths.tolist()) <= {length}:
            raise InputError(f"{name}: expected lists of one length, got {lengths.tolist()[:5]}")
        shape.append(length)
        values = flat
    if values.null_count:
        raise InputError(f"{name}: expected a value in every frame")
    if pa.types.is_dictionary(values.type):
        texts = np.array(values.dictionary.to_pylist(), str)
        check_bytes(len(values) * texts.itemsize, name)
        flat_values = texts[np.asarray(values.indices)] if len(texts) else np.array([], str)
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        flat_values = np.array(values.to_pylist(), str)
    else:
        flat_values = values.to_numpy(zero_copy_only=False)
    if flat_values.dtype.kind not in "biufU":
        raise InputError(f"{name}: expected numbers or texts, got {values.type}")
    return flat_values.reshape(shape)


def feature_column(
    values: Shaped[np.ndarray, "frames ..."], dtype: str, shape: tuple[int, ...]
) -> pa.Array:
    """Return the column of a feature.

    Args:
        values: of all frames; of a feature of shape (1,) also without that dimension.
        dtype: of the feature, "string" or numpy's name.
        shape: of the feature.

    Raises:
        InputError: values of another shape or type.
    """
    pa: Any = load_pyarrow()
    frames = len(values)
    if values.shape[1:] != shape and not (shape == (1,) and values.ndim == 1):
        raise InputError(f"expected values of shape {shape}, got {values.shape[1:]}")
    if dtype == "string":
        return pa.array([str(value) for value in values.reshape(frames)], pa.string())
    if values.dtype != np.dtype(dtype):
        raise InputError(f"expected values of type {dtype}, got {values.dtype}")
    column = pa.array(np.ascontiguousarray(values).reshape(-1))
    if shape == (1,):
        return column
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(column, shape[0])
    for axis in range(len(shape) - 1, -1, -1):
        lists = frames * int(np.prod(shape[:axis], dtype=np.int64))
        offsets = np.arange(lists + 1, dtype=np.int64) * shape[axis]
        if offsets[-1] >= 2**31:
            raise InputError(f"expected fewer than {2**31} values in an episode")
        column = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), column)
    return column


def _is_other_list(pa: Any, kind: Any) -> bool:
    return pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)
