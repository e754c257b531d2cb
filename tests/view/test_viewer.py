"""The viewer: the data it sends to the browser, and its controls."""

import shutil
import socket
import time
from importlib.resources import files
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from commands import exit_code
from evaluate.exact_fits import moving_points
from scipy.spatial.transform import Rotation

from msdyn.cli import fit, view
from msdyn.export import export_as
from msdyn.geometry import rotations_from_quats_wxyz
from msdyn.scene import Scene
from msdyn.sequence import load_sequence
from msdyn.view import Viewer
from msdyn.view.server import listen
from msdyn.view.splats import DisplayOptions, SplatSource


def unpacked(buffer, scale):
    """Return means, covariances, colours and opacities of a buffer, in the world."""
    means = buffer[:, :3].copy().view(np.float32) / scale
    half = buffer[:, 4:7].copy().view(np.float16).astype(float) / scale**2
    covariances = half[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    rgba = buffer[:, 7:].copy().view(np.uint8) / 255
    return means, covariances, rgba[:, :3], rgba[:, 3]


@pytest.fixture(scope="module")
def sequence(fitted_plane_scene):
    return load_sequence(fitted_plane_scene)


def test_the_browser_gets_the_gaussians(sequence):
    source = SplatSource(sequence)
    means, covariances, colours, opacities = unpacked(
        source.moving(2.5, DisplayOptions()), source.scale
    )
    posed = sequence.posed(torch.tensor([2.5]))
    first = posed.num_static
    np.testing.assert_allclose(means, posed.means[0, first:].detach(), rtol=1e-5, atol=1e-6)
    axes = rotations_from_quats_wxyz(posed.quats_wxyz[0, first:]) * posed.scales[first:, None]
    expected = (axes @ axes.mT).detach().numpy()
    size = np.abs(expected).max((1, 2))
    # 16-bit floats have eleven significant bits, also those of small Gaussians.
    assert (np.abs(covariances - expected).max((1, 2)) / size).max() < 2e-3
    np.testing.assert_allclose(opacities, posed.opacities[0, first:].detach(), atol=0.003)
    assert colours.min() >= 0 and colours.std() > 0.01
    assert len(source.static(DisplayOptions())) == first


def test_small_gaussians_survive_16_bits():
    """In metres, a standard deviation of 0.1 mm has a covariance below any 16-bit float."""
    tiny = moving_points([[0, 0, 0.1], [0.01, 0, 0.1]], np.zeros((2, 3, 3)), scale=1e-4)
    source = SplatSource(tiny)
    _, covariances, _, _ = unpacked(source.moving(0.0, DisplayOptions()), source.scale)
    np.testing.assert_allclose(covariances, np.tile(1e-8 * np.eye(3), (2, 1, 1)), rtol=2e-3)


def test_hidden_gaussians_are_sent_with_zero_opacity(sequence):
    source = SplatSource(sequence)
    hidden = source.moving(0.0, DisplayOptions(hidden=frozenset({1})))
    assert len(hidden) == len(sequence.moving)
    assert not unpacked(hidden, source.scale)[3].any()
    assert not unpacked(source.static(DisplayOptions(hidden=frozenset({0}))), source.scale)[3].any()


def test_colourings(sequence):
    source = SplatSource(sequence)
    by = {
        name: unpacked(source.moving(5.0, DisplayOptions(colour=name)), source.scale)[2]
        for name in ("appearance", "object", "primitive", "motion")
    }
    assert len(np.unique(by["object"], axis=0)) == 1  # there is one object
    own = sequence.motion.weights[1]
    strongest = own.index[torch.arange(len(own.index)), own.values.argmax(1)]
    assert len(np.unique(by["primitive"], axis=0)) == len(strongest.unique())
    assert len(np.unique(by["appearance"], axis=0)) > 20
    # Displaced Gaussians are warmer than others; without motion all are alike.
    rest = unpacked(source.moving(5.0, DisplayOptions(colour="motion", levels=0)), source.scale)[2]
    assert len(np.unique(rest, axis=0)) == 1 and np.abs(by["motion"] - rest).max() > 0.2


def test_whole_frames_are_cached(sequence):
    source = SplatSource(sequence)
    assert source.moving(3.0, DisplayOptions()) is source.moving(3.0, DisplayOptions())
    assert source.moving(3.5, DisplayOptions()) is not source.moving(3.5, DisplayOptions())


class Client:
    """The part of a viser client that the viewer uses."""

    class Camera:
        wxyz = np.array([1.0, 0, 0, 0])
        position = np.zeros(3)
        fov = 1.0
        aspect = 2.0

    def __init__(self):
        self.camera = self.Camera()

    def atomic(self):
        import contextlib

        return contextlib.nullcontext()


@pytest.fixture
def viewer(sequence, fitted_plane_scene, tmp_path):
    shown = Viewer(sequence, Scene(fitted_plane_scene), port=0, folder=tmp_path)
    yield shown
    shown.stop()


def test_it_listens_on_localhost_by_default(viewer):
    assert viewer.server.get_host() == "127.0.0.1"
    assert viewer.address.startswith("http://127.0.0.1:")
    assert view.ViewConfig().host == "127.0.0.1"


def test_the_command_prints_who_can_connect(viewer, capsys):
    view.announce(viewer)
    said = capsys.readouterr()
    assert f"look at {viewer.address} (this machine only" in said.out and said.err == ""
    viewer.host = "0.0.0.0"
    view.announce(viewer)
    said = capsys.readouterr()
    assert "others too" in said.out
    warning = said.err.strip()
    assert warning.startswith("warning: ") and "\n" not in warning
    for word in ("0.0.0.0", "images", "exports", str(viewer.folder), "nothing is encrypted"):
        assert word in warning
    assert viewer.access.token not in warning


def test_a_saved_camera_is_that_of_the_client(viewer, sequence):
    """Jump to an input camera, save it, read it with the reader of msdyn-render."""
    from msdyn.io import read_camera_file

    client = Client()
    viewer.show(3.0)
    viewer.jump(client)
    found = read_camera_file(viewer.save_camera(client))
    np.testing.assert_allclose(
        found.cameras.cam_from_world, sequence.cameras[3].cam_from_world, atol=1e-6
    )
    np.testing.assert_allclose(found.cameras.intrinsics, sequence.cameras[3].intrinsics, rtol=1e-6)
    assert found.times == pytest.approx([3 / 5])


def test_a_narrow_window_shows_the_whole_width(viewer, sequence):
    """On a phone the vertical field of view is larger; a saved camera is that of the clip."""
    wide, narrow = Client(), Client()
    narrow.camera.aspect = 0.5
    for client in (wide, narrow):
        viewer.jump(client, 1.0)
    camera = sequence.cameras[1]
    half_width = camera.width / 2 / camera.intrinsics[0, 0, 0]
    assert np.tan(narrow.camera.fov / 2) * 0.5 == pytest.approx(half_width)
    np.testing.assert_allclose(
        viewer.camera_of(narrow).intrinsics, viewer.camera_of(wide).intrinsics, rtol=1e-9
    )


def test_a_recorded_path_has_cameras_and_times(viewer):
    from msdyn.io import read_camera_file

    client = Client()
    assert viewer.record(client) is None
    for frame in (0.0, 2.0, 5.0):
        viewer.show(frame)
        viewer.jump(client)
        viewer._record_step()
    path = viewer.record(client)
    found = read_camera_file(path)
    np.testing.assert_allclose(found.times, [0, 0.4, 1])
    np.testing.assert_allclose(
        found.cameras.centres, viewer.sequence.cameras[[0, 2, 5]].centres, atol=1e-6
    )
    assert viewer.record(client) is None and viewer.record(client) is None  # nothing recorded


def test_playing_has_the_frame_rate_of_the_clip(viewer):
    """Ten frames per second; every shown time is counted."""
    start, begun = viewer.steps, time.monotonic()
    viewer.panel.play(True)
    while viewer.steps < start + 12:
        time.sleep(0.005)
        assert time.monotonic() < begun + 20
    taken = time.monotonic() - begun
    viewer.panel.play(False)
    assert taken >= 1.1  # no faster; under load, frames may be skipped


def test_another_state_of_a_fit_replaces_the_first(viewer, sequence):
    fewer = moving_points([[0, 0, 2.0]], np.zeros((1, 6, 3)), scale=0.05)
    viewer.update(fewer, "step 20 of 100")
    assert viewer.panel.text.content == "step 20 of 100"
    assert list(viewer.splats) == ["moving"] and viewer.splats["moving"][1] == 1
    viewer.update(sequence, "step 40 of 100")
    assert viewer.splats["static"][1] == len(sequence.static)


class Event:
    """A click of a client that records its notifications."""

    def __init__(self):
        self.client, self.said = Client(), []
        self.client.add_notification = lambda **what: self.said.append(what["body"])


def test_buttons_notify_the_client(viewer, tmp_path):
    event = Event()
    viewer.panel._save(event)
    assert event.said == [f"saved {tmp_path / 'novel.json'}"]
    viewer.panel._record(event)
    assert viewer.state.playing and viewer.panel.record.label == "End and save the path"
    viewer.show(2.0)
    viewer._record_step()
    viewer.panel._record(event)
    assert event.said[-1] == f"saved {tmp_path / 'path.json'}"
    assert viewer.panel.record.label == "Record a path"


def test_the_export_button_exports(fitted_plane_scene, tmp_path):
    scene = shutil.copytree(fitted_plane_scene, tmp_path / "scene")
    shown = view.open_viewer(view.ViewConfig(scene, port=0))
    try:
        event = Event()
        shown.panel.format.value = "objects"
        shown.panel._export(event)
        assert event.said[-1].startswith(f"wrote {scene / 'export' / 'objects'} (2 files")
        (scene / "fit" / "sequence.safetensors").unlink()
        shown.panel._export(event)
        assert event.said[-1].startswith("failed: ") and "no fit yet" in event.said[-1]
    finally:
        shown.stop()


def test_controls_change_the_display(viewer):
    viewer.panel.levels.value = "0"
    viewer.panel._levels_changed(None)
    assert viewer.state.display.levels == 0
    viewer.panel.boxes[1].value = False
    viewer.panel._objects_changed(None)
    assert viewer.state.display.hidden == frozenset({1})
    node = viewer.splats["moving"][0]
    assert not (node.buffer[:, 7] >> 24).any()  # opacities
    viewer.panel.boxes[1].value = True
    viewer.panel._objects_changed(None)
    assert (node.buffer[:, 7] >> 24).any()
    viewer.panel.compare.value = True
    viewer.panel._comparison_changed(None)
    viewer.panel.go(3.0)
    np.testing.assert_array_equal(viewer.panel.picture.image, viewer.image(3))
    viewer.panel.compare.value = False
    viewer.panel._comparison_changed(None)
    viewer.panel.go(4.0)
    assert viewer.panel.picture is None
    viewer.panel.trail_box.value = True
    viewer.panel._trails_changed(None)
    viewer.show(5.0)
    assert viewer.trails is not None and np.isfinite(viewer.trails.points).all()


def test_an_exported_ply_loads_in_viser(viewer, sequence, tmp_path):
    """Read by another PLY reader, like viser's own example of 3DGS files does."""
    from plyfile import PlyData

    export_as(sequence, "ply", tmp_path / "ply", time=0.4)
    vertex = PlyData.read(tmp_path / "ply" / "00000.ply")["vertex"]
    means = np.stack([vertex[n] for n in "xyz"], -1)
    scales = np.exp(np.stack([vertex[f"scale_{i}"] for i in range(3)], -1))
    w, x, y, z = (vertex[f"rot_{i}"] for i in range(4))
    axes = Rotation.from_quat(np.stack([x, y, z, w], -1)).as_matrix() * scales[:, None]
    colours = 0.5 + 0.28209479177387814 * np.stack([vertex[f"f_dc_{i}"] for i in range(3)], -1)
    node = viewer.server.scene.add_gaussian_splats(
        "/ply",
        centers=means,
        covariances=axes @ axes.swapaxes(1, 2),
        rgbs=colours.clip(0, 1),
        opacities=1 / (1 + np.exp(-vertex["opacity"][:, None])),
    )
    posed = sequence.at(0.4)
    np.testing.assert_allclose(node.centers, posed.means[0].detach(), atol=1e-6)
    assert len(node.centers) == sequence.num_gaussians


def test_frusta_and_images(viewer):
    viewer.show_frusta(True)
    assert len(viewer.frusta) == 6 and viewer.frusta[0].visible
    viewer.show_frusta(False)
    assert not viewer.frusta[0].visible
    np.testing.assert_array_equal(viewer.image(2), viewer.scene.image(2))


def test_frusta_are_shown_from_behind_and_do_not_block_the_view(viewer, sequence):
    event = Event()
    viewer.jump(event.client, 2.0)
    eye, forward = sequence.cameras[2].centres[0], sequence.cameras[2].world_from_cam[0, :3, 2]
    viewer.panel.frusta_box.value = True
    viewer.show_frusta(True, event.client)
    back = (eye - event.client.camera.position) @ forward
    size = viewer.frusta[0].scale
    assert back > 3 * size
    np.testing.assert_allclose(eye - event.client.camera.position, back * forward, atol=1e-6)
    there = event.client.camera.position
    viewer.show_frusta(True, event.client)  # far enough away already
    np.testing.assert_array_equal(event.client.camera.position, there)
    # No larger than the distance between cameras; line widths in pixels, not in metres.
    steps = np.linalg.norm(np.diff(sequence.cameras.centres, axis=0), axis=1)
    means = sequence.static.means.detach().numpy()
    reach = np.median(np.linalg.norm(means - sequence.cameras.centres[0], axis=1))
    assert size <= max(np.median(steps), 0.022 * reach)
    assert viewer.frusta[0].thickness_units == "screen"
    viewer._frustum_clicked(event, 4.0)
    assert viewer.state.frame == 4.0 and not viewer.panel.frusta_box.value
    assert not any(frustum.visible for frustum in viewer.frusta)
    np.testing.assert_allclose(event.client.camera.position, sequence.cameras[4].centres[0])


def test_a_running_fit_is_shown(plane_scene, monkeypatch, capsys):
    texts = []
    monkeypatch.setattr(Viewer, "update", lambda self, sequence, text: texts.append(text))
    monkeypatch.setattr(fit, "_REFRESH_SECONDS", 0.0)
    options = ["--preset", "quick", "--epochs", "8", "--prefit-steps", "2", "--device", "cpu"]
    assert fit.main([str(plane_scene.directory), *options, "--view", "--port", "0"]) == 0
    assert "look at http://127.0.0.1:" in capsys.readouterr().out
    assert texts and texts[-1].startswith("step 48 of 48: loss ") and "PSNR" in texts[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--host", "203.0.113.1"), "cannot listen on 203.0.113.1"),  # for documentation only
        (("--host", "no such name"), "cannot listen on no such name"),
        (("--port", "80000"), "--port: expected at most 65535, or 0, got 80000"),
        (("--port", "-1"), "--port: expected at least 1, or 0, got -1"),
        (("--allow-host", "http://a.example/"), "--allow-host: expected a host"),
    ],
)
def test_addresses_that_cannot_be_used_are_errors(fitted_plane_scene, options, message, capsys):
    assert exit_code(view.main, [fitted_plane_scene, *options]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_port_in_use_is_an_error_if_it_was_named(fitted_plane_scene, capsys, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert view.main([str(fitted_plane_scene), "--port", str(port)]) == 2
        said = capsys.readouterr().err
        assert f"--port: {port} is in use" in said and said.count("\n") == 1
        monkeypatch.setattr("msdyn.view.server.PORT", port)
        with listen("127.0.0.1", None) as free:
            assert port < free.getsockname()[1] < port + 100


def test_the_script_comes_before_those_of_viser(viewer):
    with urlopen(viewer.address) as answer:
        page = answer.read().decode()
    script = files("msdyn.view").joinpath("page.js").read_text(encoding="utf-8")
    assert page.index(script) < page.index("</script>") < page.rindex("<script")
    assert "<title>msdyn</title>" in page


def test_exports_do_not_follow_links_out_of_the_folder(fitted_plane_scene, tmp_path):
    scene = shutil.copytree(fitted_plane_scene, tmp_path / "scene")
    outside = tmp_path / "outside"
    outside.mkdir()
    shown = view.open_viewer(view.ViewConfig(scene, port=0))
    try:
        event = Event()
        for link in (scene / "export", scene / "export" / "objects"):
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(outside)
            shown.panel.format.value = "objects"
            shown.panel._export(event)
            assert "failed: " in event.said[-1] and "leads out of" in event.said[-1]
            assert list(outside.iterdir()) == []
            link.unlink()
    finally:
        shown.stop()
