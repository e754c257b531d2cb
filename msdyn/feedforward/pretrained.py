"""Networks by name or by file, and what is to be said about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msdyn.errors import InputError
from msdyn.feedforward.checkpoint import load_model, read_about
from msdyn.feedforward.model import Movies
from msdyn.feedforward.options import DEFAULT_MODEL

__all__ = ["DEFAULT_MODEL", "FoundModel", "find_model", "model_names"]

_FOLDER = Path(__file__).parent / "weights"
_PUBLISHED_LONG_SIDE, _PUBLISHED_FRAMES = 518, 13
_PUBLISHED_LICENCE = "non-commercial (derived from VGGT-1B)"
_PUBLISHED_NOTE = "The released MoVieS weights derive from VGGT-1B: treat them as non-commercial."


@dataclass(frozen=True)
class FoundModel:
    """A file of weights.

    Attributes:
        path: of the file.
        about: how it was trained, as its file says; empty for others' files.
    """

    path: Path
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def long_side(self) -> int:
        """Longer side of the images that the network was trained for, px."""
        return int(self.about.get("long_side", _PUBLISHED_LONG_SIDE))

    @property
    def frames(self) -> int:
        """Frames of a window in training."""
        return int(self.about.get("frames", _PUBLISHED_FRAMES))

    @property
    def note(self) -> str:
        """What a user should know of these weights."""
        return str(self.about.get("note", "" if self.about else _PUBLISHED_NOTE))

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        return str(self.about.get("licence", "unknown" if self.about else _PUBLISHED_LICENCE))

    def load(self) -> Movies:
        """Read the network, on the CPU, for inference."""
        return load_model(self.path)


def model_names() -> tuple[str, ...]:
    """Return the names of the networks that come with msdyn."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.safetensors")))


def find_model(name: str) -> FoundModel:
    """Return the network of a name or a path.

    Raises:
        InputError: neither the name of a network nor a file.
    """
    path = _FOLDER / f"{name}.safetensors" if name in model_names() else Path(name)
    if not path.is_file():
        names = ", ".join(model_names()) or "none"
        raise InputError(
            f"model: expected a file of weights or one of the networks of msdyn ({names}), got "
            f"{name!r}"
        )
    return FoundModel(path, read_about(path))
