"""Re-registration of an object after a full occlusion."""

import numpy as np
import pytest
from bodies import FRAMES, lifted, rigid_body

from msdyn.geometry import Rigid, SurfaceSamples
from msdyn.motion import ObjectSurfaces, build_hierarchy
from msdyn.motion.alignment import RigidMotion
from msdyn.motion.object_alignment import frame_blocks
from msdyn.motion.reregistration import reregister

OCCLUDED = slice(12, 18)


def face(rng, count, sign=1.0):
    """Samples of the textured front face (`sign` 1) or back face (-1) of a slab."""
    x, y = rng.uniform(-0.08, 0.08, (2, count))
    z = sign * (-0.03 + 0.01 * np.sin(50 * x) * np.cos(40 * y))
    waves = np.c_[60 * x + 80 * y, 90 * x - 50 * y, 100 * y + 30 * x]
    rgb = 0.5 + 0.5 * np.sin(waves + (0 if sign > 0 else 2.0))
    return SurfaceSamples(np.c_[x, y, z], rgb, np.tile([0, 0, -sign], (count, 1)))


def slab(seed, other_face=False):
    """Tracks, surfaces and truth of a slab that rotates by 60 degrees, occluded in frames 12-17."""
    rng = np.random.default_rng(seed)
    xyz, rotations, translations = rigid_body(
        rng, np.array([0, 0, 2.0]), [0.2, 1, 0.3], 60, [0.3, 0.1, 0.0], count=80
    )
    visible = np.ones((80, FRAMES), bool)
    visible[:40, 12:] = False
    visible[40:, :18] = False
    parts, frames = [], []
    for frame in [*range(12), *range(18, FRAMES)]:
        visible_face = face(rng, 200, -1.0 if other_face and frame >= 18 else 1.0)
        placed = SurfaceSamples(
            visible_face.xyz + [0, 0, 2.0], visible_face.rgb, visible_face.normals
        )
        parts.append(placed.moved(Rigid(rotations[frame], translations[frame])))
        frames.append(np.full(200, frame))
    frames = np.concatenate(frames)
    samples = SurfaceSamples.concatenate(parts)
    surfaces = ObjectSurfaces(samples, frames, np.ones(len(frames), int))
    return lifted(xyz, visible=visible), surfaces, xyz


@pytest.mark.slow
@pytest.mark.parametrize("canonical", [0, pytest.param(FRAMES - 1, marks=pytest.mark.reliability)])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.reliability)])
def test_surfaces_determine_the_rotation_during_an_occlusion(seed, canonical):
    tracks, surfaces, truth = slab(seed)
    without = build_hierarchy(tracks, canonical, levels=1).trajectories() - truth
    found = build_hierarchy(tracks, canonical, levels=1, surfaces=surfaces).trajectories() - truth
    without, found = np.linalg.norm(without, axis=-1), np.linalg.norm(found, axis=-1)
    # It rotates by 12 degrees while occluded, which displaces it by centimetres.
    assert without.max() > 0.02
    assert np.delete(found, np.r_[OCCLUDED], axis=1).max() < 0.003
    assert found[:, OCCLUDED].max() < 0.01  # interpolated; the true motion is nearly uniform


@pytest.mark.reliability
def test_surfaces_of_different_faces_are_not_registered():
    tracks, surfaces, _ = slab(0, other_face=True)
    without = build_hierarchy(tracks, 0, levels=1)
    found = build_hierarchy(tracks, 0, levels=1, surfaces=surfaces)
    np.testing.assert_array_equal(found.trajectories(), without.trajectories())


def test_nothing_is_changed_if_tracks_bridge_the_occlusion():
    tracks, surfaces, truth = slab(0)
    whole = lifted(truth)
    motion = RigidMotion.identity(np.zeros(3), FRAMES)
    assert reregister(motion, whole.visible.astype(float), surfaces, 1, 0, 0.1) is motion
    assert (frame_blocks(tracks.visible.astype(float))[OCCLUDED] == -1).all()
    assert len(np.unique(frame_blocks(tracks.visible.astype(float)))) == 3


def test_nothing_is_changed_without_surfaces():
    tracks, surfaces, _ = slab(0)
    empty = ObjectSurfaces(
        surfaces.samples.select(np.zeros(0, int)), np.zeros(0, int), np.zeros(0, int)
    )
    np.testing.assert_array_equal(
        build_hierarchy(tracks, 0, levels=1, surfaces=empty).trajectories(),
        build_hierarchy(tracks, 0, levels=1).trajectories(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("jitter", [0.0, pytest.param(1e-6, marks=pytest.mark.reliability)])
def test_coincident_samples_are_registered(jitter):
    """A static object in front of a static camera has the same samples in every frame."""
    rng = np.random.default_rng(7)
    box = rng.uniform(-0.1, 0.1, (80, 3)) + [0, 0, 2]
    later = np.arange(FRAMES) >= 15
    xyz = box[:, None] + later[:, None] * [0.03, 0.02, 0.0]
    visible = np.zeros((80, FRAMES), bool)
    visible[:40, :12] = True
    visible[40:, 18:] = True
    samples = face(rng, 200, 1.0)
    parts, frames = [], [*range(12), *range(18, FRAMES)]
    for frame in frames:
        points = samples.xyz + [0, 0, 2.0] + later[frame] * np.array([0.03, 0.02, 0.0])
        points = points + rng.normal(0, jitter, points.shape)
        parts.append(SurfaceSamples(points, samples.rgb, samples.normals))
    count = 200 * len(frames)
    surfaces = ObjectSurfaces(
        SurfaceSamples.concatenate(parts), np.repeat(frames, 200), np.ones(count, int)
    )
    tracks = lifted(xyz, visible=visible)
    error = build_hierarchy(tracks, 0, levels=1, surfaces=surfaces).trajectories() - xyz
    assert np.linalg.norm(error, axis=-1)[:, frames].max() < 0.003
