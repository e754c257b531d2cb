"""Checkpoints of foundation models: licences, availability, and loading them.

A checkpoint is a name on the Hugging Face hub or a folder that `save_pretrained` wrote. It is
fetched only when a stage runs for which the user or the preset chose it, at the revision that is
pinned here. It is weights and numbers: code of a repository on the hub is never run.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from msdyn.errors import InputError, MissingExtraError
from msdyn.preprocess.checkpoints.kept import stays_loaded
from msdyn.preprocess.checkpoints.names import folder_of
from msdyn.preprocess.checkpoints.torch_hub import one_line

__all__ = [
    "CHECKPOINTS",
    "Availability",
    "Checkpoint",
    "find_checkpoint",
    "licence_of",
    "load_pretrained",
    "load_tokenizer",
    "transformers_class",
]

_log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
MAX_MISSING = 0.05
"""Largest share of missing weights: tied and initialised ones are reported as missing too."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the hub.

    Attributes:
        repo: its name there.
        licence: of the weights.
        commercial: whether the licence allows commercial use.
        megabytes: about the size of the download.
        revision: its commit there; None takes the newest.
    """

    repo: str
    licence: str
    commercial: bool
    megabytes: int
    revision: str | None = None


CHECKPOINTS = {
    checkpoint.repo: checkpoint
    for checkpoint in (
        Checkpoint(
            "depth-anything/Depth-Anything-V2-Small-hf",
            "Apache-2.0",
            True,
            99,
            "5426e4f0f36572d16453bbda7a8389317b1bef99",
        ),
        Checkpoint(
            "depth-anything/Depth-Anything-V2-Base-hf",
            "CC-BY-NC-4.0",
            False,
            390,
            "b1958afc87fb45a9e3746cb387596094de553ed8",
        ),
        Checkpoint(
            "depth-anything/Depth-Anything-V2-Large-hf",
            "CC-BY-NC-4.0",
            False,
            1341,
            "7581137eff8d4e94f6e796d3baea0e9fa79b22d2",
        ),
        Checkpoint(
            "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
            "Apache-2.0",
            True,
            99,
            "8078d68a9c75a972131914f6afd0c1723be0da7f",
        ),
        Checkpoint(
            "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf",
            "Apache-2.0",
            True,
            99,
            "fd2c22027eaf20374204f14099b8341e1925ad39",
        ),
        Checkpoint(
            "apple/DepthPro-hf",
            "Apple ASCL (research)",
            False,
            1904,
            None,
        ),
        Checkpoint(
            "Intel/zoedepth-nyu-kitti",
            "MIT",
            True,
            1380,
            "f364d4c7936e91f465abba182208dd68142bf0ca",
        ),
        Checkpoint(
            "facebook/sam2.1-hiera-tiny",
            "Apache-2.0",
            True,
            156,
            "de431c4043854a71d8101e17995dfe596bf101a5",
        ),
        Checkpoint(
            "facebook/sam2.1-hiera-small",
            "Apache-2.0",
            True,
            184,
            "ee5bba1d82bb8749febdf90f45e84b687142ba03",
        ),
        Checkpoint(
            "facebook/sam2.1-hiera-large",
            "Apache-2.0",
            True,
            898,
            "665f8e2ad61cf5f53d65644ff27c8ee525124610",
        ),
        Checkpoint(
            "yonigozlan/EdgeTAM-hf",
            "Apache-2.0",
            True,
            56,
            "c266ce53b3fc00f0f495b583f6a116c4e57f53bb",
        ),
        Checkpoint(
            "facebook/sam3",
            "SAM License (any use but military, nuclear and espionage)",
            True,
            3440,
            None,
        ),
    )
}
"""With the licences on the models' pages in 2025, which may have changed since."""


@dataclass(frozen=True)
class Availability:
    """Whether a checkpoint is available.

    Attributes:
        how: "folder", "cached", "online" or "no".
        why: half a sentence for the user.
    """

    how: Literal["folder", "cached", "online", "no"]
    why: str

    def __bool__(self) -> bool:
        return self.how != "no"


def licence_of(model: str) -> str:
    """Return the licence of a checkpoint, where it is known."""
    if model in CHECKPOINTS:
        return CHECKPOINTS[model].licence
    return "unknown (see its page)" if folder_of(model) is None else "unknown (your own checkpoint)"


def find_checkpoint(model: str, *, offline: bool) -> Availability:
    """Return whether a checkpoint is available; `offline`, without opening a socket.

    Args:
        model: a name on the hub, or a folder.
        offline: look on the disk only, as with the environment variable HF_HUB_OFFLINE.
    """
    if importlib.util.find_spec("transformers") is None:
        return Availability("no", "transformers is not installed (pip install 'msdyn[preprocess]')")
    if folder_of(model) is not None:
        return Availability("folder", "a folder on this disk")
    import huggingface_hub

    if _is_cached(model):
        return Availability("cached", "on this disk")
    if offline:
        return Availability("no", "not on this disk, and nothing is fetched with --preset offline")
    if huggingface_hub.constants.is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "0") == "1":
        return Availability("no", "not on this disk, and HF_HUB_OFFLINE is set")
    url = huggingface_hub.hf_hub_url(model, "config.json", revision=_revision(model))
    try:
        with _network(allowed=True):
            huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS)
    except Exception as error:  # of any kind: without the hub there is another backend
        why = _access(model, error) or f"not to be fetched ({one_line(error)})"
        return Availability("no", f"not on this disk, and {why}")
    size = CHECKPOINTS[model].megabytes if model in CHECKPOINTS else None
    return Availability("online", f"to be fetched{f', about {size} MB' if size else ''}")


