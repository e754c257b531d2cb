"""The viewer: a sequence in the browser, by viser. The browser renders the Gaussians."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8, UInt32

from msdyn.errors import InputError
from msdyn.geometry import Cameras, quats_wxyz_from_rotations
from msdyn.indices import evenly_spaced
from msdyn.render import gaussian_trails, trail_gaussians
from msdyn.scene import Scene, write_cameras
from msdyn.sequence import GaussianSequence
from msdyn.view.access import Access
from msdyn.view.panel import Panel
from msdyn.view.server import listen, start_server
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
"""Thickness of lines in pixels; viser's default is in scene units, which differ between scenes."""


class Viewer:
    """A server that shows a sequence until `stop` is called.

    Attributes:
        server: viser's server.
        state: time and display options.
        steps: number of times shown so far.
    """

    def __init__(
        self,
        sequence: GaussianSequence,
        scene: Scene | None = None,
        *,
        host: str = LOCAL,
        port: int | None = None,
        folder: Path | None = None,
        export: Callable[[str], str] | None = None,
        formats: tuple[str, ...] = (),
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        """Start the server and show the sequence.

        Args:
            sequence: the fit.
            scene: source of the input images; without it there are none.
            host: address to listen on; by default, for connections from this computer only.
            port: to listen on, 0 for any free one; by default 8080, or the next free one.
            folder: where cameras and paths are saved; the current directory by default.
            export: called with a format by the export button, returns a message for the user.
            formats: choices of the button.
            allowed_hosts: names by which the viewer may be called besides those of this computer,
                as through a proxy; see `Access`.

        Raises:
            InputError: the address cannot be listened on, or a host is malformed.
        """
        listening = listen(host, port)
        try:
            self.access = Access(host, listening.getsockname()[1], allowed_hosts)
        except InputError:
            listening.close()
            raise
        self.server = start_server(listening, self.access)
        self.host, self.scene = host, scene
        self.folder = (folder or Path()).resolve()
        self.lock = threading.RLock()
        self.state, self.steps = ViewState(), 0
        self.clock = 0.0
        self.recorded_client: viser.ClientHandle | None = None
        self.path: list[tuple[Cameras, float]] | None = None
        self.splats: dict[str, Any] = {}
        self.frusta: list[Any] = []
        self.trails: Any = None
        self._set_sequence(sequence)
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
        """The URL of the viewer, with its token."""
        return self.access.address

    def update(self, sequence: GaussianSequence, text: str) -> None:
        """Show another state of the sequence during a fit, and a text about it."""
        with self.lock:
            self._set_sequence(sequence)
            self.panel.set_text(text)
            self.show(self.state.frame, everything=True)

    def show(self, frame: float, *, everything: bool = False) -> None:
        """Show the time of a fractional frame index.

        Args:
            frame: 0 to the last frame of the clip.
            everything: send the static Gaussians too.
        """
        with self.lock:
            self.state.frame = float(np.clip(frame, 0, len(self.sequence.timeline) - 1))
            if everything:
                self._send("static", self.source.static(self.state.display))
            self._send("moving", self.source.moving(self.state.frame, self.state.display))
            self._show_trails()
            self.panel.show_image()
            self.steps += 1
        self.server.flush()

    def change(self, **options: Any) -> None:
        """Change fields of `DisplayOptions`."""
        with self.lock:
            self.state.display = replace(self.state.display, **options)
            self.show(self.state.frame, everything=True)

    def jump(self, client: viser.ClientHandle, frame: float | None = None) -> None:
        """Move a client's camera to the input camera of a frame, by default the current one.

        A window narrower than the clip, as on a phone, shows its whole width.
        """
        position = self.state.frame if frame is None else frame
        camera = self.sequence.cameras.interpolated(np.array([position]))
        with client.atomic():
            client.camera.wxyz = _quat_wxyz(camera)
            client.camera.position = camera.centres[0]
            client.camera.fov = _scaled_fov(_fov(camera), 1 / _narrowness(client, camera))

    def camera_of(self, client: viser.ClientHandle) -> Cameras:
        """Return a client's camera with the image size of the clip.

        From a window narrower than the clip, one of the same width of view.
        """
        height, width = self.sequence.cameras.height, self.sequence.cameras.width
        from scipy.spatial.transform import Rotation

        w, x, y, z = client.camera.wxyz
        rotation = Rotation.from_quat([x, y, z, w]).as_matrix()
        pose = np.eye(4)
        pose[:3, :3] = rotation.T
        pose[:3, 3] = -rotation.T @ client.camera.position
        fov = _scaled_fov(client.camera.fov, _narrowness(client, self.sequence.cameras))
        focal = height / 2 / np.tan(fov / 2)
        return Cameras.pinhole(focal, width, height, pose)

    def save_camera(self, client: viser.ClientHandle, name: str = "novel.json") -> Path:
        """Save a client's camera and the current time as a camera file; return its path."""
        path = self.folder / name
        time_shown = float(np.interp(self.state.frame, *self._frames_and_times()))
        write_cameras(path, self.camera_of(client), np.array([time_shown]))
        return path

    def record(self, client: viser.ClientHandle | None, name: str = "path.json") -> Path | None:
        """Start recording a client's camera at every time shown; a second call stops and saves it.

        Returns:
            The file of a recording that has ended, otherwise None.
        """
        with self.lock:
            if self.path is None:
                self.path, self.recorded_client = [], client
                return None
            path, self.path = self.path, None
        if not path:
            return None
        cameras = [camera for camera, _ in path]
        recorded = Cameras(
            np.concatenate([c.intrinsics for c in cameras]),
            np.concatenate([c.cam_from_world for c in cameras]),
            cameras[0].width,
            cameras[0].height,
        )
        write_cameras(self.folder / name, recorded, np.array([shown for _, shown in path]))
        return self.folder / name

    def show_frusta(self, visible: bool, client: viser.ClientHandle | None = None) -> None:
        """Show or hide the input cameras as frusta with their images.

        A given client is moved back where it would stand inside the frusta.
        """
        with self.lock:
            if visible and not self.frusta:
                self._make_frusta()
            for frustum in self.frusta:
                frustum.visible = visible
        if visible and client is not None:
            self._step_back(client)

    def _step_back(self, client: viser.ClientHandle) -> None:
        """Move a client close to the input cameras back along its optical axis."""
        distance = _median_distance(self.sequence)
        offsets = self.sequence.cameras.centres - np.asarray(client.camera.position)
        if np.linalg.norm(offsets, axis=1).min() < 0.25 * distance:
            forward = self.camera_of(client).world_from_cam[0, :3, 2]
            client.camera.position = client.camera.position - 0.5 * distance * forward

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
        """Stop playing and close the server."""
        self.stopped.set()
        self.thread.join(2)
        self.server.stop()

    def _set_sequence(self, sequence: GaussianSequence) -> None:
        self.sequence = sequence.cpu()
        self.source = SplatSource(self.sequence)

    def _frames_and_times(
        self,
    ) -> tuple[Int[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
        return np.arange(len(self.sequence.timeline)), self.sequence.timeline.times

    def _send(self, name: str, buffer: UInt32[np.ndarray, "gaussians 8"]) -> None:
        """Send Gaussians; a node with the same number is updated in place, which is faster."""
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
        """Draw the paths of some opaque moving Gaussians over the last frames, if switched on."""
        if not self.state.trails or not len(self.sequence.moving):
            if self.trails is not None:
                self.trails.remove()
                self.trails = None
            return
        points = gaussian_trails(
            self.sequence,
            trail_gaussians(self.sequence, _TRAILS, self.state.frame),
            self.state.frame,
            frames=_TRAIL_FRAMES,
            points=_TRAIL_FRAMES + 1,
            levels=self.state.display.levels,
        )  # [points, trails, 3]
        segments = np.stack([points[:-1], points[1:]], axis=2).reshape(-1, 2, 3)
        shade = np.linspace(0.25, 1, _TRAIL_FRAMES)[:, None, None] * 255
        colours = np.broadcast_to(
            shade * [1.0, 0.85, 0.2], (_TRAIL_FRAMES, points.shape[1], 3)
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
        chosen = evenly_spaced(len(cameras), _FRUSTA)
        # No larger than the distance between neighbours, within bounds.
        steps = np.linalg.norm(np.diff(cameras.centres[chosen], axis=0), axis=1)
        step = float(np.median(steps)) if len(steps) else 0.0
        distance = _median_distance(self.sequence)
        size = float(np.clip(step, 0.02 * distance, 0.08 * distance))
        for frame in chosen.tolist():
            camera = cameras[frame]
            frustum = self.server.scene.add_camera_frustum(
                f"/cameras/{frame:05d}",
                fov=_fov(camera),
                aspect=camera.width / camera.height,
                scale=size,
                thickness=_LINE,
                thickness_units="screen",
                wxyz=_quat_wxyz(camera),
                position=camera.centres[0],
                image=self.image(frame),
                color=(120, 140, 170),
            )
            frustum.on_click(lambda event, f=float(frame): self._frustum_clicked(event, f))
            self.frusta.append(frustum)

    def _frustum_clicked(self, event: Any, frame: float) -> None:
        """Move the client to the clicked camera and its time."""
        self.panel.frusta_box.value = False  # the frusta would block the view
        self.show_frusta(False)
        self.jump(event.client, frame)
        self.panel.go(frame)

    def image(self, frame: int) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return the input image of a frame, at most 320 px a side; None without a scene."""
        if self.scene is None:
            return None
        image = self.scene.image(frame)
        step = max(1, -(-max(image.shape[:2]) // _IMAGE_SIDE))
        return np.ascontiguousarray(image[::step, ::step])

    def _play(self) -> None:
        """Advance the time while playing, at the clip's frame rate times the chosen speed."""
        last = time.perf_counter()
        while not self.stopped.is_set():
            now = time.perf_counter()
            elapsed, last = now - last, now
            fps = self.sequence.timeline.fps * self.state.speed
            if self.state.playing:
                end = len(self.sequence.timeline) - 1
                self.clock = (self.clock + elapsed * fps) % (end + 1)
                frame = min(float(np.floor(self.clock)), end)
                if frame != self.state.frame:
                    self.panel.go(frame)
                    self._record_step()
            else:
                self.clock = self.state.frame
            self.stopped.wait(
                max(min(1 / max(fps, 1e-3), 0.1) - (time.perf_counter() - now), 0.001)
            )

    def _record_step(self) -> None:
        if self.path is not None and self.recorded_client is not None:
            time_shown = float(np.interp(self.state.frame, *self._frames_and_times()))
            self.path.append((self.camera_of(self.recorded_client), time_shown))


def _quat_wxyz(camera: Cameras) -> Float[np.ndarray, " 4"]:
    """Return the orientation of a camera, `world_from_cam`."""
    rotation = torch.from_numpy(camera.world_from_cam[0, :3, :3])
    return quats_wxyz_from_rotations(rotation).numpy()


def _fov(camera: Cameras) -> float:
    """Return the vertical field of view in radians."""
    return float(2 * np.arctan(camera.height / 2 / camera.intrinsics[0, 1, 1]))


def _narrowness(client: viser.ClientHandle, camera: Cameras) -> float:
    """Return the ratio of the aspect of a client's window to that of the clip, at most 1."""
    return min(1.0, client.camera.aspect * camera.height / camera.width)


def _scaled_fov(fov: float, factor: float) -> float:
    """Return the field of view of an image that is higher by a factor, in radians."""
    return float(2 * np.arctan(np.tan(fov / 2) * factor))


def _median_distance(sequence: GaussianSequence) -> float:
    """Return the median distance of Gaussians from the first camera."""
    means = torch.cat([sequence.static.means, sequence.moving.means]).detach().numpy()
    if not len(means):
        return 1.0
    return float(np.median(np.linalg.norm(means - sequence.cameras.centres[0], axis=1)))
