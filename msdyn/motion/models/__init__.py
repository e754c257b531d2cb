"""Motion models, one a module: each registers itself, and all modules here are imported."""

from msdyn.plugins import import_submodules

import_submodules(__name__)
