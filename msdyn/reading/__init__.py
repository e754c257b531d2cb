"""Reading files that anybody may have made: one reader for each container, limits before memory.

Nothing read here is executed, and every failure is an `InputError` of one line.
"""

from msdyn.reading.arrays import (
    Blocks,
    load_npz,
    npz_keys,
    npz_shape,
    read_npy,
    row_slices,
    stream_npz,
)
from msdyn.reading.exr import read_exr
from msdyn.reading.file_names import natural_order
from msdyn.reading.guard import reading, reason, required_file, shown
from msdyn.reading.hdf5 import load_h5py, read_hdf5
from msdyn.reading.images import image_size, opened_image, read_pixels, read_png16, read_rgb
from msdyn.reading.limits import (
    LARGEST_SIDE,
    LARGEST_TEXT,
    MOST_FRAMES,
    MOST_PIXELS,
    check_bytes,
    check_image_size,
    check_packed,
    memory_bytes,
)
from msdyn.reading.packed import load_robots, unpack_lzfse
from msdyn.reading.parquet import ParquetFile, load_pyarrow, opened_parquet
from msdyn.reading.recordings import RecordedMessage, Recording, Topic
from msdyn.reading.stored import StoredTensors
from msdyn.reading.tensors import (
    OtherFormatError,
    is_safetensors,
    read_safetensors,
    read_torch,
    safetensors_header,
)
from msdyn.reading.text import (
    as_schema,
    decode_json,
    opened_file,
    read_bytes,
    read_gzipped_json,
    read_json,
    read_json_as,
    read_lines,
    read_text,
)
from msdyn.reading.video import opened_video
from msdyn.reading.zips import ZipMembers, opened_zip

__all__ = [
    "read_gzipped_json",
    "read_png16",
    "read_hdf5",
    "load_h5py",
    "LARGEST_SIDE",
    "LARGEST_TEXT",
    "MOST_FRAMES",
    "MOST_PIXELS",
    "Blocks",
    "OtherFormatError",
    "ParquetFile",
    "RecordedMessage",
    "Recording",
    "StoredTensors",
    "Topic",
    "ZipMembers",
    "is_safetensors",
    "as_schema",
    "check_bytes",
    "check_image_size",
    "check_packed",
    "decode_json",
    "image_size",
    "load_npz",
    "load_robots",
    "load_pyarrow",
    "memory_bytes",
    "natural_order",
    "npz_keys",
    "npz_shape",
    "opened_file",
    "opened_image",
    "opened_parquet",
    "opened_video",
    "opened_zip",
    "read_bytes",
    "read_exr",
    "read_json",
    "read_json_as",
    "read_lines",
    "read_npy",
    "read_pixels",
    "read_rgb",
    "read_safetensors",
    "read_text",
    "read_torch",
    "reading",
    "reason",
    "required_file",
    "row_slices",
    "safetensors_header",
    "shown",
    "stream_npz",
    "unpack_lzfse",
]
