"""The scheduler, with workers that sleep on a clock that jumps."""

from dataclasses import replace

import pytest
from simulate_batch import NEEDS, Machines, Simulation, clips_of, simulate

from msdyn.batch import STAGES, Event, Pending, Scheduler
from msdyn.batch.needs import needs_of
from msdyn.errors import InputError, ResourceError


def test_gpus_are_busy_and_nothing_is_lost():
    result = simulate(Machines(lost_at=3600.0), 1500, scale=0)
    assert result["nothing_lost"], (result["ended"], result["expected"])
    # 64 GPUs, begin and end of the batch included; 13 hours of work.
    assert result["utilisation"] > 0.9 and result["utilisation_full"] > 0.95
    assert result["most_on_a_gpu"] == 1.0
    assert result["workers_lost_with_a_machine"] > 12
    assert result["most_clips_on_their_way"] <= 2 * (96 + 5 * 64)


@pytest.mark.parametrize("gpus", [0, 1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_few_gpus_and_many_failures(gpus, seed):
    machines = Machines(count=1, gpus=gpus, cpu_workers=3, failures=0.3)
    result = simulate(machines, 150, scale=0, seed=seed)
    assert result["nothing_lost"], (result["ended"], result["expected"])
    assert result["most_on_a_gpu"] <= 1.0
    assert result["most_clips_on_their_way"] <= 2 * (3 + 5 * gpus)
    if gpus == 1:
        assert result["utilisation_full"] > 0.75


@pytest.mark.parametrize("fit, networks", [(600.0, 10.0), (10.0, 600.0)])
def test_gpus_are_divided_by_what_the_clips_need(fit, networks):
    seconds = {stage: networks if kind == "part" else 5.0 for stage, kind in NEEDS.items()}
    machines = Machines(2, 4, 6, 0.0, tuple((seconds | {"fit": fit}).items()))
    assert simulate(machines, 400, scale=0)["utilisation"] > 0.9


def test_clips_that_are_furthest_run_first():
    ended, engine = [], Simulation(Machines(1, 0, 2, 0.0), 0)
    started = []
    submit = engine.submit
    engine.submit = lambda worker, job: (started.append(job), submit(worker, job))
    scheduler = Scheduler(engine, STAGES, NEEDS, ended.append, engine.lost)
    scheduler.run(Pending(clip) for clip in clips_of(30, 0.0, 0))
    order = [row.clip for row in ended if row.ended]
    assert len(order) == 30
    # With two workers, few clips are under way at a time.
    begun = [job.clip.id for job in started if job.stage == "tracks"]
    for number, clip in enumerate(order):
        assert begun.index(clip) <= number + 3


def test_only_new_rows_are_emitted():
    rows, engine = [], Simulation(Machines(1, 0, 1, 0.0), 0)
    clip = next(clips_of(1, 0.0, 0))
    Scheduler(engine, STAGES, NEEDS, rows.append, engine.lost).run(iter([Pending(clip, known=2)]))
    assert [row.stage for row in rows] == list(STAGES[2:])
    assert [row.ended for row in rows] == [""] * 4 + ["done"]


class Broken(Simulation):
    """Workers that never get ready."""

    def start(self, worker):
        self._alive[worker] = 0
        self._later(1.0, Event(worker, problem="no disk"), None)


@pytest.mark.parametrize("gpus", [0, 2])
def test_when_all_workers_fail(gpus):
    engine = Broken(Machines(1, gpus, 2, 0.0), 0)
    scheduler = Scheduler(engine, STAGES, NEEDS, lambda row: None, engine.lost)
    with pytest.raises(ResourceError, match="one after the other; the last one: no disk"):
        scheduler.run(Pending(clip) for clip in clips_of(3, 0.0, 0))


def test_the_scaled_clock():
    machines = replace(Machines(count=2, gpus=2, cpu_workers=4), lost_at=200.0)
    result = simulate(machines, 40, scale=2000)
    assert result["nothing_lost"]


def test_needs():
    assert needs_of("", "") == NEEDS
    on_cpu = needs_of("--masks motion --depth=fused --tracks flow", "--device cpu")
    assert set(on_cpu.values()) == {"cpu"}
    networks = needs_of("--tracks cotracker --masks none", "--preset quick")
    assert networks["tracks"] == networks["depth"] == "part" and networks["refine"] == "cpu"
    assert set(needs_of("--device cpu", "").values()) == {"cpu", "gpu", "part"}
    assert needs_of("--device cpu", "")["depth"] == "cpu"
    with pytest.raises(InputError, match="--fit: No closing quotation"):
        needs_of("", "'--preset")
