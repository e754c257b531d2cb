"""Writing files and folders: atomically, by one process at a time, with errors of the disk told.

What is written here for equal values has equal bytes.
"""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.writing.disk import disk_error, require_space
    from msdyn.writing.files import (
        atomic_path,
        refuse_links,
        scratch_folder,
        temporary_path,
        without_nan,
        write_json,
    )
    from msdyn.writing.locks import LOCK, forsake_lock, writing_to
    from msdyn.writing.machine_lock import of_one_process
    from msdyn.writing.step_log import StepLog
    from msdyn.writing.tensor_files import write_tensors

__all__ = [
    "LOCK",
    "StepLog",
    "atomic_path",
    "disk_error",
    "forsake_lock",
    "of_one_process",
    "refuse_links",
    "require_space",
    "scratch_folder",
    "temporary_path",
    "without_nan",
    "write_json",
    "write_tensors",
    "writing_to",
]

__getattr__ = lazy_names(
    __name__,
    {
        "disk": (
            "disk_error",
            "require_space",
        ),
        "files": (
            "atomic_path",
            "refuse_links",
            "scratch_folder",
            "temporary_path",
            "without_nan",
            "write_json",
        ),
        "locks": (
            "LOCK",
            "forsake_lock",
            "writing_to",
        ),
        "machine_lock": ("of_one_process",),
        "step_log": ("StepLog",),
        "tensor_files": ("write_tensors",),
    },
)
