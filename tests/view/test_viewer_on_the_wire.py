"""What a running viewer does with requests, messages and connections of any kind."""

import contextlib
import gzip
import json
import logging
import random
import select
import socket
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import numpy as np
import pytest
import viser
import zstandard
from bench_viewer import rotating_cloud
from reverse_proxy import Proxy
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from msdyn.view import Viewer, server

CAMERA = {
    "type": "ViewerCameraMessage", "wxyz": [1.0, 0, 0, 0], "position": [0.0, 0, 0], "fov": 1.0,
    "near": 0.01, "far": 100.0, "look_at": [0.0, 0, 1], "up_direction": [0.0, 1, 0],
    "image_height": 100, "image_width": 100,
}  # fmt: skip
PROTOCOL = f"viser-v{viser.__version__}"


@pytest.fixture(scope="module")
def cloud():
    return rotating_cloud(60, frames=6)


@pytest.fixture
def exported():
    return []


@pytest.fixture
def viewer(cloud, tmp_path, exported):
    def export(name):
        exported.append(name)
        return name

    shown = Viewer(cloud, port=0, folder=tmp_path, export=export, formats=("ply", "html"))
    yield shown
    shown.stop()


@pytest.fixture
def quiet(capfd, caplog):
    """Fail unless nothing is printed and nothing logged during a test."""
    caplog.set_level(logging.WARNING)
    capfd.readouterr()
    yield
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.messages) == ("", "", [])


def answer(viewer, path="/", **headers):
    """Return status, headers and body of a response to a request for the page."""
    url = f"http://127.0.0.1:{viewer.access.port}{path}"
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    try:
        with urlopen(Request(url, headers=given), timeout=10) as reply:
            return reply.status, reply.headers, reply.read()
    except HTTPError as error:
        return error.code, error.headers, error.read()


def with_token(viewer, path="/"):
    return f"{path}?token={viewer.access.token}"


def socket_of(viewer, path=None, protocol=PROTOCOL, **options):
    """Return a websocket of a viewer, by default with the token in a cookie, as a browser does."""
    headers = {"Cookie": f"{viewer.access.cookie}={viewer.access.token}"} if path is None else {}
    return connect(
        f"ws://127.0.0.1:{viewer.access.port}{path or '/'}",
        subprotocols=[protocol] if protocol else None,
        additional_headers=headers | options.pop("headers", {}),
        max_size=None, open_timeout=10, close_timeout=2, proxy=None, **options,
    )  # fmt: skip


def messages(ws, seconds=1.0):
    """Yield the messages that arrive until there have been none for some time."""
    with contextlib.suppress(TimeoutError):
        while True:
            body = ws.recv(timeout=seconds)
            size = int.from_bytes(body[8:16], "little")
            whole = int.from_bytes(body[:8], "little")
            packed = zstandard.ZstdDecompressor()
            text = packed.decompress(body[16 : 16 + size], max_output_size=whole)
            yield from msgspec.msgpack.decode(text)["messages"]


def controls(viewer):
    """Return the controls by their labels."""
    handles = viewer.server.gui._gui_input_handle_from_uuid
    return {getattr(handle, "label", uuid): uuid for uuid, handle in handles.items()}


def send(ws, **content):
    ws.send(msgspec.msgpack.encode(content))


def press(ws, uuid, value=True):
    send(ws, type="GuiUpdateMessage", uuid=uuid, updates={"value": value})


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_page_is_given_with_the_token_only(viewer, quiet):
    for path in ("/", "/index.html", "/../../etc/passwd", "/?token=wrong", "/favicon.ico"):
        status, headers, body = answer(viewer, path)
        assert status == 403 and viewer.access.token.encode() not in body
        assert "Set-Cookie" not in headers and b"<html" not in body
    status, headers, body = answer(viewer, with_token(viewer))
    assert status == 200 and b"<title>msdyn</title>" in body
    assert headers["Set-Cookie"].startswith(f"{viewer.access.cookie}={viewer.access.token};")
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert viewer.access.token.encode() not in body
    cookie = headers["Set-Cookie"].partition(";")[0]
    status, _, packed = answer(viewer, Cookie=cookie, Accept_Encoding="gzip")
    assert status == 200 and gzip.decompress(packed) == body
    # Nothing is read from the disk, whatever the path.
    for path in ("/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/a/b/"):
        assert answer(viewer, path, Cookie=cookie)[2] == body
    assert answer(viewer, "/favicon.ico", Cookie=cookie)[0] == 404


