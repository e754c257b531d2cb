"""The provenance of reported figures: versions and commit of the code."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msdyn.version import __version__

__all__ = ["code_stamp"]

CHECKOUT = Path(__file__).resolve().parents[2]


def code_stamp(checkout: Path = CHECKOUT) -> dict[str, Any]:
    """Return the versions of msdyn, torch and numpy, and the commit of a checkout.

    `commit` ends on "-dirty" if files differ from it, and is None for an installed package.

    Args:
        checkout: folder that contains this package.
    """
    return {
        "msdyn": __version__,
        "commit": _commit(checkout),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _commit(root: Path) -> str | None:
    # Without this test, git would report the commit of any repository that contains the folder.
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
