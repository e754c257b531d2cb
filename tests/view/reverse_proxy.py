"""A small reverse proxy, as nginx with the lines of docs/viewer.md."""

import contextlib
import socket
import threading

__all__ = ["Proxy"]


class Proxy:
    """A reverse proxy for `/msdyn` on 127.0.0.1.

    Args:
        port: of the viewer.
        pass_host: pass on the name that the browser used, otherwise that of the viewer.
        strip: remove `/msdyn` from the path.
    """

    def __init__(self, port, *, pass_host, strip):
        self.port, self.pass_host, self.strip = port, pass_host, strip
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            block = client.recv(65536)
            if not block:
                return
            head += block
        head, rest = head.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        method, path, version = first.split(" ")
        if not path.startswith("/msdyn"):
            client.sendall(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n")
            client.close()
            return
        if self.strip:
            path = "/" + path.removeprefix("/msdyn").removeprefix("/")
        if not self.pass_host:
            lines = [line for line in lines if not line.lower().startswith("host:")]
            lines.append(f"Host: 127.0.0.1:{self.port}")
        lines.append("X-Forwarded-Proto: http")
        server = socket.create_connection(("127.0.0.1", self.port))
        text = "\r\n".join([f"{method} {path} {version}", *lines])
        server.sendall(text.encode() + b"\r\n\r\n" + rest)
        threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
        self._pump(client, server)

    def _pump(self, source, sink):
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                sink.sendall(block)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