def _revision(model: str) -> str | None:
    return CHECKPOINTS[model].revision if model in CHECKPOINTS else None


def _is_cached(model: str) -> bool:
    """Return whether a checkpoint is on this disk, at the pinned revision."""
    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    return _has(model, "config.json") and any(_has(model, name) for name in weights)


def _has(model: str, name: str) -> bool:
    """Return whether a file of a checkpoint is on this disk."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(model, name, revision=_revision(model))
    return isinstance(found, str)


def _announce(model: str) -> None:
    """Say in one line what is about to be fetched, and its licence."""
    known = CHECKPOINTS.get(model)
    size = f"about {known.megabytes} MB, " if known else ""
    revision = _revision(model) or "its newest revision, which is not pinned"
    _log.warning(
        "fetching %s (%slicence: %s) from huggingface.co at %s",
        model,
        size,
        licence_of(model),
        revision,
    )


@stays_loaded
def load_pretrained(architecture: str, model: str, *, offline: bool) -> Any:
    """Return a model of transformers for inference, in float32 on the CPU.

    A module of PyTorch with the attributes of its architecture, which have no common type.

    Args:
        architecture: name of the class in transformers.
        model: a name on the hub, or a folder.
        offline: fetch nothing.

    Raises:
        MissingExtraError: transformers, or a package that the model needs, is not installed.
        InputError: the checkpoint is not available, or of another architecture.
    """
    folder = folder_of(model)
    try:
        kind = transformers_class(architecture)
        local = offline or folder is not None or _is_cached(model)
        if not local:
            _announce(model)
        options = {} if model not in CHECKPOINTS else {"use_safetensors": True}
        with _quiet(), _network(allowed=not local):
            loaded, report = kind.from_pretrained(
                model if folder is None else str(folder),
                revision=_revision(model) or "main",
                local_files_only=local,
                output_loading_info=True,
                **options,
            )
    except (ImportError, AttributeError) as error:
        raise MissingExtraError(f"{model}: {one_line(error)}") from error
    except (OSError, ValueError, RuntimeError) as error:
        why = _access(model, error) or f"cannot be loaded as {architecture}: {one_line(error)}"
        raise InputError(f"{model}: {why}") from error
    missing = sorted(report.get("missing_keys", ()))
    if len(missing) > MAX_MISSING * len(loaded.state_dict()):
        raise InputError(
            f"{model}: not a checkpoint of {architecture}: {len(missing)} of its weights are "
            f"missing ({missing[0]}, ...)"
        )
    return loaded.eval()


def load_tokenizer(name: str, model: str, *, offline: bool) -> Any:
    """Return the tokenizer of a checkpoint, of a class of transformers.

    Args:
        name: of the class.
        model: a name on the hub, or a folder.
        offline: fetch nothing.

    Raises:
        MissingExtraError: transformers is not installed.
        InputError: the checkpoint has no such tokenizer.
    """
    folder = folder_of(model)
    local = offline or folder is not None or _has(model, "tokenizer_config.json")
    try:
        with _quiet(), _network(allowed=not local):
            loaded = transformers_class(name).from_pretrained(
                model if folder is None else str(folder),
                revision=_revision(model) or "main",
                local_files_only=local,
            )
        # Without its files, some classes are made all the same, with an empty vocabulary.
        there = (
            _has(model, n) if folder is None else (folder / n).is_file() for n in _TOKENIZER_FILES
        )
        if not any(there):
            raise OSError(f"no {' or '.join(_TOKENIZER_FILES)}")
        return loaded
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        why = _access(model, error) or f"has no tokenizer ({name}): {one_line(error)}"
        raise InputError(f"{model}: {why}") from error


def _access(model: str, error: BaseException) -> str | None:
    """Return what to do where a checkpoint needs an agreement first; None for other errors."""
    from huggingface_hub.errors import GatedRepoError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, GatedRepoError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    return (
        f"its licence must be accepted on https://huggingface.co/{model} first; then log in with "
        "`hf auth login`, or give a folder that has it (--masks-model FOLDER)"
    )


def transformers_class(name: str) -> Any:
    """Return a class of transformers by its name.

    Raises:
        MissingExtraError: transformers is not installed.
        AttributeError, ImportError: it has no such class, or a package that the class needs is not
            installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError("transformers is not installed: pip install 'msdyn[preprocess]'")
    # Not an import statement: the type checker would read the whole package, for half a minute.
    return getattr(importlib.import_module("transformers"), name)


@contextlib.contextmanager
def _network(*, allowed: bool) -> Iterator[None]:
    """Let the package of the hub open sockets or not, and send nothing about this machine.

    It asks the hub for a list of programs even where only local files are wanted.
    """
    from huggingface_hub import constants

    values = {"HF_HUB_OFFLINE": constants.HF_HUB_OFFLINE or not allowed}
    values["HF_HUB_DISABLE_TELEMETRY"] = True
    kept = {name: getattr(constants, name) for name in values}
    for name, value in values.items():
        setattr(constants, name, value)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(constants, name, value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages while weights are loaded; downloads keep their progress bars."""
    logging = importlib.import_module("transformers.utils.logging")
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
        logging.set_verbosity(level)
