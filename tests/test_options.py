"""Options: bounds on fields, checked alike in Python and on the command line."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from msdyn.errors import InputError
from msdyn.fit import FitConfig, preset
from msdyn.options import (
    Named,
    OptionError,
    Options,
    Pattern,
    Positive,
    Range,
    Seed,
    Share,
    option_fields,
)


@dataclass(frozen=True)
class Inner(Options):
    """Numbers of a part."""

    weight: Annotated[float, Range(0)] = 1.0
    """Of the part."""


@dataclass(frozen=True)
class Toy(Options):
    """A toy."""

    count: Annotated[int, Range(1, 9)] = 5
    side: Annotated[int, Range(64, also=(0,))] = 64
    rate: Annotated[float | None, Positive] = None
    share: Share = 0.5
    seed: Seed = 0
    plain: float = -1.5
    where: Path = Path("x")
    name: str = "a"
    word: Annotated[str, Pattern("a+", "letters a")] = "a"
    kind: Literal["one", "two"] = "one"
    pair: tuple[Annotated[int, Range(1)], Annotated[int, Range(1)]] = (1, 2)
    many: tuple[Path, ...] = ()
    extra: dict[str, float] = field(default_factory=dict)
    on: bool = False
    inner: Annotated[Inner, Named("")] = field(default_factory=Inner)

    def check_relations(self) -> None:
        if self.pair[0] > self.pair[1]:
            raise OptionError("pair", "expected smallest, then largest")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count: expected at least 1, got 0"),
        ({"count": 10}, "count: expected at most 9, got 10"),
        ({"count": 2.5}, "count: expected a whole number, got 2.5"),
        ({"count": True}, "count: expected a whole number, got True"),
        ({"count": "3"}, "count: expected a whole number, got '3'"),
        ({"side": 1}, "side: expected at least 64, or 0, got 1"),
        ({"rate": 0}, "rate: expected above 0, got 0"),
        ({"rate": math.nan}, "rate: expected a finite number, got nan"),
        ({"share": 1.01}, "share: expected at most 1, got 1.01"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"seed": 2**31}, "seed: expected at most 2147483647, got 2147483648"),
        ({"seed": 10**4000}, "seed: expected at most 2147483647, got a number of 13288 bits"),
        ({"plain": math.inf}, "plain: expected a finite number, got inf"),
        ({"plain": 10**400}, "plain: expected a finite number, got a number of 1329 bits"),
        ({"plain": -1e30}, "plain: expected at least -1000000000, got -1e+30"),
        ({"where": Path("a" * 300)}, "where: expected a path of at most 4096 bytes, of names of"),
        ({"where": ""}, "where: expected a path that is not empty, got ''"),
        ({"where": Path("\udcff")}, "where: expected a path in UTF-8"),
        ({"name": " "}, "name: expected a text that is not empty"),
        ({"word": "ab"}, "word: expected letters a, got 'ab'"),
        ({"kind": "three"}, "kind: expected one of one, two, got 'three'"),
        ({"pair": (0, 1)}, "pair: expected at least 1, got 0"),
        ({"pair": (1,)}, "pair: expected 2 values, got 1"),
        ({"pair": (3, 2)}, "pair: expected smallest, then largest"),
        ({"many": "x"}, "many: expected several values, got 'x'"),
        ({"extra": {"a": math.nan}}, "extra: expected a finite number, got nan"),
        ({"on": 1}, "on: expected True or False, got 1"),
    ],
)
def test_a_value_out_of_range_is_refused(values, message):
    with pytest.raises(InputError) as error:
        Toy(**values)
    assert str(error.value).startswith(message)


def test_values_in_range_are_accepted():
    toy = Toy(
        count=9, side=0, rate=1, share=1, plain=1e9, where="text", pair=[2, 2], extra={"a": 1}
    )
    assert toy.side == 0 and toy.pair == [2, 2]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Range(1), "at least 1"),
        (Range(1, 50_000_000), "1 to 50000000"),
        (Range(above=0, most=0.5), "above 0 and at most 0.5"),
        (Range(2, also=(0,)), "at least 2, or 0"),
    ],
)
def test_ranges_in_words(limits, text):
    assert limits.text == text


def subclasses(cls: type) -> list[type]:
    below = [c for c in cls.__subclasses__() if c.__module__.startswith("msdyn.")]
    return below + [found for c in below for found in subclasses(c)]


def test_a_group_is_a_class_of_options_too():
    """So that no option of a command escapes the check."""
    found = subclasses(Options)
    groups = {f.group for cls in found for f in option_fields(cls) if f.group is not None}
    assert FitConfig in found and groups
    assert all(issubclass(group, Options) for group in groups)


def test_python_users_get_the_same_check():
    with pytest.raises(InputError, match="^epochs: expected at least 1, got 0$"):
        preset("quick", epochs=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "1", True, -(10**12)])
def test_no_number_of_any_config_is_left_unchecked(value):
    """Each field of every class of options of msdyn, numbers in tuples included."""
    tried = 0
    for cls in subclasses(Options):
        for option in option_fields(cls):
            if option.kind not in ("value", "fixed", "list", "pairs"):
                continue
            if option.values[0].choices or option.values[0].kind not in (int, float):
                continue
            wrong = {"value": value, "pairs": {"x": value}}.get(
                option.kind, (value,) * len(option.values)
            )
            needed = {f.name: "x" for f in dataclasses.fields(cls) if _must_be_given(f)}
            with pytest.raises(InputError):
                cls(**{**needed, option.name: wrong})
            tried += 1
    assert tried > 80


def _must_be_given(option: dataclasses.Field) -> bool:
    return option.default is option.default_factory is dataclasses.MISSING
