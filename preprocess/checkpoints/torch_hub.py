"""Networks and weights by torch hub: of a repository on GitHub, or a folder, with `hubconf.py`.

Their code runs, so both are named on the command line or by our own list, at a pinned commit, and
never by a file of a scene. Weights at an address are checked by their digest.
"""

from __future__ import annotations

import hashlib
import logging
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msdyn.errors import InputError
from msdyn.preprocess.checkpoints.kept import stays_loaded
from msdyn.preprocess.checkpoints.names import REPOSITORY, folder_of
from msdyn.reading import read_torch
from msdyn.writing import of_one_process

__all__ = [
    "HUB",
    "HubRepository",
    "HubWeights",
    "hub_weights",
    "load_from_hub",
    "one_line",
    "weights_on_disk",
]

_log = logging.getLogger(__name__)
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")


@dataclass(frozen=True)
class HubWeights:
    """A file of weights at an address.

    Attributes:
        url: where it is fetched.
        licence: of the weights.
        sha256: its digest; by default the first digits of it, from the end of the file's name.
    """

    url: str
    licence: str
    sha256: str = ""

    @property
    def digest(self) -> str:
        """The digest, or its first digits."""
        if self.sha256:
            return self.sha256
        found = _DIGEST_IN_NAME.search(self.name)
        assert found is not None, f"{self.name} has no digest"
        return found[1]

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def path(self) -> Path:
        """Where torch hub keeps the file."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.name


@dataclass(frozen=True)
class HubRepository:
    """A repository of our list, whose code may run.

    Attributes:
        repo: "owner/name" on GitHub.
        commit: the only one that is used.
        licence: of the code.
        weights: the files that its code loads.
    """

    repo: str
    commit: str
    licence: str
    weights: tuple[HubWeights, ...] = ()

    @property
    def folder(self) -> Path:
        """Where torch hub keeps the code."""
        return _folder(self.repo, self.commit)


HUB = {
    hub.repo: hub
    for hub in (
        HubRepository(
            "facebookresearch/co-tracker",
            "82e02e8029753ad4ef13cf06be7f4fc5facdda4d",
            "CC-BY-NC-4.0",
            (
                HubWeights(
                    "https://huggingface.co/facebook/cotracker3/resolve/main/scaled_offline.pth",
                    "CC-BY-NC-4.0",
                    "2670d4562ed69326dda775a26e54883925cd11b6fc9b24cb7aa9f8078bce7834",
                ),
            ),
        ),
    )
}


def _fetch(weights: HubWeights) -> None:
    _log.warning("fetching %s (licence: %s)", weights.url, weights.licence)
    weights.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(
            weights.url, str(weights.path), weights.digest, progress=False
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{weights.url}: cannot be fetched ({one_line(error)})") from error


@stays_loaded
def load_from_hub(model: str, entry: str, *, offline: bool) -> nn.Module:
    """Return a network from a folder, from torch hub's cache on disk, or from GitHub.

    Args:
        model: a folder with a `hubconf.py`, or a repository, `owner/name` or `owner/name:commit`.
        entry: the function of `hubconf.py` that makes the network.
        offline: fetch nothing.

    Raises:
        InputError: it cannot be loaded, or a file of weights is not the expected one.
    """
    folder = None if model in HUB else folder_of(model)
    if folder is not None:
        return _load(model, entry, str(folder.resolve()), source="local")
    if not REPOSITORY.fullmatch(model):
        raise InputError(
            f"{model}: no such folder; expected a folder with a hubconf.py, or a repository on "
            "GitHub as owner/name:commit"
        )
    repo, _, revision = model.partition(":")
    known = HUB.get(model)
    revision = known.commit if known else revision
    for weights in known.weights if known else ():
        weights_on_disk(weights, offline=offline)
    cached = _folder(repo, revision or "main")
    if cached.is_dir() and (revision or offline):
        return _load(model, entry, str(cached), source="local")
    if offline:
        raise InputError(f"{model}: not on this disk, and nothing is fetched offline")
    licence = known.licence if known else "unknown, see its page"
    at = revision or f"its newest commit, which is not pinned ({repo}:COMMIT is)"
    _log.warning("fetching the code of %s (licence: %s) from GitHub at %s", repo, licence, at)
    with of_one_process(f"{repo}:{revision}"):
        # torch hub looks a revision up among the branches; a commit is none.
        return _load(
            model,
            entry,
            f"{repo}:{revision}" if revision else repo,
            trust_repo=True,
            skip_validation=bool(revision),
        )


def _load(model: str, entry: str, place: str, **options: Any) -> nn.Module:
    load: Any = torch.hub.load  # its type stub does not know all options
    try:
        return load(place, entry, verbose=False, **options)
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        raise InputError(f"{model}: cannot be loaded by torch hub ({one_line(error)})") from error


def _folder(repo: str, revision: str) -> Path:
    """Return the folder in which torch hub keeps a revision of a repository."""
    return Path(torch.hub.get_dir()) / f"{repo}_{revision}".replace("/", "_")


def hub_weights(weights: HubWeights, *, offline: bool) -> dict[str, Tensor]:
    """Return the weights of a file, from torch hub's folder once it has been fetched.

    Raises:
        InputError: it is not on disk and cannot be fetched, or is not the expected file.
    """
    return read_torch(weights_on_disk(weights, offline=offline), "file of weights")


def weights_on_disk(weights: HubWeights, *, offline: bool) -> Path:
    """Return the path of a file of weights in torch hub's folder, fetched if it is not there.

    Raises:
        InputError: it is not on disk and cannot be fetched, or is not the expected file.
    """
    path = weights.path
    if not path.is_file():
        if offline:
            raise InputError(f"{weights.name}: not on this disk, and nothing is fetched offline")
        with of_one_process(weights.url):
            if not path.is_file():  # nor has another process fetched it
                _fetch(weights)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(weights.digest):
        raise InputError(
            f"{path}: not the expected file of weights: SHA-256 {weights.digest[:12]}... "
            f"expected, {digest[:12]}... found; remove it"
        )
    return path


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
