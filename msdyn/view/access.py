"""Who may use the viewer: a secret in its address, and the names it is called by.

A page of another origin that is open in the same browser can send requests to the viewer too, so an
address that only this computer reaches is not protection enough. A request is answered if

- its `Host` is a name of this computer or one that the user allowed: a foreign name that resolves
  to this computer (DNS rebinding) is refused;
- its `Origin`, where the browser sends one, is the viewer's own;
- it has the token, in the query of the address or, after the first page, in a cookie.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from msdyn.errors import InputError

__all__ = ["Access", "Refusal", "is_loopback", "parse_host"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
TOKEN = "token"
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::(\d{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered.

    Attributes:
        status: of the response.
        text: a sentence for the user.
    """

    status: HTTPStatus
    text: str


@dataclass(frozen=True)
class Access:
    """What a viewer asks of every request.

    Attributes:
        host: address it listens on.
        port: it listens on.
        allowed: further hosts that it may be called by, `name` or `name:port`.
        token: the secret.

    Raises:
        InputError: an allowed host is not a name or an address.
    """

    host: str
    port: int
    allowed: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    def __post_init__(self) -> None:
        for name in self.allowed:
            if parse_host(name) is None:
                raise InputError(
                    f"--allow-host: expected a host as in the browser's address, such as "
                    f"viewer.example.org or viewer.example.org:8443, got {name!r}"
                )

    @property
    def cookie(self) -> str:
        """Name of the cookie, which the browser sends to all ports of a host."""
        return f"msdyn-view-{self.port}"

    @property
    def address(self) -> str:
        """The URL to open, with the token."""
        local = self.host in ("0.0.0.0", "::", "")
        host = "localhost" if local else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/?{TOKEN}={self.token}"

    def refusal(self, path: str, headers: Callable[[str], list[str]]) -> Refusal | None:
        """Return why a request is refused, None if it is to be answered.

        Args:
            path: of the request, with its query.
            headers: returns the values of a header.
        """
        hosts = [parse_host(value) for value in headers("Host")]
        host = hosts[0] if len(hosts) == 1 else None
        if host is None or not self._is_ours(host):
            text = "This name is not one of the viewer's; --allow-host NAME lets it be used."
            return Refusal(HTTPStatus.FORBIDDEN, text)
        origins = headers("Origin")
        if len(origins) > 1 or (origins and not self._is_own_origin(origins[0], host)):
            return Refusal(HTTPStatus.FORBIDDEN, "Pages of another origin may not use the viewer.")
        given = [*_query_tokens(path), *_cookies(headers("Cookie"), self.cookie)]
        # All are compared, in a time that does not depend on how much of the token is right.
        if not any([secrets.compare_digest(one.encode(), self.token.encode()) for one in given]):
            text = (
                "Open the address that msdyn printed when it started the viewer: it ends in "
                f"?{TOKEN}=... and is another one after each start."
            )
            return Refusal(HTTPStatus.FORBIDDEN, text)
        return None

    def set_cookie(self, *, secure: bool) -> str:
        """Return the header that makes the browser send the token from now on.

        It has no path: the browser then takes the one that the page has, also behind a proxy.

        Args:
            secure: whether the browser reached a proxy by HTTPS.
        """
        end = "; Secure" if secure else ""
        return f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict{end}"

    def _is_ours(self, host: tuple[str, int | None]) -> bool:
        name, port = host
        if name in LOOPBACK or name == self.host:
            return True
        if not is_loopback(self.host):
            # An address cannot be rebound to another computer, and no other has this one's name.
            own = socket.gethostname().lower()
            if _is_address(name) or name in (own, f"{own}.local"):
                return True
        return any(
            given is not None and given[0] == name and given[1] in (None, port)
            for given in map(parse_host, self.allowed)
        )

    def _is_own_origin(self, origin: str, host: tuple[str, int | None]) -> bool:
        """Return whether an origin is that of the host, or of an allowed one.

        A proxy that does not pass the name on calls the viewer by another name than the browser.
        """
        scheme, _, rest = origin.lower().partition("://")
        found, default = parse_host(rest), _DEFAULT_PORTS.get(scheme)
        if found is None or default is None:
            return False
        place = (found[0], found[1] or default)
        if place == (host[0], host[1] or default):
            return True
        given = [parse_host(name) for name in self.allowed]
        return place in [(one[0], one[1] or default) for one in given if one is not None]


def parse_host(text: str) -> tuple[str, int | None] | None:
    """Return name and port of a `Host` header, None if it is malformed."""
    found = _HOST.fullmatch(text.lower())
    if found is None:
        return None
    name = found[1] or found[2].rstrip(".")
    return (name, int(found[3]) if found[3] else None) if name else None


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reached from this computer only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _query_tokens(path: str) -> list[str]:
    try:
        return parse_qs(urlsplit(path).query, max_num_fields=64).get(TOKEN, [])
    except ValueError:
        return []


def _cookies(headers: list[str], name: str) -> list[str]:
    """Return the values of a cookie, of which there may be several for different paths."""
    pairs = [pair.strip().partition("=") for header in headers for pair in header.split(";")]
    return [value for key, _, value in pairs if key == name]
