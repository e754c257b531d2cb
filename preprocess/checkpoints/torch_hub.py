"""Networks by torch hub: a repository on GitHub, or a folder, with a `hubconf.py`; and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msdyn.errors import InputError

__all__ = ["hub_weights", "load_from_hub", "one_line"]


def load_from_hub(model: str, entry: str, *, offline: bool) -> Any:
    """Load a network from a folder, from what torch hub has on disk, or from GitHub.

    Args:
        model: a folder with a `hubconf.py`, or a repository ("owner/name").
        entry: the function of `hubconf.py` that makes the network.
        offline: fetch nothing.

    Raises:
        InputError: it cannot be had.
    """
    import torch

    folder = Path(model)
    if not folder.is_dir() and offline:
        folder = Path(torch.hub.get_dir()) / f"{model.replace('/', '_')}_main"
        if not folder.is_dir():
            raise InputError(f"{model}: not on this disk, and nothing is fetched offline")
    try:
        if folder.is_dir():
            return torch.hub.load(str(folder), entry, source="local", verbose=False)
        # The type stub knows trust_repo="check" only.
        trust: Any = True
        return torch.hub.load(model, entry, trust_repo=trust, verbose=False)
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        raise InputError(f"{model}: cannot be loaded by torch hub ({one_line(error)})") from error


def hub_weights(url: str, *, offline: bool) -> dict[str, Any]:
    """Return the weights at an address, from torch hub's folder once they have been fetched.

    Raises:
        InputError: they cannot be had.
    """
    import torch

    name = url.rsplit("/", 1)[-1]
    if offline and not (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file():
        raise InputError(f"{name}: not on this disk, and nothing is fetched offline")
    try:
        return torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, weights_only=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{url}: cannot be fetched ({one_line(error)})") from error


def one_line(error: BaseException) -> str:
    """Return what an exception says, in one line of moderate length."""
    return " ".join(str(error).split())[:160] or type(error).__name__
