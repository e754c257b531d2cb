"""Synthetic scenes with exact ground truth, and priors with errors of known size.

spec = make_scene("demo")
truth = render_truth(spec, progress=True)
write_clip(truth, "out/demo")
"""

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
    "Part",
    "PriorLevel",
    "Priors",
    "SceneSpec",
    "Shape",
    "Shot",
    "Truth",
    "link_motions",
    "make_priors",
    "make_scene",
    "project_tracks",
    "render_truth",
    "surface_tracks",
    "write_clip",
    "write_priors",
    "write_truth",
]
