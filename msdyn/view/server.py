"""viser's server behind `Access`, with limits, and with the page of `page.py`.

viser has no option for any of these. Its class of servers is replaced by a subclass while a
`viser.ViserServer` is made, and so is the function of the package websockets that the subclass
calls when it starts: only for the thread of the new server.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from msdyn.errors import InputError
from msdyn.view.access import Access, Refusal
from msdyn.view.messages import CheckedMessages
from msdyn.view.page import viewer_page

if TYPE_CHECKING:
    import viser

__all__ = ["PORT", "listen", "start_server"]

PORT = 8080
"""Where no port is named: this one, or the next free one."""
_TRIED = 100
_MAX_CONNECTIONS = 64
"""TCP connections at a time, those included that have not sent a request yet."""
_MAX_CLIENTS = 16
"""Browsers at a time."""
_MAX_MESSAGE = 65_536
"""Bytes of a message from the browser; those of the page have a few hundred."""
_OPEN_SECONDS = 10.0
"""In which a connection must have sent its request."""
# The page has its scripts, styles and workers in itself, and decodes images and meshes from data.
# Nothing else is loaded, and no other page shows it in a frame.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' blob: data:; "
    "style-src 'unsafe-inline' blob: data:; img-src blob: data:; font-src data:; "
    "media-src blob: data:; worker-src blob: data:; connect-src 'self' {sockets} blob: data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

_log = logging.getLogger(__name__)
_PATCHING = threading.Lock()
_THREAD = threading.local()


def listen(host: str, port: int | None) -> socket.socket:
    """Return a listening socket.

    Args:
        host: an address of this computer.
        port: 0 for any free one; None for `PORT`, or the next free one.

    Raises:
        InputError: the address is not one of this computer, or the port is taken or not allowed.
    """
    if port is not None and not 0 <= port <= 65_535:
        raise InputError(f"--port: expected 0 to 65535, got {port}")
    try:
        family, kind, protocol, _, place = _resolved(host)
    except (OSError, UnicodeError) as error:
        raise _no_address(host, error) from error
    wanted = range(PORT, PORT + _TRIED) if port is None else (port,)
    for number in wanted:
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((place[0], number, *place[2:]))
            found.listen(_MAX_CONNECTIONS)
        except OSError as error:
            found.close()
            if isinstance(error, PermissionError):
                raise InputError(
                    f"--port: no permission to listen on {number}; choose one above 1023"
                ) from error
            if not _is_taken(error):
                raise _no_address(host, error) from error
            if number == wanted[-1]:
                raise InputError(
                    f"--port: {number} is in use by another program; choose another, or leave "
                    "--port out for the next free one"
                ) from error
            continue
        return found
    raise AssertionError("there is at least one port to try")


def start_server(listening: socket.socket, access: Access) -> viser.ViserServer:
    """Start viser's server on a listening socket; it answers what `access` admits.

    The socket is closed with the server.
    """
    import viser
    import websockets.asyncio.server as sockets
    from viser import infra

    # A browser may leave while it is being moved to a camera.
    warnings.filterwarnings("ignore", "Queued a .* on a closed connection", UserWarning)
    inner, serve = infra.WebsockServer, sockets.serve
    messages = CheckedMessages()

    class GuardedServer(inner):
        """viser's server, with checked messages."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"message_class": messages}))

        def _background_worker(self, *args: Any) -> None:
            _THREAD.options = _limits(access) | {"sock": listening}
            super()._background_worker(*args)

        def stop(self) -> None:
            with _PATCHING, _quiet():
                super().stop()

    def guarded_serve(handler: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        ours = getattr(_THREAD, "options", None)
        if ours is None:  # of another server, in another thread
            return serve(handler, host, port, **options)
        asyncio.get_running_loop().set_exception_handler(_report)
        return serve(_counted(handler), None, None, **(options | ours))

    with _PATCHING:
        infra.WebsockServer, sockets.serve = GuardedServer, guarded_serve  # type: ignore[misc]
        try:
            host, port = listening.getsockname()[:2]
            with _quiet():
                server = viser.ViserServer(host=host, port=port, verbose=False)
        finally:
            infra.WebsockServer, sockets.serve = inner, serve  # type: ignore[misc]
    messages.gui = server.gui
    return server


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what viser prints: addresses without the token, and that it stopped."""
    import rich

    printed = rich.print
    rich.print = lambda *_, **__: None
    try:
        yield
    finally:
        rich.print = printed


def _limits(access: Access) -> dict[str, Any]:
    """Return the options of the package websockets: limits, and what is answered."""
    return {
        "process_request": _answerer(access),
        "create_connection": _connections(),
        "server_header": None,
        "max_size": _MAX_MESSAGE,
        "open_timeout": _OPEN_SECONDS,
        "logger": _connection_log(),
    }


def _answerer(access: Access) -> Callable[[Any, Any], Any]:
    """Return a function of connection and request that returns the response.

    None where the request is to become a websocket.
    """
    import viser
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    page = viewer_page().encode()
    packed = gzip.compress(page)
    protocol = f"viser-v{viser.__version__}"

    def response(status: HTTPStatus, body: bytes, **headers: str) -> Any:
        fixed = {
            "Connection": "close",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return Response(status, status.phrase, Headers(fixed | named), body)

    def text(refusal: Refusal) -> Any:
        body = f"{refusal.text}\n".encode()
        return response(refusal.status, body, Content_Type="text/plain; charset=utf-8")

    def answer(_: Any, request: Any) -> Any:
        headers = request.headers.get_all
        refusal = access.refusal(request.path, headers)
        if refusal is not None:
            return text(refusal)
        if any("websocket" in value.lower() for value in headers("Upgrade")):
            offered = [p.strip() for v in headers("Sec-WebSocket-Protocol") for p in v.split(",")]
            if protocol not in offered:
                return text(Refusal(HTTPStatus.BAD_REQUEST, "Reload the page of the viewer."))
            return None
        # The same page for every path, so that a proxy may serve it below any; none for files.
        if "." in request.path.partition("?")[0].rpartition("/")[2]:
            return text(Refusal(HTTPStatus.NOT_FOUND, "There is no such page."))
        host = headers("Host")[0]
        pack = any("gzip" in value for value in headers("Accept-Encoding"))
        return response(
            HTTPStatus.OK,
            packed if pack else page,
            Content_Type="text/html; charset=utf-8",
            Content_Encoding="gzip" if pack else "identity",
            Content_Security_Policy=_POLICY.format(sockets=f"ws://{host} wss://{host}"),
            Set_Cookie=access.set_cookie(secure="https" in headers("X-Forwarded-Proto")),
        )

    return answer


def _connections() -> type[Any]:
    """Return the class of a server's connections, of which there are only so many at a time."""
    from websockets.asyncio.server import ServerConnection

    opened: set[Any] = set()

    class Connection(ServerConnection):
        def connection_made(self, transport: Any) -> None:
            if len(opened) >= _MAX_CONNECTIONS:
                transport.abort()
                return
            opened.add(self)
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            if self in opened:
                super().data_received(data)

        def eof_received(self) -> None:
            if self in opened:
                super().eof_received()

        def connection_lost(self, exc: Exception | None) -> None:
            if self in opened:
                opened.discard(self)
                super().connection_lost(exc)

        async def recv(self, decode: bool | None = None) -> Any:
            """Return the next binary message: viser has no others."""
            while isinstance(message := await super().recv(decode), str):
                pass
            return message

    return Connection


def _counted(handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a handler of websockets that serves only so many at a time."""
    serving: set[Any] = set()

    async def handle(connection: Any) -> None:
        if len(serving) >= _MAX_CLIENTS:
            await connection.close(1013, f"{_MAX_CLIENTS} browsers are connected already")
            return
        serving.add(connection)
        try:
            await handler(connection)
        finally:
            serving.discard(connection)

    return handle


_GARBAGE = ("opening handshake failed", "unexpected internal error", "data transfer failed")
"""What the package websockets reports of requests and frames that are none, one per connection."""


class _OneLine(logging.Filter):
    """Of what connections report: nothing of garbage on the wire, no tracebacks of the rest."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if record.levelno < logging.WARNING or message in _GARBAGE:
            return False
        error = record.exc_info[1] if record.exc_info else None
        record.msg, record.args = "viewer: %s (%s)", (message, type(error).__name__)
        record.exc_info = None
        return True


def _connection_log() -> logging.Logger:
    found = logging.getLogger(f"{__name__}.connections")
    if not found.filters:
        found.addFilter(_OneLine())
    return found


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that no one waited for, in one line."""
    error = context.get("exception")
    _log.warning("viewer: %s (%s)", context.get("message"), type(error).__name__)


def _resolved(host: str) -> tuple[Any, ...]:
    """Return family, kind, protocol, name and address of a host, of addresses without look-up."""
    name = "127.0.0.1" if host.lower() == "localhost" else host
    flags = socket.AI_PASSIVE | (socket.AI_NUMERICHOST if _is_numeric(name) else 0)
    return socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM, flags=flags)[0]


def _is_numeric(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _is_taken(error: OSError) -> bool:
    import errno

    return error.errno == errno.EADDRINUSE


def _no_address(host: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"--host: cannot listen on {host} ({reason}); 127.0.0.1 is this computer")
