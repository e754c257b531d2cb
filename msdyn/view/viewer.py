"""The viewer: a sequence in the browser, by viser. The browser draws the Gaussians itself."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from msdyn.errors import InputError
from msdyn.geometry import Cameras, quats_wxyz_from_rotations
from msdyn.scene import Scene, write_cameras
from msdyn.sequence import GaussianSequence
from msdyn.view.page import our_page
from msdyn.view.panel import Panel
from msdyn.view.splats import SplatSource
from msdyn.view.state import ViewState

if TYPE_CHECKING:
    import viser

__all__ = ["Viewer"]

LOCAL = "127.0.0.1"
_FRUSTA = 24
_TRAILS = 120
_TRAIL_FRAMES = 10
_IMAGE_SIDE = 320
_LINE = 1.5
"""Thickness of lines in pixels: viser's own default is in scene units, whatever their size."""


class Viewer:
    """A server that shows a sequence; it lives until `stop`.

    Attributes:
        server: viser's server.
        state: what is shown.
        steps: times shown so far.
    """

    def __init__(
        self,
        sequence: GaussianSequence,
        scene: Scene | None = None,
        *,
        host: str = LOCAL,
        port: int = 8080,
        folder: Path | None = None,
        export: Callable[[str], str] | None = None,
        formats: tuple[str, ...] = (),
    ) -> None:
        """Start to listen and show the sequence.

        Args:
            sequence: what to show.
            scene: for the input's images; without it there are none.
            host: address to listen on; the default is this machine alone.
            port: the next free one is taken where it is in use.
            folder: where cameras and paths are saved; the current directory by default.
            export: called with a format by the export button, returns what to say.
            formats: that the button offers.

        Raises:
            InputError: the address cannot be listened on.
        """
        import viser

        _check_address(host)
        with our_page() as self.page:
            self.server = viser.ViserServer(host=host, port=port, verbose=False)
        self.host, self.scene, self.folder = host, scene, folder or Path()
        self.lock = threading.RLock()
        self.state, self.steps = ViewState(), 0
        self.clock = 0.0
        self.recorded: Any = None
        self.path: list[tuple[Cameras, float]] | None = None
        self.splats: dict[str, Any] = {}
        self.frusta: list[Any] = []
        self.trails: Any = None
        self._take(sequence)
        up = -sequence.cameras.cam_from_world[:, 1, :3].mean(0)
        self.server.scene.set_up_direction(up / np.linalg.norm(up))
        self.server.gui.configure_theme(control_width="medium", show_share_button=False)
        self.panel = Panel(self, formats if export is not None else (), export)
        self.show(0.0, everything=True)
        self.server.on_client_connect(self.jump)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._play, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        """Where to point a browser."""
        host = self.host if self.host not in ("0.0.0.0", "::") else "localhost"
        return f"http://{host}:{self.server.get_port()}"

    def update(self, sequence: GaussianSequence, text: str) -> None:
        """Show another state of the sequence, as a fit makes them, and say something of it."""
        with self.lock:
            self._take(sequence)
            self.panel.say(text)
            self.show(self.state.frame, everything=True)

    def show(self, frame: float, *, everything: bool = False) -> None:
        """Show the time of a fractional frame index.

        Args:
            frame: 0 to the last frame of the clip.
            everything: send what does not move too.
        """
        with self.lock:
            self.state.frame = float(np.clip(frame, 0, len(self.sequence.timeline) - 1))
            if everything:
                self._send("static", self.source.static(self.state.look))
            self._send("moving", self.source.moving(self.state.frame, self.state.look))
            self._show_trails()
            self.panel.show_image()
            self.steps += 1
        self.server.flush()

    def change(self, **look: Any) -> None:
        """Change what is shown: see `Look`."""
        with self.lock:
            self.state.look = replace(self.state.look, **look)
            self.show(self.state.frame, everything=True)

    def jump(self, client: Any, frame: float | None = None) -> None:
        """Put a client's camera where the input camera is, at the present time or another."""
        place = self.state.frame if frame is None else frame
        camera = self.sequence.cameras.interpolated(np.array([place]))
        with client.atomic():
            client.camera.wxyz = _quat(camera)
            client.camera.position = camera.centres[0]
            client.camera.fov = _fov(camera)

    def camera_of(self, client: viser.ClientHandle) -> Cameras:
        """Return a client's camera, of the size of the clip's images."""
        height, width = self.sequence.cameras.height, self.sequence.cameras.width
        from scipy.spatial.transform import Rotation

        w, x, y, z = client.camera.wxyz
        rotation = Rotation.from_quat([x, y, z, w]).as_matrix()
        pose = np.eye(4)
        pose[:3, :3] = rotation.T
        pose[:3, 3] = -rotation.T @ client.camera.position
        focal = height / 2 / np.tan(client.camera.fov / 2)
        return Cameras.pinhole(focal, width, height, pose)

    def save_camera(self, client: viser.ClientHandle, name: str = "novel.json") -> Path:
        """Save a client's camera and the present time as a camera file; return it."""
        path = self.folder / name
        moment = float(np.interp(self.state.frame, *self._axis()))
        write_cameras(path, self.camera_of(client), np.array([moment]))
        return path

    def record(self, client: viser.ClientHandle | None, name: str = "path.json") -> Path | None:
        """Begin to record a client's camera at every time shown; end and save it when called again.

        Returns:
            The file once a recording has ended, otherwise None.
        """
        with self.lock:
            if self.path is None:
                self.path, self.recorded = [], client
                return None
            path, self.path = self.path, None
        if not path:
            return None
        cameras = [camera for camera, _ in path]
        joined = Cameras(
            np.concatenate([c.intrinsics for c in cameras]),
            np.concatenate([c.cam_from_world for c in cameras]),
            cameras[0].width,
            cameras[0].height,
        )
        write_cameras(self.folder / name, joined, np.array([moment for _, moment in path]))
        return self.folder / name

    def show_frusta(self, visible: bool, client: Any = None) -> None:
        """Show input cameras as frusta with their images, to a client from where it sees them."""
        with self.lock:
            if visible and not self.frusta:
                self._make_frusta()
            for frustum in self.frusta:
                frustum.visible = visible
        if visible and client is not None:
            self._step_back(client)

    def _step_back(self, client: Any) -> None:
        """Take a client out of the frusta it stands among, backwards along its line of sight."""
        reach = _reach(self.sequence)
        places = self.sequence.cameras.centres - np.asarray(client.camera.position)
        if np.linalg.norm(places, axis=1).min() < 0.25 * reach:
            forward = self.camera_of(client).world_from_cam[0, :3, 2]
            client.camera.position = client.camera.position - 0.5 * reach * forward

    @property
    def recording(self) -> bool:
        """Whether a client's camera is being recorded."""
        return self.path is not None

    def wait(self) -> None:
        """Serve until interrupted."""
        try:
            while not self.stopped.wait(1.0):
                pass
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop playing and listening."""
        self.stopped.set()
        self.thread.join(2)
        self.server.stop()
        self.page.cleanup()

    def _take(self, sequence: GaussianSequence) -> None:
        self.sequence = sequence.cpu()
        self.source = SplatSource(self.sequence)

    def _axis(self) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(self.sequence.timeline)), self.sequence.timeline.times

    def _send(self, name: str, buffer: np.ndarray) -> None:
        """Send Gaussians; a node of as many is updated in place, which the client does faster."""
        count, scale = len(buffer), 1 / self.source.scale
        old = self.splats.get(name)
        if old is not None and (count, scale) == old[1:]:
            old[0].buffer = buffer
            return
        if old is not None:
            old[0].remove()
            del self.splats[name]
        if count:
            node = self.server.scene.add_gaussian_splats(
                f"/{name}",
                np.zeros((count, 3)),
                np.zeros((count, 3, 3)),
                np.zeros((count, 3)),
                np.zeros((count, 1)),
                scale=scale,
            )
            node.buffer = buffer
            self.splats[name] = (node, count, scale)

    def _show_trails(self) -> None:
        if not self.state.trails or not len(self.sequence.moving):
            if self.trails is not None:
                self.trails.remove()
                self.trails = None
            return
        opaque = torch.nonzero(self.sequence.moving.opacities > 0.5)[:, 0]
        chosen = opaque[torch.from_numpy(np.random.default_rng(0).permutation(len(opaque)))]
        frames = torch.linspace(
            max(self.state.frame - _TRAIL_FRAMES, 0), self.state.frame, _TRAIL_FRAMES + 1
        )
        paths = self.sequence.paths(chosen[:_TRAILS], frames, levels=self.state.look.levels)
        places = paths.numpy()  # [P, n, 3]
        segments = np.stack([places[:-1], places[1:]], axis=2).reshape(-1, 2, 3)
        shade = np.linspace(0.25, 1, _TRAIL_FRAMES)[:, None, None] * 255
        colours = np.broadcast_to(
            shade * [1.0, 0.85, 0.2], (_TRAIL_FRAMES, paths.shape[1], 3)
        ).reshape(-1, 1, 3)
        colours = np.repeat(colours, 2, axis=1).astype(np.uint8)
        self.trails = self.server.scene.add_line_segments(
            "/trails",
            segments.astype(np.float32),
            colours,
            thickness=_LINE,
            thickness_units="screen",
        )

    def _make_frusta(self) -> None:
        cameras = self.sequence.cameras
        chosen = np.unique(np.linspace(0, len(cameras) - 1, _FRUSTA).round().astype(int))
        # No larger than the steps between them, where that leaves them to be seen.
        steps = np.linalg.norm(np.diff(cameras.centres[chosen], axis=0), axis=1)
        step = float(np.median(steps)) if len(steps) else 0.0
        reach = _reach(self.sequence)
        size = float(np.clip(step, 0.02 * reach, 0.08 * reach))
        for frame in chosen.tolist():
            camera = cameras[frame]
            frustum = self.server.scene.add_camera_frustum(
                f"/cameras/{frame:05d}",
                fov=_fov(camera),
                aspect=camera.width / camera.height,
                scale=size,
                thickness=_LINE,
                thickness_units="screen",
                wxyz=_quat(camera),
                position=camera.centres[0],
                image=self.image(frame),
                color=(120, 140, 170),
            )
            frustum.on_click(lambda event, f=float(frame): self._visit(event, f))
            self.frusta.append(frustum)

    def _visit(self, event: Any, frame: float) -> None:
        self.panel.frusta_box.value = False  # they would stand before the view
        self.show_frusta(False)
        self.jump(event.client, frame)
        self.panel.go(frame)

    def image(self, frame: int) -> np.ndarray | None:
        """Return the input image of a frame, at most 320 px wide; None without a scene."""
        if self.scene is None:
            return None
        image = self.scene.image(frame)
        step = max(1, -(-max(image.shape[:2]) // _IMAGE_SIDE))
        return np.ascontiguousarray(image[::step, ::step])

    def _play(self) -> None:
        """Let time go on while it plays, at the clip's rate times the speed asked for."""
        last = time.perf_counter()
        while not self.stopped.is_set():
            now = time.perf_counter()
            elapsed, last = now - last, now
            rate = self.sequence.timeline.fps * self.state.speed
            if self.state.playing:
                end = len(self.sequence.timeline) - 1
                self.clock = (self.clock + elapsed * rate) % (end + 1)
                frame = min(float(np.floor(self.clock)), end)
                if frame != self.state.frame:
                    self.panel.go(frame)
                    self._record_step()
            else:
                self.clock = self.state.frame
            self.stopped.wait(
                max(min(1 / max(rate, 1e-3), 0.1) - (time.perf_counter() - now), 0.001)
            )

    def _record_step(self) -> None:
        if self.path is not None and self.recorded is not None:
            moment = float(np.interp(self.state.frame, *self._axis()))
            self.path.append((self.camera_of(self.recorded), moment))


def _check_address(host: str) -> None:
    """Refuse what is no address of this machine: viser would wait for it without end."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError as error:
        raise InputError(f"--host: cannot listen on {host} ({error.strerror or error})") from error


def _quat(camera: Cameras) -> np.ndarray:
    rotation = torch.from_numpy(camera.world_from_cam[0, :3, :3])
    return quats_wxyz_from_rotations(rotation).numpy()


def _fov(camera: Cameras) -> float:
    """Return the vertical angle of view in radians."""
    return float(2 * np.arctan(camera.height / 2 / camera.intrinsics[0, 1, 1]))


def _reach(sequence: GaussianSequence) -> float:
    """Return the median distance of Gaussians from the first camera."""
    means = torch.cat([sequence.static.means, sequence.moving.means]).detach().numpy()
    if not len(means):
        return 1.0
    return float(np.median(np.linalg.norm(means - sequence.cameras.centres[0], axis=1)))