def test_a_page_of_another_origin_gets_nothing(viewer, quiet, exported):
    own = f"http://127.0.0.1:{viewer.access.port}"
    for headers in ({"Host": "rebound.evil.example"}, {"Origin": "http://evil.example"},
                    {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}):  # fmt: skip
        assert answer(viewer, with_token(viewer), **headers)[0] == 403
    for options in ({"origin": "http://evil.example"}, {"path": "/", "origin": own}, {"path": "/"},
                    {"path": "/?token=x"}, {"origin": "http://localhost"}):  # fmt: skip
        with pytest.raises(InvalidStatus) as refused:
            socket_of(viewer, **options).close()
        assert refused.value.response.status_code == 403
    assert viewer.server.get_clients() == {} and exported == []
    for options in ({"origin": own}, {"path": with_token(viewer)}):
        with socket_of(viewer, **options) as ws:
            labels = [m["props"]["label"] for m in messages(ws) if m["type"] == "GuiButtonMessage"]
        assert "Export" in labels


def test_a_viewer_of_another_version_is_refused(viewer, quiet):
    for protocol in ("viser-v0.0.0", None):
        with pytest.raises(InvalidStatus) as refused:
            socket_of(viewer, protocol=protocol).close()
        assert refused.value.response.status_code == 400


def test_controls_take_their_own_values_only(viewer, quiet, exported):
    known = controls(viewer)
    with socket_of(viewer) as ws:
        send(ws, **CAMERA)
        until(viewer.server.get_clients)
        for value in (float("nan"), -1.0, 6.0, "3", None, True, [1.0], 10**400 % 2**63, {}):
            press(ws, known["frame"], value)
        for value in ("sideways", 3, None, ["object"], True):
            press(ws, known["colour by"], value)
        for value in ("yes", 1, None, 0.0):
            press(ws, known["trails"], value)
        press(ws, known["format"], "../../evil")
        for uuid in ("", "x" * 500, 3, None, ["a"], known["frame"] + "0"):
            press(ws, uuid, 1.0)
        send(ws, type="GuiUpdateMessage", uuid=known["frame"], updates={"label": "<img>"})
        send(ws, type="GuiUpdateMessage", uuid=known["frame"], updates={"value": 1.0, "max": 9.0})
        send(ws, type="GuiUpdateMessage", uuid=known["frame"])
        press(ws, known["frame"], 2)  # the browser sends whole numbers as integers
        until(lambda: viewer.state.frame == 2.0)
        press(ws, known["Export"])
        until(lambda: exported == ["ply"])
    assert viewer.panel.colour.value == "appearance" and viewer.panel.trail_box.value is False
    assert viewer.panel.slider.label == "frame" and viewer.panel.slider.max == 5.0


def test_no_other_message_of_viser_is_taken(viewer, quiet, monkeypatch):
    """viser itself would open a tunnel to a server of its project, or take files."""
    shared = []
    monkeypatch.setattr(type(viewer.server), "request_share_url", lambda *_: shared.append(1))
    with socket_of(viewer) as ws:
        send(ws, **CAMERA)
        send(ws, type="ShareUrlRequest")
        send(ws, type="ShareUrlDisconnect")
        send(ws, type="FileTransferStartUpload", source_component_uuid="a", transfer_uuid="b",
             filename="../x", mime_type="a/b", part_count=1, size_bytes=10**12)  # fmt: skip
        send(ws, type="SceneNodeUpdateMessage", name="/static", updates={"visible": False})
        until(viewer.server.get_clients)
    assert shared == []


