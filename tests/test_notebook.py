"""The methods of sequences that layers above them provide."""

import subprocess
import sys

import numpy as np
from evaluate.exact_fits import three_points

import msdyn.notebook  # noqa: F401  adds the methods
from msdyn.render import point_tracks, render_flow, render_image
from msdyn.sequence import object_poses

FRAMES = 11


def test_methods_are_the_functions(tmp_path):
    sequence = three_points(FRAMES)
    camera = sequence.cameras[4]
    expected = render_image(sequence, camera, 0.4)
    np.testing.assert_array_equal(sequence.render(camera, 0.4).rgb, expected.rgb)
    np.testing.assert_array_equal(sequence.render(time=0.4).rgb, expected.rgb)
    xy = np.array([[14.0, 27.0]])
    np.testing.assert_array_equal(sequence.tracks(xy, 0).xyz, point_tracks(sequence, xy, 0).xyz)
    flow = render_flow(sequence, (sequence.cameras[0], sequence.cameras[10]), (0.0, 1.0))
    np.testing.assert_array_equal(sequence.flow(0.0, 1.0).xy, flow.xy)
    found, poses = sequence.poses(), object_poses(sequence, np.arange(FRAMES))
    assert found.keys() == poses.keys()
    np.testing.assert_array_equal(found[2], poses[2])
    assert sequence.export("objects", tmp_path).files[-1].name == "objects.json"


def test_whoever_gets_a_sequence_from_msdyn_has_the_methods():
    """By any of the three names, each in a process that has imported nothing of them before."""
    code = """
import os, msdyn
import torch  # once, for all three
def methods(name):
    getattr(msdyn, name)
    from msdyn.sequence import GaussianSequence
    return hasattr(GaussianSequence, "render")
for name in ("GaussianSequence", "load_sequence", "fit_scene"):
    child = os.fork()
    if not child:
        os._exit(0 if methods(name) else 1)
    assert os.waitpid(child, 0)[1] == 0, name
"""
    subprocess.run([sys.executable, "-c", code], check=True)
