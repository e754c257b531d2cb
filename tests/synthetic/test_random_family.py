"""Random scenes: the same for the same number, exact, and as sensible as their checks say."""

import numpy as np
import pytest
from brute import first_hit

from msdyn.errors import InputError
from msdyn.geometry import transform_points
from msdyn.synthetic import make_scene, project_tracks, surface_tracks
from msdyn.synthetic.random_objects import MOVERS, cloth
from msdyn.synthetic.random_scenes import draw_scene, make_random_scene, refusal
from msdyn.synthetic.raycast import Caster, pixel_centres, rays_through
from msdyn.synthetic.spec import SceneSpec


def kinds_of(spec: SceneSpec) -> set[str]:
    return {part.link.split("/")[0].rstrip("0123456789") for part in spec.parts if part.object}


@pytest.mark.reliability
def test_a_number_names_one_scene_whatever_its_size_and_length():
    spec, again = make_scene("random-3", frames=5), make_scene("random-3", frames=5)
    assert spec.name == "random-3" and (spec.width, spec.height) == (320, 240)
    longer = make_scene("random-3", frames=9, width=64, height=48, seed=7)
    names = [part.name for part in spec.parts]
    assert names == [part.name for part in longer.parts] and spec.seed != longer.seed
    for one, same, other in zip(spec.parts, again.parts, longer.parts, strict=True):
        for frame in (0, 2, 4):
            np.testing.assert_array_equal(one.vertices(frame), same.vertices(frame))
            # The whole motion is shown: frame 2 of 5 and frame 4 of 9 are the same time.
            np.testing.assert_allclose(one.vertices(frame), other.vertices(2 * frame), atol=1e-9)
    for view in spec.views:
        np.testing.assert_array_equal(
            spec.views[view].cam_from_world, again.views[view].cam_from_world
        )
    assert names != [part.name for part in draw_scene(4, 0, 5, 64, 48, 0).parts]


def check(index: int) -> set[str]:
    """Check what a scene promises, with code of its own; return the kinds of its objects."""
    spec = make_random_scene(index, 8, 40, 30, 0)
    assert refusal(spec) == ""
    caster = Caster(spec)
    focus_angles = []
    middle = spec.cameras[4].centres[0]
    for view in spec.views.values():
        # The optical axis passes the focus at the distance of the middle camera.
        axis, centre = view.cam_from_world[0, 2, :3], view.centres[0]
        distances = np.linspace(0.5, 2, 600)
        along = centre + distances[:, None] * axis
        gap = np.abs(np.linalg.norm(along - middle, axis=-1) - distances)
        focus = along[gap.argmin()]
        a, b = middle - focus, centre - focus
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        focus_angles.append(np.degrees(np.arccos(cosine)))
    assert all(14.5 < angle < 30.5 for angle in focus_angles)
    # Depth and masks against brute force, in the first frame of the input and of a view.
    rng = np.random.default_rng(index)
    for frame, camera in ((0, spec.cameras[0]), (7, next(iter(spec.views.values())))):
        rays = rays_through(camera, pixel_centres(camera))[rng.choice(1200, 15, replace=False)]
        points, _ = caster.mesh(frame).cast(camera.centres[0], rays)
        depth = caster.depth(frame, camera, rays, points.face)
        origins = np.broadcast_to(camera.centres[0], rays.shape)
        distance, face = first_hit(caster.vertices[frame], caster.faces, origins, rays)
        np.testing.assert_allclose(depth, distance, rtol=1e-5)
        hit = caster.face_object[points.face]
        assert np.mean(hit == caster.face_object[face]) > 0.9  # an edge may round either way
    # Tracks are on the surface that their query pixel shows, and project to it.
    tracks, _ = surface_tracks(spec, per_object=8, static=5)
    assert set(tracks.object) == {0, *spec.objects}
    rows = np.arange(len(tracks.xyz))
    xy = project_tracks(spec, tracks)[rows, tracks.query_frame]
    np.testing.assert_allclose(xy, tracks.query_xy, atol=0.02)
    assert tracks.visible[rows, tracks.query_frame].mean() > 0.95
    frame = 7
    seen = np.flatnonzero(tracks.visible[:, frame])[:10]
    centre = spec.cameras.centres[frame]
    offsets = tracks.xyz[seen, frame] - centre
    distance, face = first_hit(
        caster.vertices[frame], caster.faces, np.broadcast_to(centre, offsets.shape), offsets
    )
    np.testing.assert_allclose(distance, 1, atol=2e-3)
    assert np.mean(caster.face_object[face] == tracks.object[seen]) > 0.9
    return kinds_of(spec)


def test_a_scene_is_exact_and_keeps_its_promises():
    assert check(1) == {"carried", "jointed"}


@pytest.mark.reliability
def test_many_scenes_are_exact_and_keep_their_promises():
    assert set.union(*(check(index) for index in range(20))) == set(MOVERS)


def test_scenes_that_break_a_promise_are_refused():
    spec = draw_scene(1, 0, 8, 40, 30, 0)
    assert refusal(spec) == ""

    def moved(change, objects=(1, 2)) -> str:
        parts = []
        for part in spec.parts:
            if part.object in objects:
                pose = part.world_from_link.copy()
                pose[:, :3, 3] = change(pose[:, :3, 3])
                parts.append(type(part)(**{**vars(part), "world_from_link": pose}))
            else:
                parts.append(part)
        return refusal(type(spec)(**{**vars(spec), "parts": tuple(parts)}))

    assert moved(lambda xyz: xyz - (0, 0, 0.5)) == "an object is in the table"
    assert moved(lambda xyz: 0 * xyz + (0, 0, 0.3)) == "two objects meet"
    assert moved(lambda xyz: xyz + (0, 2.5, 0)) == "an object is small in the images"
    assert moved(lambda xyz: xyz + spec.cameras.centres[3] - xyz[3]) == "a camera is near an object"
    fast = moved(lambda xyz: xyz + np.arange(8)[:, None] * (0, 0.2, 0))
    assert fast == "an object is too fast"


def test_a_cloth_waves_and_hardly_stretches():
    for seed in range(3):
        sheet, bar = cloth(1, (0.0, 0.0), 12, np.random.default_rng(seed))
        edges = sheet.shape.faces[:, [0, 1]]

        def lengths(frame: int, sheet=sheet, edges=edges) -> np.ndarray:
            ends = sheet.vertices(frame)[edges]
            return np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1)

        rest = np.linalg.norm(np.diff(sheet.shape.vertices[edges], axis=1)[:, 0], axis=-1)
        change = np.stack([lengths(frame) for frame in range(12)]) / rest
        assert 0.85 < np.median(change, 1).min() and np.percentile(change, 98) < 1.5
        # In the frame of its bar the top stands still and the hem moves.
        local = np.stack(
            [
                transform_points(np.linalg.inv(sheet.world_from_link[t]), sheet.vertices(t))
                for t in range(12)
            ]
        )
        top = sheet.shape.vertices[:, 2] > 0.99 * sheet.shape.vertices[:, 2].max()
        extent = np.ptp(local, axis=0)
        assert extent[top].max() < 2e-3 and extent.max() > 0.02
        assert bar.deformation is None and bar.object == 1


@pytest.mark.parametrize("name", ["random", "random-", "random-x", "random--1"])
def test_user_errors(name):
    with pytest.raises(InputError, match="random-0, random-1"):
        make_scene(name)


def test_a_clip_has_two_frames_at_least():
    with pytest.raises(InputError, match="frames: expected at least 2, got 1"):
        make_scene("random-0", frames=1)