def test_cameras_that_are_none_are_dropped(viewer, quiet):
    nan, inf = float("nan"), float("inf")
    bad = [
        {"wxyz": [nan, 0, 0, 0]}, {"wxyz": [0, 0, 0, 0]}, {"wxyz": [1, 0, 0]}, {"wxyz": 1},
        {"position": [inf, 0, 0]}, {"position": [1e300, 0, 0]}, {"position": None},
        {"position": ["0", 0, 0]}, {"fov": nan}, {"fov": 0}, {"fov": 4}, {"fov": "1"},
        {"image_height": 0}, {"image_width": -1}, {"image_width": 2**40}, {"image_width": 1.5},
        {"near": nan}, {"far": inf}, {"look_at": [[0], 0, 0]}, {"up_direction": {}},
    ]  # fmt: skip
    with socket_of(viewer) as ws:
        for change in bad:
            send(ws, **(CAMERA | change))
        for key in CAMERA.keys() - {"type"}:
            send(ws, **{k: v for k, v in CAMERA.items() if k != key})
        time.sleep(0.3)
        assert viewer.server.get_clients() == {}
        send(ws, **CAMERA)
        until(viewer.server.get_clients)
        (client,) = viewer.server.get_clients().values()
        send(ws, **(CAMERA | {"position": [nan, nan, nan]}))
        send(ws, **(CAMERA | {"position": [1, 2, 3]}))
        until(lambda: list(client.camera.position) == [1, 2, 3])
        assert np.isfinite(viewer.camera_of(client).cam_from_world).all()


def test_messages_of_any_size_are_not_taken(viewer, quiet):
    with socket_of(viewer) as ws:
        with pytest.raises(WebSocketException) as closed:
            ws.send(bytes(server._MAX_MESSAGE + 1))
            while True:
                ws.recv(timeout=5)
        assert closed.value.rcvd.code == 1009
    with socket_of(viewer) as ws:  # declared, in the header of a frame, as 2^62 bytes
        ws.socket.sendall(bytes([0x82, 0xFF]) + (2**62).to_bytes(8, "big") + bytes(100))
        with pytest.raises(WebSocketException):
            while True:
                ws.recv(timeout=5)
    assert answer(viewer, with_token(viewer))[0] == 200


def test_there_are_only_so_many_connections(viewer, quiet):
    """Of those that send nothing, and of browsers."""
    address = ("127.0.0.1", viewer.access.port)
    idle = [socket.create_connection(address, 5) for _ in range(server._MAX_CONNECTIONS + 8)]
    until(lambda: len(select.select(idle, [], [], 0)[0]) >= 8)  # closed
    assert len(select.select(idle, [], [], 0.2)[0]) == 8
    for one in idle:
        one.close()
    until(lambda: _answers(viewer))
    with contextlib.ExitStack() as stack:
        for _ in range(server._MAX_CLIENTS):
            stack.enter_context(socket_of(viewer))
        with socket_of(viewer) as ws, pytest.raises(WebSocketException) as closed:
            ws.recv(timeout=5)
        assert closed.value.rcvd.code == 1013
    until(lambda: _stays(viewer))


def _answers(viewer):
    try:
        return answer(viewer, with_token(viewer))[0] == 200
    except OSError:
        return False


def _stays(viewer):
    with socket_of(viewer) as ws:
        return next(messages(ws), None) is not None


def garbage(rng, viewer):
    """Return bytes that begin like a request, more or less."""
    token = viewer.access.token
    head = (
        f"GET /?token={token} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
    ).encode()
    kind = rng.randrange(9)
    if kind == 0:
        return rng.randbytes(rng.randrange(2000))
    if kind == 1:
        return head[: rng.randrange(len(head))]
    if kind == 2:  # one byte changed
        spot = rng.randrange(len(head))
        return head[:spot] + rng.randbytes(1) + head[spot + 1 :]
    if kind == 3:
        return b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"a" * rng.randrange(20_000) + b"\r\n\r\n"
    if kind == 4:
        return rng.choice([b"POST", b"HEAD", b"PRI *", b"\x16\x03\x01", b"OPTIONS"]) + head[3:]
    if kind == 5:
        lines = head.split(b"\r\n")
        rng.shuffle(lines)
        return b"\r\n".join(lines) + b"\r\n\r\n"
    if kind == 6:  # a header twice, or many
        line = rng.choice(head.split(b"\r\n")[1:-2])
        return head[:-2] + (line + b"\r\n") * rng.choice([1, 200]) + b"\r\n"
    if kind == 7:  # not a frame
        return head + rng.randbytes(rng.randrange(500))
    return head + frame(rng, payload(rng, viewer))


def frame(rng, content):
    """Return a frame of a client, of any operation, sometimes not whole."""
    mask, size = rng.randbytes(4), len(content)
    first = rng.choice([0x82, 0x82, 0x82, 0x81, 0x80, 0x88, 0x89, 0x02, 0xF2, 0x8F])
    length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
    whole = bytes([first]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(content))
    return whole if rng.random() < 0.8 else whole[: rng.randrange(len(whole))]


