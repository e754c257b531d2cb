"""Options of a fit of a few seconds."""

from dataclasses import replace

from msdyn.fit import FitConfig, MotionConfig, preset


def config(tmp_path, **changes) -> FitConfig:
    """Return the options, with changes; the result goes to `tmp_path`/fit."""
    small = replace(
        preset("quick"),
        epochs=8,
        static_gaussians=200,
        moving_gaussians=100,
        device="cpu",
        motion=MotionConfig(prefit_steps=2, joint_refinement="off"),
        out=tmp_path / "fit",
    )
    return replace(small, **changes)
