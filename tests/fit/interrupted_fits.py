"""A fit that is interrupted after some steps, and given again."""

from __future__ import annotations

import pytest

from msdyn.fit import FitConfig, Fitter, fit_scene
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence

__all__ = ["interrupted_and_resumed"]


class Stop(KeyboardInterrupt):
    """The interruption."""


def interrupted_and_resumed(scene: Scene, options: FitConfig, step: int) -> GaussianSequence:
    """Return the result of a fit that is interrupted before a step, and resumes."""
    whole = Fitter._one_step

    def stopping(self, frames):
        if self.step == step:
            raise Stop
        return whole(self, frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fitter, "_one_step", stopping)
        with pytest.raises(Stop):
            fit_scene(scene, options)
    return fit_scene(scene, options)