def payload(rng, viewer):
    """Return a message that is almost one of viser's."""
    values = [None, True, -1, 0, 1.5, float("nan"), float("inf"), 2**63, "", "x" * 3000, [], [1],
              [[1]] * 4, {}, {"value": 1}, {"value": []}, b"ab", {"value": True}]  # fmt: skip
    uuids = list(controls(viewer).values())
    kinds = [m.__name__ for m in viser._messages.Message.get_subclasses()]
    if rng.random() < 0.2:
        return rng.randbytes(rng.randrange(200))
    content = dict(CAMERA) if rng.random() < 0.4 else {"type": rng.choice(kinds)}
    for key in (*content, "uuid", "updates", "name", "owner"):
        if key != "type" and rng.random() < 0.4:
            content[key] = rng.choice(values)
    if rng.random() < 0.5:
        content["uuid"] = rng.choice(uuids)
    if rng.random() < 0.1:
        content["type"] = rng.choice(values)
    return msgspec.msgpack.encode(content if rng.random() < 0.95 else rng.choice(values))


def attack(viewer, seed):
    rng = random.Random(seed)
    with contextlib.suppress(OSError):
        with socket.create_connection(("127.0.0.1", viewer.access.port), 5) as one:
            one.settimeout(0.02)
            one.sendall(garbage(rng, viewer))
            with contextlib.suppress(TimeoutError):
                while one.recv(1 << 16):
                    pass
            if rng.random() < 0.5:  # reset instead of closed
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_garbage_on_the_wire_leaves_no_trace(viewer, quiet):
    """400 random inputs: nothing is printed, and the viewer goes on."""
    frames = viewer.state.frame
    for seed in range(10_000, 10_400):
        attack(viewer, seed)
    assert viewer.thread.is_alive() and 0 <= viewer.state.frame <= 5 and frames == 0
    assert np.isfinite(viewer.sequence.cameras.centres).all()
    until(lambda: _answers(viewer))
    assert _stays(viewer)


def test_messages_almost_of_viser_leave_no_trace(viewer, quiet):
    """In one connection after the camera, where viser would act on them."""
    rng = random.Random(1)
    with socket_of(viewer) as ws:
        send(ws, **CAMERA)
        until(viewer.server.get_clients)
        for _ in range(600):
            ws.send(payload(rng, viewer))
        ws.send("text")
        ws.send(msgspec.msgpack.encode([[]] * 1000))
        ws.send(b"\x91" * 60_000)  # nested 60 000 deep
        ws.send(json.dumps(CAMERA))
        press(ws, controls(viewer)["frame"], 3)
        until(lambda: viewer.state.frame == 3.0)


@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("pass_host", [True, False])
def test_behind_a_proxy_below_a_path(cloud, tmp_path, quiet, strip, pass_host):
    """The name is passed on or allowed; pages of other origins are refused either way."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    proxy = Proxy(port, pass_host=pass_host, strip=strip)
    allowed = () if pass_host else (proxy.address,)
    viewer = Viewer(cloud, port=port, folder=tmp_path, allowed_hosts=allowed)
    try:
        url = f"http://{proxy.address}/msdyn/"
        with urlopen(f"{url}?token={viewer.access.token}", timeout=10) as reply:
            cookie = reply.headers["Set-Cookie"]
            assert b"<title>msdyn</title>" in reply.read() and "Path" not in cookie
        own = f"http://{proxy.address}"
        for path in ("/msdyn", "/msdyn/"):  # viser's page connects to the first
            for origin, status in ((own, 101), ("http://evil.example", 403)):
                options = {
                    "origin": origin, "subprotocols": [PROTOCOL], "max_size": None, "proxy": None,
                    "additional_headers": {"Cookie": cookie.partition(";")[0]},
                }  # fmt: skip
                if status == 101:
                    with connect(f"ws://{proxy.address}{path}", **options) as ws:
                        assert next(messages(ws))["type"]
                else:
                    with pytest.raises(InvalidStatus):
                        connect(f"ws://{proxy.address}{path}", **options).close()
    finally:
        proxy.listening.close()
        viewer.stop()
