"""Converters of public data sets to clips, one a module: each registers itself.

All modules here are imported. `docs/training_data_sets.md` describes the layouts.
"""

from msdyn.feedforward.data.convert.registry import (
    Converter,
    LazyClips,
    converter_names,
    find_converter,
    register_converter,
)
from msdyn.plugins import import_submodules

__all__ = ["Converter", "LazyClips", "converter_names", "find_converter", "register_converter"]

import_submodules(__name__)
