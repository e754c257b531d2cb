"""The type checker of the annotations in tests: beartype, for which an int will do for a float.

jaxtyping hands two functions to it for each one of the package: with the arguments, and with the
result beside them. Most are never called in one process: their checks are compiled at first call,
which saves ten seconds of each start. With the result, arguments are not checked a second time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_compiled = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that checks its arguments or, where it has its annotation, the result."""
    compiled: Callable[..., Any] | None = None

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        nonlocal compiled
        if compiled is None:
            hints = function.__annotations__
            if hints.get("return", Any) is not Any:
                function.__annotations__ = {"return": hints["return"]}
            compiled = _compiled(function)
        return compiled(*arguments, **named)

    return checked
