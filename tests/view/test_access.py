"""Which requests a viewer answers."""

import pytest

from msdyn.errors import InputError
from msdyn.view.access import Access, is_loopback, parse_host


def asked(access, host="127.0.0.1:8080", *, path=None, **headers):
    """Return whether a request is answered; by default with the token."""
    given = {"Host": host, **headers}
    path = f"/?token={access.token}" if path is None else path

    def values(name):
        value = given.get(name, [])
        return value if isinstance(value, list) else [value]

    return access.refusal(path, values) is None


LOCAL = Access("127.0.0.1", 8080)


def test_the_token_is_needed():
    assert asked(LOCAL)
    for path in ("/", "/?token=", "/?token=x", f"/?tokem={LOCAL.token}", f"/{LOCAL.token}",
                 f"/?token={LOCAL.token[:-1]}", f"/?token={LOCAL.token}x", "/?token=\u00e4",
                 "/?" + "&".join(f"a{i}=1" for i in range(1000))):  # fmt: skip
        assert not asked(LOCAL, path=path)
    assert asked(LOCAL, path="/", Cookie=f"a=b; msdyn-view-8080={LOCAL.token}; c=d")
    # A cookie of the same name for another path may come first.
    assert asked(LOCAL, path="/", Cookie=f"msdyn-view-8080=x; msdyn-view-8080={LOCAL.token}")
    for cookie in ("", ";;;=;", "msdyn-view-8080", "msdyn-view-8080=",
                   f"msdyn-view-8081={LOCAL.token}"):  # fmt: skip
        assert not asked(LOCAL, path="/", Cookie=cookie)


def test_tokens_are_long_and_differ():
    tokens = {Access("127.0.0.1", 8080).token for _ in range(100)}
    assert len(tokens) == 100 and min(map(len, tokens)) >= 32
    assert LOCAL.token not in repr(LOCAL)


def test_names_of_this_computer_only():
    for host in ("localhost", "LOCALHOST:9000", "localhost.:8080", "127.0.0.1", "[::1]:8080"):
        assert asked(LOCAL, host)
    for host in ("evil.example", "evil.example:8080", "192.168.0.5:8080", "localhost.evil.example",
                 "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "localhost:x", "a b",
                 ["localhost", "localhost"], []):  # fmt: skip
        assert not asked(LOCAL, host)


def test_beyond_loopback_addresses_and_allowed_names_are_answered(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Workstation")
    access = Access("0.0.0.0", 8080, ("viewer.example.org", "other.example:8443"))
    for host in ("192.168.0.5:8080", "[2001:db8::1]:8080", "workstation:8080",
                 "workstation.local:8080", "viewer.example.org", "other.example:8443"):  # fmt: skip
        assert asked(access, host)
    for host in ("evil.example:8080", "other.example:8080", "sub.viewer.example.org"):
        assert not asked(access, host)


def test_other_origins_are_refused():
    for origin in ("http://evil.example", "null", "", "http://127.0.0.1:9999", "file://",
                   "http://localhost:8080", "https://127.0.0.1", "http://127.0.0.1:8080.evil.example",
                   ["http://127.0.0.1:8080", "http://127.0.0.1:8080"]):  # fmt: skip
        assert not asked(LOCAL, Origin=origin)
    assert asked(LOCAL, Origin="http://127.0.0.1:8080")
    assert asked(LOCAL, "localhost:9000", Origin="http://localhost:9000")  # ssh -L 9000:...
    assert asked(LOCAL, "[::1]:8080", Origin="http://[::1]:8080")
    assert asked(LOCAL, "localhost", Origin="http://localhost")


def test_origins_behind_a_proxy():
    """It passes the name on, or calls the viewer by its own name."""
    access = Access("127.0.0.1", 8080, ("viewer.example.org", "other.example:8443"))
    for host in ("viewer.example.org", "127.0.0.1:8080"):
        assert asked(access, host, Origin="https://viewer.example.org")
        assert not asked(access, host, Origin="https://evil.example")
        assert not asked(access, host, Origin="https://viewer.example.org:9999")
    assert asked(access, "127.0.0.1:8080", Origin="https://other.example:8443")
    assert not asked(access, "127.0.0.1:8080", Origin="https://other.example")


def test_the_cookie_is_for_this_viewer_alone():
    cookie = LOCAL.set_cookie(secure=False)
    assert cookie == f"msdyn-view-8080={LOCAL.token}; HttpOnly; SameSite=Strict"
    assert LOCAL.set_cookie(secure=True).endswith("; Secure")


def test_the_address_has_the_token():
    end = f"/?token={LOCAL.token}"
    assert LOCAL.address == f"http://127.0.0.1:8080{end}"
    assert Access("::1", 80).address.startswith("http://[::1]:80/?")
    assert Access("0.0.0.0", 80).address.startswith("http://localhost:80/?")


def test_malformed_allowed_hosts_are_errors():
    for name in ("", "https://a.example", "a.example/", "a b", "a.example:"):
        with pytest.raises(InputError, match="--allow-host"):
            Access("127.0.0.1", 8080, (name,))


def test_loopback_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "localhost.evil.example", "")))
    assert parse_host("[::1]:80") == ("::1", 80) and parse_host("a.b.") == ("a.b", None)
