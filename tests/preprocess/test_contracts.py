"""Streams of items whose figures are known at their end, and lookups of the registry."""

from dataclasses import dataclass

import pytest

from msdyn.errors import InputError
from msdyn.preprocess import (
    Backend,
    BackendOptions,
    Streamed,
    find_backend,
    register_backend,
    registry,
)


def count_to(last):
    total = 0
    for number in range(last):
        total += number
        yield number
    return {"total": total}


def test_figures_are_known_after_the_last_item():
    stream = Streamed(count_to(3))
    assert next(stream) == 0
    with pytest.raises(RuntimeError, match="once every item has been taken"):
        _ = stream.figures
    assert list(stream) == [1, 2] and stream.figures == {"total": 3}
    assert list(stream) == [] and stream.figures == {"total": 3}  # asked once more


def test_a_stream_of_figures_known_beforehand():
    stream = Streamed.of(iter("ab"), {"known": 1.0})
    with pytest.raises(RuntimeError):
        _ = stream.figures
    assert "".join(stream) == "ab" and stream.figures == {"known": 1.0}
    assert list(Streamed.of([], {})) == []


def test_an_error_is_not_the_end_of_a_stream():
    def fail():
        yield 1
        raise ValueError("bad file")

    stream = Streamed(fail())
    with pytest.raises(ValueError, match="bad file"):
        list(stream)
    with pytest.raises(RuntimeError):
        _ = stream.figures


def test_a_backend_is_named_by_its_registration(monkeypatch):
    monkeypatch.setitem(registry._SPECS, "masks", registry.backends("masks"))

    @register_backend("masks", "own", needs=("frames",))
    class Own(Backend):
        def segment(self, scene, tracks, solution):
            raise NotImplementedError

    @register_backend("masks", "one", needs=("frames",), model="m")
    @register_backend("masks", "other", needs=("frames",), model="n")
    @dataclass(frozen=True)
    class Several(Own):
        name: str = "several"

        @classmethod
        def from_options(cls, options):
            return cls(options.name)

    assert find_backend("masks", "own").make(BackendOptions("own")).name == "own"
    for name, model in (("one", "m"), ("other", "n")):
        spec = find_backend("masks", name)
        assert spec.make(BackendOptions(name)).name == name and spec.model == model
    # The commands also register the feed-forward network, in whichever order tests run.
    names = tuple(name for name in registry.backend_names("masks") if name != "feedforward")
    assert names == ("motion", "none", "own", "files", "edgetam", "one", "other", "sam2", "sam3")
    with pytest.raises(InputError, match="masks: expected one of motion, none, .*, got 'nobody'"):
        find_backend("masks", "nobody")
