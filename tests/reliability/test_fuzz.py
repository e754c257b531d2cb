"""Damaged inputs of every kind are read, or refused in one line: few in each run, 20 000 apart."""

import shutil

import numpy as np
import pytest
from fuzz import fuzz, inputs_of
from inputs import targets
from mutations import damaged


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def test_whole_inputs_are_read(inputs):
    base = inputs_of(inputs)
    for target in targets():
        shutil.copytree(base / target.folder, inputs / "work")
        if not target.slow:
            target.read(inputs / "work")
        shutil.rmtree(inputs / "work")


def test_some_damaged_inputs(inputs):
    figures = fuzz(inputs, range(250), seed=0, slow=False)
    assert not figures.wrong, str(figures)
    # Were all of them read, or none, the damage would be of no use.
    assert figures.read > 20 and figures.refused > 100


@pytest.mark.reliability
def test_many_damaged_inputs(inputs):
    figures = fuzz(inputs, range(20_000), seed=1)
    print(figures)
    assert not figures.wrong, str(figures)


def test_damage_depends_on_the_seed_alone():
    content = b'{"a": [1, 2, {"b": "c"}], "d": 1.5}' * 3

    def made(seed):
        return [damaged(np.random.default_rng((seed, i)), content, "a.json") for i in range(30)]

    assert made(1) == made(1) and made(1) != made(2)
    assert sum(data != content for data in made(1)) > 25


def test_a_reader_that_fails_is_found(inputs, monkeypatch):
    import fuzz as module

    def fails(folder):
        raise KeyError("x")

    target = module.Target("failing", "prompts", "*.json", fails)
    monkeypatch.setattr(module, "targets", lambda: [target])
    figures = fuzz(inputs, range(3), seed=0)
    assert figures.cases == 3 and sum(map(len, figures.wrong.values())) == 3
    assert "KeyError" in str(figures)
