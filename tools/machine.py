"""The hardware, versions and commit with which figures were measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe_command", "describe_machine"]

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("torch", "gsplat", "numpy", "numba", "scipy", "scikit-learn", "roma", "pytest")


def describe_machine(
    commit: str | None = None, code: tuple[str, ...] = ("msdyn", "tools")
) -> dict[str, Any]:
    """Return the GPU (None without CUDA), the processor, the versions and the commit.

    Args:
        commit: reported instead of the one of git.
        code: the measured folders; `changed` tells whether they differ from the commit.
    """
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    card = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        card = {
            "name": properties.name,
            "bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    return {
        "card": card,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,  # pyright: ignore[reportAttributeAccessIssue]
        "versions": versions,
        "commit": commit or _output("git", "rev-parse", "HEAD"),
        "changed": bool(_output("git", "status", "--porcelain", "--untracked-files=no", *code)),
    }


def describe_command(tool: str, arguments: list[str]) -> str:
    """Return the command of a tool, to be kept beside its figures.

    Folders of this machine say nothing elsewhere: of absolute paths the last part is kept.
    """
    kept = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    return shlex.join(["python", f"tools/{tool}", *kept])


def _processor() -> str:
    """Return the name of the processor, and its widest vector instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"model name\s*: (.*)", text)
    widest = next((flag for flag in ("avx512f", "avx2", "asimd") if flag in text), "")
    return f"{name.group(1) if name else platform.machine()} {widest}".strip()


def _output(*command: str) -> str | None:
    try:
        run = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()
