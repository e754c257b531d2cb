"""A training step of the network on the pretend card: the host waits once, for its figures."""

import dataclasses

import pytest
import torch
from feedforward.training.test_loop import TINY
from pretend_card import CARD, Card, MixedDevicesError, OnCard
from pretend_gsplat import gsplat_on_the_card

from msdyn.feedforward.scenes.render import BatchOptions
from msdyn.feedforward.training import objective
from msdyn.feedforward.training.config import Stage, TrainingConfig
from msdyn.feedforward.training.loop import Trainer
from msdyn.feedforward.training.objective import LossWeights
from msdyn.feedforward.training.parallel import Processes

ALL_LOSSES = LossWeights(log_depth=1.0, distribution=1.0, rendering=1.0)
BATCH = BatchOptions(scenes=1, frames=2, size=16, queries=2)
CONFIG = TrainingConfig(
    TINY, (Stage("all", 1.0, ALL_LOSSES, batch=BATCH, all_queries=False),), steps=9, warmup=2
)


def on_card(value):
    """A batch, and all that it has, on the card."""
    if isinstance(value, torch.Tensor):
        return OnCard(value)
    if not dataclasses.is_dataclass(value):
        return value
    fields = {f.name: on_card(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return type(value)(**fields)


@pytest.fixture(scope="module")
def batch():
    trainer = Trainer(CONFIG)
    made, _ = trainer._source.batch(0, 0, trainer.model)
    return made


@pytest.fixture
def card():
    made = Card()
    with gsplat_on_the_card(made), made:
        yield made


def trainer_on(card, batch, monkeypatch):
    trainer = Trainer(CONFIG, Processes(CARD))
    given = on_card(batch)
    monkeypatch.setattr(trainer._source, "batch", lambda *_: (given, None))
    trainer.train_step()  # fills caches
    card.clear()
    return trainer


def test_a_step_waits_once(batch, card, monkeypatch):
    trainer = trainer_on(card, batch, monkeypatch)
    values = trainer.train_step()
    assert card.by_place() == {"msdyn/feedforward/training/loop.py": 1}, card.report()
    names = {"match", "depth", "log_depth", "motion", "distribution", "rendering", "gradient"}
    assert set(values) == names
    assert trainer.skipped == 0 and card.kernels.total() > 1000
    assert all(isinstance(p.data, OnCard) for p in trainer.model.parameters())


PLANTED = {
    "item": lambda rendered, image: (rendered - image.movedim(0, -1)).mean() * image.max().item(),
    "mask": lambda rendered, image: rendered[rendered > 0].mean(),
    "host": lambda rendered, image: (rendered * torch.ones(3)).mean(),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_in_a_loss_is_found(batch, card, monkeypatch, fault):
    trainer = trainer_on(card, batch, monkeypatch)
    monkeypatch.setattr(objective, "rendering_loss", PLANTED[fault])
    place = f"tests/feedforward/training/{__name__.rpartition('.')[2]}.py"
    if fault == "host":
        with pytest.raises(MixedDevicesError, match=place):
            trainer.train_step()
        return
    trainer.train_step()
    assert place in card.by_place(), card.report()
