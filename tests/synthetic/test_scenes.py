"""Every named scene: it is closed, its objects are visible and move, its cameras are as stated."""

import numpy as np
import pytest

from msdyn.errors import InputError
from msdyn.synthetic import SCENES, make_scene, project_tracks, surface_tracks
from msdyn.synthetic.raycast import Caster, pixel_centres, rays_through

# By scene, measured at 320x240 and its default number of frames: 95th percentile of the image
# motion of moving objects, px per frame; fraction of the image that they cover.
MEASURED = {
    "demo": (5.2, 0.27),
    "rigid": (3.6, 0.12),
    "articulated": (3.9, 0.17),
    "deformable": (3.5, 0.12),
    "rigid-deformable": (4.4, 0.34),
    "two-hands": (5.5, 0.12),
    "two-boxes": (6.0, 0.28),  # at 96x72
}


OTHERS = ("demo", "rigid", "deformable")
"""Scenes whose kinds of motion another one has too."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.reliability if name in OTHERS else ())
        for name in SCENES
    ],
)
def test_scene(name):
    size = (96, 72) if name == "two-boxes" else (320, 240)
    # A third of the frames, so the image motion per frame is three times as large.
    spec = make_scene(name, frames=SCENES[name][1] // 3, width=size[0], height=size[1])
    tracks, _ = surface_tracks(spec, per_object=60, static=60)
    assert set(tracks.object) == {0, *spec.objects}
    xy = project_tracks(spec, tracks)
    both = tracks.visible[:, 1:] & tracks.visible[:, :-1] & (tracks.object > 0)[:, None]
    step = np.linalg.norm(np.diff(xy, axis=1), axis=-1)[both] / 3
    flow, coverage = MEASURED[name]
    assert np.percentile(step, 95) == pytest.approx(flow, rel=0.25)
    # Objects move: the median extent of a trajectory is more than a centimetre.
    moving = tracks.xyz[tracks.object > 0]
    assert np.median(np.linalg.norm(np.ptp(moving, axis=1), axis=-1)) > 0.01

    small = make_scene(name, frames=6, width=48, height=36)
    caster, covered = Caster(small), []
    for view in small.views.values():
        for frame in range(6):
            for camera in (view, small.cameras[frame]):
                rays = rays_through(camera, pixel_centres(camera))
                points, _ = caster.mesh(frame).cast(camera.centres[0], rays)
                assert (points.face >= 0).all()
            covered.append((caster.face_object[points.face] > 0).mean())
    assert np.mean(covered) == pytest.approx(coverage, abs=0.06)


@pytest.mark.parametrize("name", ["demo", "rigid", "two-boxes"])
def test_cameras(name):
    spec = make_scene(name)
    middle = spec.cameras[spec.frames // 2].centres[0]
    focus = np.array([0, 0.1, 0.18 - 0.2 * SCENES[name][2]])
    for view, degrees in (("left15", 15), ("right28", 28)):
        a, b = middle - focus, spec.views[view].centres[0] - focus
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert np.degrees(np.arccos(cosine)) == pytest.approx(degrees, abs=1e-6)
        assert (b[0] < a[0]) == (view == "left15")
    # Enough parallax for the wall at y = 1.6, by a path that is far from a circle.
    path = spec.cameras.centres
    wall = np.array([0, 1.6, 0.3])
    a, b = path[0] - wall, path[-1] - wall
    angle = np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    assert 5 < angle < 10.5
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() < 0.1


def test_number_of_frames_and_image_size_are_arguments():
    spec = make_scene("articulated", frames=5, width=64, height=48)
    assert (spec.frames, spec.width, spec.height) == (5, 64, 48)
    assert len(spec.cameras) == 5 and spec.views["left15"].width == 64


def test_the_parcel_is_handed_over_while_it_is_occluded():
    """It moves continuously, first rigidly with the giver, then with the taker."""
    spec = make_scene("two-hands", frames=30)
    pose = {part.link: part.world_from_link for part in spec.parts if part.object}
    parcel = pose["parcel"]
    giver, taker = (np.linalg.inv(pose[f"{hand}/palm"]) @ parcel for hand in ("giver", "taker"))
    half = spec.frames // 2
    assert np.abs(giver[:half] - giver[0]).max() < 1e-9
    assert np.abs(taker[half:] - taker[-1]).max() < 1e-9
    assert np.abs(giver[-1] - giver[0]).max() > 0.1
    assert np.linalg.norm(np.diff(parcel[:, :3, 3], axis=0), axis=1).max() < 0.06
    tracks, _ = surface_tracks(spec, per_object=100, static=10)
    visible = tracks.visible[tracks.object == 3].sum(0)
    assert (visible <= 1).sum() >= 4 and visible[0] > 50 and visible[-1] > 50


@pytest.mark.parametrize(
    "arguments, message",
    [(("studio",), "scene: expected one of demo"), (("demo",), "frames: expected at least 2")],
)
def test_user_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        make_scene(*arguments, frames=1)
