"""Networks that stay loaded from one clip to the next, in processes that ask for it.

A worker of a batch runs many clips with the same networks: `keep_networks(2)` keeps the two that
were last used. Elsewhere nothing is kept: a network ends with the run that loaded it.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["keep_networks", "stays_loaded"]

P = ParamSpec("P")
R = TypeVar("R")


class _Kept:
    """The networks of this process, and how many of them stay."""

    most = 0
    networks: OrderedDict[Any, Any] = OrderedDict()


def keep_networks(most: int) -> None:
    """Keep so many networks from now on; 0 keeps none, and lets go of those that are kept."""
    _Kept.most = most
    while len(_Kept.networks) > most:
        _Kept.networks.popitem(last=False)


def stays_loaded(load: Callable[P, R]) -> Callable[P, R]:
    """Have a function that loads a network return the same one for the same arguments, if kept.

    Arguments are texts and flags. Networks are used for inference only; where they are placed is
    part of their state, and placing them again moves nothing.
    """

    @functools.wraps(load)
    def find(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _Kept.most:
            return load(*args, **kwargs)
        key = load.__qualname__, args, tuple(sorted(kwargs.items()))
        if key not in _Kept.networks:
            # Before loading, so that no more than these are in memory.
            while len(_Kept.networks) >= _Kept.most:
                _Kept.networks.popitem(last=False)
            _Kept.networks[key] = load(*args, **kwargs)
        _Kept.networks.move_to_end(key)
        return _Kept.networks[key]

    return find
