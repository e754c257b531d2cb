"""Synthetic scenes with exact ground truth, and priors with errors of known size.

spec = make_scene("demo")
truth = render_truth(spec, progress=True)
write_clip(truth, "out/demo")
"""

from msdyn.synthetic.manipulation import (
    Manipulation,
    make_manipulation,
    without_views,
    write_manipulations,
)
from msdyn.synthetic.priors import LEVELS, PHONE, PriorLevel, Priors, make_priors
from msdyn.synthetic.scenes import SCENES, make_scene
from msdyn.synthetic.spec import Part, SceneSpec, Shape
from msdyn.synthetic.surface_tracks import link_motions, project_tracks, surface_tracks
from msdyn.synthetic.truth import Shot, Truth, render_truth
from msdyn.synthetic.write import write_clip, write_priors, write_truth

__all__ = [
    "LEVELS",
    "PHONE",
    "SCENES",
    "Manipulation",
    "Part",
    "PriorLevel",
    "Priors",
    "SceneSpec",
    "Shape",
    "Shot",
    "Truth",
    "link_motions",
    "make_manipulation",
    "make_priors",
    "make_scene",
    "project_tracks",
    "render_truth",
    "surface_tracks",
    "without_views",
    "write_clip",
    "write_manipulations",
    "write_priors",
    "write_truth",
]
