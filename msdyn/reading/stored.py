"""Tensors of a file, each checked when it is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msdyn.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["StoredTensors"]

_LARGEST = 1e18
"""Of a number: its square is still a float32."""


class StoredTensors:
    """Takes tensors by name, of an expected shape and range, so that no kernel reads elsewhere."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def floats(
        self,
        name: str,
        *shape: int | None,
        largest: float = _LARGEST,
        infinite: bool = False,
    ) -> Tensor:
        """Return a floating-point tensor.

        Args:
            name: of the tensor.
            shape: that it must have; None for any number.
            largest: magnitude of its values.
            infinite: whether they may be infinite too.

        Raises:
            InputError: missing, of another type or shape, NaN, or too large.
        """
        value = self._shaped(name, shape)
        if not value.is_floating_point():
            raise InputError(f"{name}: expected floating-point numbers, got {value.dtype}")
        known = ~value.isnan() if infinite else value.isfinite()
        if not bool(known.all()):
            raise InputError(
                f"{name}: {int((~known).sum())} of {value.numel()} values are NaN"
                f"{'' if infinite else ' or infinite'}"
            )
        size = value[value.isfinite()].abs().max() if value.isfinite().any() else 0.0
        if size > largest:
            raise InputError(f"{name}: expected numbers up to {largest:.3g}, got {float(size):.3g}")
        return value

    def indices(self, name: str, *shape: int | None, below: int) -> Tensor:
        """Return a tensor of indices as int64.

        Args:
            name: of the tensor.
            shape: that it must have; None for any number.
            below: that all of them must be; none may be negative.

        Raises:
            InputError: missing, of another type or shape, or out of range.
        """
        value = self._shaped(name, shape)
        if value.is_floating_point() or value.is_complex() or value.element_size() < 2:
            raise InputError(f"{name}: expected whole numbers, got {value.dtype}")
        value = value.long()
        if value.numel() and not (0 <= int(value.min()) and int(value.max()) < below):
            raise InputError(
                f"{name}: expected indices from 0 to {below - 1}, got {int(value.min())} to "
                f"{int(value.max())}"
            )
        return value

    def bytes(self, name: str, *shape: int | None) -> Tensor:
        """Return a tensor of bytes of a shape.

        Raises:
            InputError: missing, or of another type or shape.
        """
        value = self._shaped(name, shape)
        if value.element_size() != 1 or value.is_floating_point() or value.is_signed():
            raise InputError(f"{name}: expected bytes, got {value.dtype}")
        return value

    def take(self, name: str) -> Tensor:
        """Return a tensor of any shape with at least one dimension and finite values.

        Raises:
            InputError: missing, a single number, or not finite.
        """
        value = self._shaped(name, (None,) * max(1, self.dimensions(name)))
        if not bool(value.isfinite().all()):
            raise InputError(f"{name}: expected finite numbers")
        return value

    def names(self, prefix: str) -> list[str]:
        """Return what follows a prefix in the names of the tensors that have it."""
        return [name.removeprefix(prefix) for name in self._tensors if name.startswith(prefix)]

    def dimensions(self, name: str) -> int:
        """Return the number of dimensions of a tensor; 0 where it is missing."""
        return self._tensors[name].dim() if name in self._tensors else 0

    def increasing(self, name: str) -> Tensor:
        """Return a tensor of at least two strictly increasing floating-point numbers."""
        value = self.floats(name, None)
        if len(value) < 2 or not bool((value.diff() > 0).all()):
            raise InputError(f"{name}: expected at least two increasing numbers")
        return value

    def _shaped(self, name: str, shape: tuple[int | None, ...]) -> Tensor:
        if name not in self._tensors:
            raise InputError(f"{name}: missing")
        value = self._tensors[name]
        fits = value.dim() == len(shape) and all(
            expected in (None, actual) for expected, actual in zip(shape, value.shape, strict=True)
        )
        if not fits:
            expected = ", ".join("any" if n is None else str(n) for n in shape)
            raise InputError(f"{name}: expected shape [{expected}], got {list(value.shape)}")
        return value
