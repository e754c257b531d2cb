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
        while self._finite:
            seen, names, finite = self._finite.popleft()
            bad = [name for name, good in zip(names, finite.tolist(), strict=True) if not good]
            # The sum is not finite if a term of it is not.
            terms = [name for name in bad if name not in ("loss", "psnr")] or bad
            if terms:
                raise DivergedError(f"the loss {' and '.join(terms)} was not finite at step {seen}")
        for name, value in state.tensors().items():
            is_number = value.is_floating_point() and not name.endswith("life_spans")
            if is_number and not value.isfinite().all():
                raise DivergedError(f"{name} was not finite after step {step}")
