"""Networks and weights by torch hub: of a repository on GitHub, or a folder, with `hubconf.py`."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msdyn.errors import InputError

__all__ = ["hub_weights", "load_from_hub", "one_line"]


def load_from_hub(model: str, entry: str, *, offline: bool) -> nn.Module:
    """Return a network from a folder, from torch hub's cache on disk, or from GitHub.

    Args:
        model: a folder with a `hubconf.py`, or a repository ("owner/name").
        entry: the function of `hubconf.py` that makes the network.
        offline: fetch nothing.

    Raises:
        InputError: it cannot be loaded.
    """
    folder = Path(model)
    if not folder.is_dir() and offline:
        folder = Path(torch.hub.get_dir()) / f"{model.replace('/', '_')}_main"
        if not folder.is_dir():
            raise InputError(f"{model}: not on this disk, and nothing is fetched offline")
    try:
        if folder.is_dir():
            local: Any = torch.hub.load(str(folder), entry, source="local", verbose=False)
            return local
        trust: Any = True  # the type stub knows "check" only
        fetched: Any = torch.hub.load(model, entry, trust_repo=trust, verbose=False)
        return fetched
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        raise InputError(f"{model}: cannot be loaded by torch hub ({one_line(error)})") from error


def hub_weights(url: str, *, offline: bool) -> dict[str, Tensor]:
    """Return the weights at an address, from torch hub's folder once they have been fetched.

    Raises:
        InputError: they are not on disk and cannot be fetched.
    """
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
    """Return the message of an exception, in one line of moderate length.

    Of any exception that a failed look-up of a host name has caused, that there is no connection.
    """
    causes: list[object] = [error]
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "no connection to the network"
        if isinstance(cause, BaseException):
            more = (cause.__cause__, cause.__context__, getattr(cause, "reason", None))
            causes += [one for one in more if one is not None and one not in causes]
    text = re.sub(r"\[Errno -?\d+\] ", "", " ".join(str(error).split()))
    return text.removeprefix("<urlopen error ")[:160] or type(error).__name__
