"""The last state of a fit in which everything was finite, to which it goes back."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from msdyn.fit.checkpoint import FitState

__all__ = ["DivergedError", "LastGood"]


class DivergedError(Exception):
    """A loss or a parameter is not finite; the message says which and when."""


class LastGood:
    """A copy of the state of a fit, in memory, and whether the losses since were finite.

    Attributes:
        step: of the copy.
    """

    def __init__(self, state: FitState, step: int) -> None:
        # By step: which losses were finite. Looked at later, as that waits for the GPU.
        self._finite: deque[tuple[int, list[str], Tensor]] = deque()
        self.keep(state, step)

    def keep(self, state: FitState, step: int) -> None:
        """Copy a state that has been checked."""
        self.step = step
        self._tensors = {name: value.clone() for name, value in state.tensors().items()}

    def restore(self, state: FitState) -> None:
        """Set a state to the copy."""
        self._finite.clear()
        state.restore({name: value.clone() for name, value in self._tensors.items()})

    def note(self, values: Mapping[str, Tensor], step: int) -> None:
        """Remember which values of a step are finite."""
        finite = torch.stack([value.detach() for value in values.values()]).isfinite()
        self._finite.append((step, list(values), finite))

    def check(self, state: FitState, step: int) -> None:
        """Raise where a loss that was noted, or a number of the state, is not finite.

        Raises:
            DivergedError: with the loss and the step.
        """
        noted = list(self._finite)
        self._finite.clear()
        flags = torch.cat([finite for _, _, finite in noted]).tolist() if noted else []
        for seen, names, _ in noted:
            good, flags = flags[: len(names)], flags[len(names) :]
            bad = [name for name, finite in zip(names, good, strict=True) if not finite]
            # The sum is not finite if a term of it is not.
            terms = [name for name in bad if name not in ("loss", "psnr")] or bad
            if terms:
                raise DivergedError(f"the loss {' and '.join(terms)} was not finite at step {seen}")
        numbers = {
            name: value
            for name, value in state.tensors().items()
            if value.is_floating_point() and not name.endswith("life_spans")
        }
        # Asked for at once: each answer waits for the GPU.
        good = torch.stack([value.isfinite().all() for value in numbers.values()]).tolist()
        for name, finite in zip(numbers, good, strict=True):
            if not finite:
                raise DivergedError(f"{name} was not finite after step {step}")
