"""Which stages want a GPU, where there are any, by the options of the commands."""

from __future__ import annotations

import shlex

from msdyn.batch.clips import StageName
from msdyn.batch.supervisor import Kind
from msdyn.errors import InputError
from msdyn.options import text_of
from msdyn.preprocess.stages import network_names

__all__ = ["free_words", "needs_of", "words_of"]

_OF_BATCH = {
    *("--out", "--only", "--redo", "--start", "--end", "--max-memory", "--check"),
    *("--view", "--port", "--help", "-h", "--version"),
}
"""Options of the commands that the batch itself gives, or that make no sense in one."""


def words_of(text: str, what: str) -> list[str]:
    """Return the arguments in a text, which has quotes as a shell has them.

    Raises:
        InputError: a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"{what}: {error} in {text!r}") from error


def free_words(text: str, what: str) -> list[str]:
    """Return the arguments in a text, of which none is an option that the batch itself gives.

    Raises:
        InputError: one is; or a quote is not closed.
    """
    words = words_of(text, what)
    for word in words:
        if word.partition("=")[0].replace("_", "-") in _OF_BATCH:
            raise InputError(f"{what}: {word} cannot be given for a batch, which sets it itself")
    return words


def needs_of(preprocess: str, fit: str) -> dict[StageName, Kind]:
    """Return the kind of worker for each stage.

    Masks and depth may be made by networks unless another method is named; a fit takes a GPU.

    Args:
        preprocess, fit: options of the commands.

    Raises:
        InputError: a quote is not closed.
    """
    words, fit_words = words_of(preprocess, "--preprocess"), words_of(fit, "--fit")
    on_cpu = text_of("--device", words) == "cpu"

    def kind(stage: str) -> Kind:
        backend = text_of(f"--{stage}", words)
        networks = network_names(stage)  # type: ignore[arg-type]
        unnamed = not backend and stage != "tracks"  # the presets name networks for these
        return "part" if not on_cpu and (unnamed or backend in networks) else "cpu"

    fit_on_cpu = text_of("--device", fit_words) == "cpu"
    return {
        "tracks": kind("tracks"),
        "masks": kind("masks"),
        "cameras": "cpu",
        "refine": kind("masks"),
        "depth": kind("depth"),
        "fit": "cpu" if fit_on_cpu else "gpu",
        "evaluate": "cpu" if fit_on_cpu else "part",
    }
