"""What is seen of an object again after all its tracks were lost."""

import numpy as np
import pytest
from bodies import FRAMES, lifted, rigid_body

from msdyn.geometry import Rigid, SurfaceSamples
from msdyn.motion import ObjectSurfaces, build_hierarchy
from msdyn.motion.alignment import RigidMotion, frame_blocks
from msdyn.motion.rejoin import rejoin

HIDDEN = slice(12, 18)


def face(rng, count, sign=1.0):
    """Samples of one blotched face of a slab; `sign` -1 for its other face, in other colours."""
    x, y = rng.uniform(-0.08, 0.08, (2, count))
    z = sign * (-0.03 + 0.01 * np.sin(50 * x) * np.cos(40 * y))
    waves = np.c_[60 * x + 80 * y, 90 * x - 50 * y, 100 * y + 30 * x]
    rgb = 0.5 + 0.5 * np.sin(waves + (0 if sign > 0 else 2.0))
    return SurfaceSamples(np.c_[x, y, z], rgb, np.tile([0, 0, -sign], (count, 1)))


def slab(seed, other_face=False):
    """A slab that turns by 60 degrees, unseen from frame 12 to 17; its tracks, surfaces, truth."""
    rng = np.random.default_rng(seed)
    xyz, rotations, translations = rigid_body(
        rng, np.array([0, 0, 2.0]), [0.2, 1, 0.3], 60, [0.3, 0.1, 0.0], count=80
    )
    visible = np.ones((80, FRAMES), bool)
    visible[:40, 12:] = False
    visible[40:, :18] = False
    parts, when = [], []
    for frame in [*range(12), *range(18, FRAMES)]:
        seen = face(rng, 200, -1.0 if other_face and frame >= 18 else 1.0)
        seen = SurfaceSamples(seen.xyz + [0, 0, 2.0], seen.rgb, seen.normals)
        parts.append(seen.moved(Rigid(rotations[frame], translations[frame])))
        when.append(np.full(200, frame))
    when = np.concatenate(when)
    samples = SurfaceSamples.concatenate(parts)
    surfaces = ObjectSurfaces(samples, when, np.ones(len(when), int))
    return lifted(xyz, visible=visible), surfaces, xyz


@pytest.mark.parametrize("canonical", [0, FRAMES - 1])
@pytest.mark.parametrize("seed", range(2))
def test_the_surface_tells_how_it_turned_unseen(seed, canonical):
    tracks, surfaces, truth = slab(seed)
    blind = build_hierarchy(tracks, canonical, levels=1).trajectories() - truth
    told = build_hierarchy(tracks, canonical, levels=1, surfaces=surfaces).trajectories() - truth
    blind, told = np.linalg.norm(blind, axis=-1), np.linalg.norm(told, axis=-1)
    # It turns by 12 degrees while hidden: without the surface, centimetres.
    assert blind.max() > 0.02
    assert np.delete(told, np.r_[HIDDEN], axis=1).max() < 0.003
    assert told[:, HIDDEN].max() < 0.01  # it moves evenly; in between is interpolated


def test_nothing_is_changed_where_another_face_is_seen():
    tracks, surfaces, _ = slab(0, other_face=True)
    blind = build_hierarchy(tracks, 0, levels=1)
    told = build_hierarchy(tracks, 0, levels=1, surfaces=surfaces)
    np.testing.assert_array_equal(told.trajectories(), blind.trajectories())


def test_nothing_is_changed_where_tracks_reach_across():
    tracks, surfaces, truth = slab(0)
    whole = lifted(truth)
    motion = RigidMotion.identity(np.zeros(3), FRAMES)
    assert rejoin(motion, whole.visible.astype(float), surfaces, 1, 0, 0.1) is motion
    assert (frame_blocks(tracks.visible.astype(float))[HIDDEN] == -1).all()
    assert len(np.unique(frame_blocks(tracks.visible.astype(float)))) == 3


def test_an_object_without_surfaces_stays_as_it_was():
    tracks, surfaces, _ = slab(0)
    empty = ObjectSurfaces(
        surfaces.samples.select(np.zeros(0, int)), np.zeros(0, int), np.zeros(0, int)
    )
    np.testing.assert_array_equal(
        build_hierarchy(tracks, 0, levels=1, surfaces=empty).trajectories(),
        build_hierarchy(tracks, 0, levels=1).trajectories(),
    )


@pytest.mark.parametrize("jitter", [0.0, 1e-6])
def test_samples_that_coincide_join_as_others_do(jitter):
    """What stands still before a still camera is sampled at the same places in every frame."""
    rng = np.random.default_rng(7)
    box = rng.uniform(-0.1, 0.1, (80, 3)) + [0, 0, 2]
    later = np.arange(FRAMES) >= 15
    xyz = box[:, None] + later[:, None] * [0.03, 0.02, 0.0]
    visible = np.zeros((80, FRAMES), bool)
    visible[:40, :12] = True
    visible[40:, 18:] = True
    once = face(rng, 200, 1.0)
    seen, when = [], [*range(12), *range(18, FRAMES)]
    for frame in when:
        places = once.xyz + [0, 0, 2.0] + later[frame] * np.array([0.03, 0.02, 0.0])
        places = places + rng.normal(0, jitter, places.shape)
        seen.append(SurfaceSamples(places, once.rgb, once.normals))
    count = 200 * len(when)
    surfaces = ObjectSurfaces(
        SurfaceSamples.concatenate(seen), np.repeat(when, 200), np.ones(count, int)
    )
    tracks = lifted(xyz, visible=visible)
    told = build_hierarchy(tracks, 0, levels=1, surfaces=surfaces).trajectories() - xyz
    assert np.linalg.norm(told, axis=-1)[:, [*range(12), *range(18, FRAMES)]].max() < 0.003
