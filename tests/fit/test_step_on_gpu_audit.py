"""A fit on the pretend card: its steps never wait for a GPU, and use no tensor of the CPU.

gsplat's compiled functions are replaced by others of the same shapes (`tools/pretend_gsplat.py`).
Of gsplat itself one wait per rendering remains: the number of intersections of tiles.
"""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from planes import make_plane_scene
from pretend_card import CARD, Card, MixedDevicesError, OnCard
from pretend_gsplat import gsplat_on_the_card

from msdyn.fit import DensityConfig, FitConfig, Fitter, MotionConfig
from msdyn.fit import step as steps_module
from msdyn.fit.sampling import frames_of_step
from msdyn.progress import Progress

DENSITY_STEP = 2
"""The step of density control; the one after it looks for neighbours again."""

VARIANTS = {
    "hierarchy": {},
    "time-varying weights": {"motion": MotionConfig(prefit_steps=1, weights="time-varying")},
    "free residual": {"motion": MotionConfig(prefit_steps=1, levels=4)},
    "single": {"motion": MotionConfig(prefit_steps=1, model="single")},
    "displacements": {"motion": MotionConfig(prefit_steps=1, model="displacements")},
    "cameras and exposure": {"refine": "joint", "exposure": "on", "sh_degree": 1},
    "one frame, colours only": {"batch": 1, "losses": "rgb", "life_spans": "off"},
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_plane_scene(tmp_path_factory.mktemp("audit") / "scene", width=24, height=18)


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr("msdyn.fit.fitter.choose_device", lambda name: CARD)
    made = Card()
    with gsplat_on_the_card(made), made:
        yield made


def config(folder, **changes) -> FitConfig:
    small = FitConfig(
        epochs=3,  # cameras are optimised after a tenth of the steps
        batch=2,
        static_gaussians=60,
        moving_gaussians=30,
        motion=MotionConfig(prefit_steps=1),
        density=DensityConfig(start=0.0, stop=1.0, every=DENSITY_STEP, grow_gradient=1e-9),
        out=folder / "fit",
    )
    return replace(small, **changes)


def step(fitter: Fitter) -> None:
    frames = frames_of_step(fitter.data.frames, fitter.config, fitter.step)
    fitter._step_in_parts(frames)
    fitter.step += 1


def waits_of_steps(fitter: Fitter, card: Card, count: int) -> list[Counter[str]]:
    """Return how often each file waits in each step."""
    found = []
    for _ in range(count):
        card.clear()
        step(fitter)
        found.append(card.by_place())
    return found


@pytest.mark.parametrize(
    "name",
    [
        "hierarchy",
        "cameras and exposure",
        *(pytest.param(name, marks=pytest.mark.reliability) for name in list(VARIANTS)[1:-2]),
        pytest.param("one frame, colours only", marks=pytest.mark.reliability),
    ],
)
def test_a_step_does_not_wait(scene, tmp_path, card, name):
    fitter = Fitter(scene, config(tmp_path, **VARIANTS[name]))
    fitter.start()
    before = len(fitter.static)
    first, ordinary, density, after = waits_of_steps(fitter, card, 4)
    assert not ordinary, card.report()
    # What to add, to split in time and to remove, per set, and the allocator returns its memory.
    assert "msdyn/fit/density.py" in density and density.total() <= 16
    assert set(density) <= {"msdyn/fit/density.py", "msdyn/fit/density_lives.py"}
    # The tree of the neighbours is built on the host, two arrays down and two up.
    assert set(after) <= {"msdyn/fit/neighbours.py"} and after.total() <= 4
    assert set(first) <= {"msdyn/fit/neighbours.py", "msdyn/fit/objective.py"}
    assert len(fitter.static) > before  # density control did something
    state = fitter._all.tensors()
    state.pop("generator")  # that of torch on the CPU
    assert [name for name, value in state.items() if not isinstance(value, OnCard)] == []
    numbers = [value for name, value in state.items() if not name.endswith("life_spans")]
    assert all(bool(value.values.isfinite().all()) for value in numbers)


def test_a_log_entry_asks_three_times(scene, tmp_path, card, monkeypatch):
    """Which losses were finite, whether the state is, and the values themselves."""
    fitter = Fitter(scene, config(tmp_path, epochs=6))
    fitter.start()
    waits_of_steps(fitter, card, 2)
    card.clear()
    fitter._log(Progress("fit", fitter.steps))
    assert card.by_place() == {"msdyn/fit/last_good.py": 2, "msdyn/fit/fitter.py": 1}


def test_a_whole_fit_on_the_card_ends_on_the_cpu(scene, tmp_path, card):
    sequence = Fitter(scene, config(tmp_path)).run()
    assert type(sequence.static.means.data) is torch.Tensor
    assert (tmp_path / "fit/sequence.safetensors").is_file()
    assert not {"msdyn/fit/losses.py", "msdyn/motion/pattern_field.py"} & set(card.by_place())


PLANTED = {
    "item": lambda s: s.rgb.mean() * s.rgb.detach().mean().item(),
    "mask": lambda s: s.rgb[s.truth.certain > 0].mean(),
    "tensor": lambda s: (s.rgb * torch.tensor([1.0, 2.0, 3.0], device=s.rgb.device)).mean(),
    "host": lambda s: (s.rgb * torch.ones(3)).mean(),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_in_a_loss_is_found(scene, tmp_path, card, monkeypatch, fault):
    loss = steps_module.RegisteredLoss(PLANTED[fault], 1.0)
    monkeypatch.setitem(steps_module._LOSSES, "planted", loss)
    fitter = Fitter(scene, config(tmp_path))
    fitter.start()
    place = rf"tests/fit/{__name__.rpartition('.')[2]}.py:\d+: "
    if fault == "host":
        with pytest.raises(MixedDevicesError, match=place):
            step(fitter)
        return
    found = waits_of_steps(fitter, card, 2)[1]
    assert f"tests/fit/{__name__.rpartition('.')[2]}.py" in found, card.report()
