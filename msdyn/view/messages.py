"""Messages from the browser, checked before viser handles them.

viser acts on any message of its protocol, whatever its values: it would take files, open a tunnel
to a server of its project, and pass a text to the handler of a slider. The page of the viewer sends
three kinds; others, and malformed ones, are dropped.
"""

from __future__ import annotations

import math
from typing import Any, TypeGuard

__all__ = ["CheckedMessages", "is_allowed_value"]

_LARGEST = 1e9
"""Of coordinates; far beyond any scene, and far from where their squares overflow."""
_VECTORS = {"wxyz": 4, "position": 3, "look_at": 3, "up_direction": 3}
_MAX_PIXELS = 100_000
_MAX_NAME = 200


class Dropped:
    """Stands for a message that is not handled: no handler is registered for this class."""


class CheckedMessages:
    """In place of viser's class of messages: decodes those of the page, drops all others.

    Attributes:
        gui: viser's interface to the controls; without it, updates of controls are dropped.
    """

    def __init__(self) -> None:
        self.gui: Any = None

    def deserialize(self, raw: bytes) -> Any:
        """Return the message of a frame, or `Dropped`."""
        import msgspec
        from viser import _messages

        try:
            content = msgspec.msgpack.decode(raw)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return Dropped()
        if not isinstance(content, dict):
            return Dropped()
        kind = content.get("type")
        if kind == "ViewerCameraMessage" and _is_camera(content):
            fields = (*_VECTORS, "fov", "near", "far", "image_height", "image_width")
            return _messages.ViewerCameraMessage(**{key: _vector(content[key]) for key in fields})
        if kind == "GuiUpdateMessage" and self._is_update(content):
            value = content["updates"]["value"]
            return _messages.GuiUpdateMessage(uuid=content["uuid"], updates={"value": value})
        if kind == "SceneNodeClickMessage" and _is_click(content):
            # Only which node was clicked matters to the viewer.
            return _messages.SceneNodeClickMessage(
                name=content["name"],
                instance_index=None,
                ray_origin=(0.0, 0.0, 0.0),
                ray_direction=(0.0, 0.0, 1.0),
                screen_pos=(0.0, 0.0),
                modifier=None,
            )
        return Dropped()

    def _is_update(self, content: dict[Any, Any]) -> bool:
        uuid, updates = content.get("uuid"), content.get("updates")
        if self.gui is None or not isinstance(uuid, str) or not isinstance(updates, dict):
            return False
        handle = self.gui._gui_input_handle_from_uuid.get(uuid)
        known = handle is not None and list(updates) == ["value"]
        return known and is_allowed_value(handle, updates["value"])


def is_allowed_value(handle: Any, value: object) -> bool:
    """Return whether a control of the panel can have a value."""
    import viser

    if isinstance(handle, viser.GuiButtonHandle | viser.GuiCheckboxHandle):
        return isinstance(value, bool)
    if isinstance(handle, viser.GuiDropdownHandle):
        return isinstance(value, str) and value in handle.options
    if isinstance(handle, viser.GuiSliderHandle):
        return _is_number(value) and handle.min <= value <= handle.max
    return False


def _is_camera(content: dict[Any, Any]) -> bool:
    """Return whether a message has a camera that one can look through."""
    for key, length in _VECTORS.items():
        vector = content.get(key)
        if not isinstance(vector, list) or len(vector) != length:
            return False
        if not all(_is_number(x) and abs(x) < _LARGEST for x in vector):
            return False
    sizes = [content.get(key) for key in ("image_height", "image_width")]
    near, far, fov = (content.get(key) for key in ("near", "far", "fov"))
    return (
        math.hypot(*content["wxyz"]) > 1e-6
        and all(type(size) is int and 0 < size <= _MAX_PIXELS for size in sizes)
        and _is_number(near)
        and _is_number(far)
        and _is_number(fov)
        and 0 < fov < math.pi
    )


def _is_click(content: dict[Any, Any]) -> bool:
    name = content.get("name")
    return isinstance(name, str) and len(name) <= _MAX_NAME and content.get("owner", "") == ""


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < math.inf


def _vector(value: Any) -> Any:
    return tuple(map(float, value)) if isinstance(value, list) else value
