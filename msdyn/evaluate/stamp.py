"""What every figure is stamped with: the version of the code that made it."""

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
    """Return the versions of msdyn and what it computes with, and the commit of a checkout.

    `commit` ends on "-dirty" where files differ from it, and is None for an installed package.

    Args:
        checkout: folder that this package lies in.
    """
    return {
        "msdyn": __version__,
        "commit": _commit(checkout),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _commit(root: Path) -> str | None:
    # A package installed into a folder of someone else's repository has no commit of its own.
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
