"""The viewer's controls: time, display options, cameras, export."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from msdyn.errors import MsdynError
from msdyn.view.splats import COLOURINGS
from msdyn.view.state import ViewerActions

__all__ = ["Panel"]

_SPEEDS = {"1/4": 0.25, "1/2": 0.5, "1": 1.0, "2": 2.0}


class Panel:
    """Controls of a viewer: they write its state and call its actions."""

    def __init__(
        self,
        viewer: ViewerActions,
        formats: tuple[str, ...] = (),
        export: Callable[[str], str] | None = None,
    ) -> None:
        """Add the controls to the viewer's page.

        Args:
            viewer: the viewer to control.
            formats: choices of the export button; without any there is no button.
            export: called with a format by the button, returns a message for the user.
        """
        self.viewer, self.state = viewer, viewer.state
        self.exporter = export
        self.exporting = threading.Lock()
        gui: Any = viewer.server.gui
        sequence = viewer.sequence
        self.text = gui.add_markdown(
            f"{len(sequence.static):,} static and {len(sequence.moving):,} moving Gaussians, "
            f"{sequence.num_levels} levels of motion, {len(sequence.timeline)} frames"
        )
        with gui.add_folder("Time"):
            last = len(sequence.timeline) - 1
            self.button = gui.add_button("Play")
            self.slider = gui.add_slider(
                "frame", min=0.0, max=float(last), step=0.1, initial_value=0.0
            )
            self.speed = gui.add_dropdown("speed", tuple(_SPEEDS), initial_value="1")
        with gui.add_folder("Show"):
            self.colour = gui.add_dropdown("colour by", COLOURINGS, initial_value=COLOURINGS[0])
            levels = ["all", *map(str, range(sequence.num_levels))]
            self.levels = gui.add_dropdown("motion levels", tuple(levels), initial_value="all")
            self.boxes = {0: gui.add_checkbox("background", initial_value=True)}
            for label in sequence.objects:
                self.boxes[label] = gui.add_checkbox(f"object {label}", initial_value=True)
            self.trail_box = gui.add_checkbox("trails", initial_value=False)
            self.frusta_box = gui.add_checkbox("input cameras", initial_value=False)
            self.compare = gui.add_checkbox("input image", initial_value=False)
            self.picture: Any = None
        with gui.add_folder("Camera"):
            self.jump = gui.add_button("To the input camera")
            self.save = gui.add_button("Save as novel.json")
            self.record = gui.add_button("Record a path")
        if formats:
            with gui.add_folder("Export"):
                self.format = gui.add_dropdown("format", formats, initial_value=formats[0])
                self.export = gui.add_button("Export")
                self.export.on_click(self._export)
        self.button.on_click(lambda _: self.play(not self.state.playing))
        self.slider.on_update(self._slider_moved)
        self.colour.on_update(lambda _: viewer.change(colour=self.colour.value))
        self.levels.on_update(self._levels_changed)
        for box in self.boxes.values():
            box.on_update(self._objects_changed)
        self.speed.on_update(self._speed_changed)
        self.trail_box.on_update(self._trails_changed)
        self.frusta_box.on_update(
            lambda event: viewer.show_frusta(self.frusta_box.value, event.client)
        )
        self.compare.on_update(self._comparison_changed)
        self.jump.on_click(lambda event: viewer.jump(event.client))
        self.save.on_click(self._save)
        self.record.on_click(self._record)

    def play(self, on: bool) -> None:
        """Play or pause."""
        self.state.playing = on
        self.button.label = "Pause" if on else "Play"

    def go(self, frame: float) -> None:
        """Show a frame, and move the slider there."""
        self.slider.value = frame
        self.viewer.show(frame)

    def set_text(self, text: str) -> None:
        """Show a text at the top of the controls."""
        self.text.content = text

    def show_image(self) -> None:
        """Show the input image of the current frame, if it is switched on and available."""
        image = self.viewer.image(round(self.state.frame)) if self.state.input_image else None
        if image is None:
            if self.picture is not None:
                self.picture.remove()
                self.picture = None
        elif self.picture is None:
            self.picture = self.viewer.server.gui.add_image(image, label="input", format="jpeg")
        else:
            self.picture.image = image

    def _slider_moved(self, event: Any) -> None:
        if event.client is None:  # set by `go`
            return
        self.play(False)
        self.viewer.show(self.slider.value)

    def _speed_changed(self, _: Any) -> None:
        self.state.speed = _SPEEDS[self.speed.value]

    def _trails_changed(self, _: Any) -> None:
        self.state.trails = bool(self.trail_box.value)
        self.viewer.show(self.state.frame)

    def _comparison_changed(self, _: Any) -> None:
        self.state.input_image = bool(self.compare.value)
        self.show_image()

    def _levels_changed(self, _: Any) -> None:
        value = self.levels.value
        self.viewer.change(levels=None if value == "all" else int(value))

    def _objects_changed(self, _: Any) -> None:
        hidden = frozenset(label for label, box in self.boxes.items() if not box.value)
        self.viewer.change(hidden=hidden)

    def _save(self, event: Any) -> None:
        self._notify(event, lambda: f"saved {self.viewer.save_camera(event.client)}")

    def _record(self, event: Any) -> None:
        path = self.viewer.record(event.client)
        recording = self.viewer.recording
        self.record.label = "End and save the path" if recording else "Record a path"
        if recording:
            self.play(True)
        self._notify(event, lambda: f"saved {path}" if path else "recording while time plays")

    def _export(self, event: Any) -> None:
        assert self.exporter is not None
        export = self.exporter
        if not self.exporting.acquire(blocking=False):
            self._notify(event, lambda: "an export is running")
            return
        try:
            self._notify(event, lambda: f"wrote {export(self.format.value)}")
        finally:
            self.exporting.release()

    def _notify(self, event: Any, action: Callable[[], str]) -> None:
        """Run an action and show its result or error to the client."""
        try:
            text = action()
        except (MsdynError, OSError) as error:
            text = f"failed: {error}"
        event.client.add_notification(title="msdyn", body=text, auto_close_seconds=6.0)
