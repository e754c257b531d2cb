"""Reports every connection beyond this computer, and every look-up of a host name.

A hook of Python's audit events, which no import can evade. As `sitecustomize.py` on the path of
processes it guards them from their start.
"""

import os
import sys
from pathlib import Path

__all__ = ["VARIABLE", "Guard"]

VARIABLE = "MSDYN_TEST_NETWORK_LOG"
"""File to which processes write what they tried."""
_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "", None)


def beyond(event, arguments):
    """Return what an event would reach beyond this computer, None where it stays here."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, str | bytes) or address is None:  # a socket in the file system
            return None
        host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return None
    name = host.decode() if isinstance(host, bytes) else host
    return None if name in _LOCAL else f"{event} {name}"


class Guard:
    """Collects what is tried in this process while it is on."""

    def __init__(self):
        self.found, self.on = [], False
        sys.addaudithook(self._hook)

    def __enter__(self):
        self.found.clear()
        self.on = True
        return self

    def __exit__(self, *_):
        self.on = False

    def _hook(self, event, arguments):
        if not self.on or not event.startswith("socket."):
            return
        what = beyond(event, arguments)
        if what is not None:
            self.found.append(what)
            raise OSError(f"refused: {what}")


if os.environ.get(VARIABLE):

    def _refuse(event, arguments):
        what = beyond(event, arguments) if event.startswith("socket.") else None
        if what is not None:
            with Path(os.environ[VARIABLE]).open("a") as log:
                log.write(f"{' '.join(sys.argv)}: {what}\n")
            raise OSError(f"refused: {what}")

    sys.addaudithook(_refuse)
