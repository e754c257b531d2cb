"""Memory and cores of this process, from control groups of both kinds and from limits."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

from msdyn import machine_limits
from msdyn.machine_limits import (
    available_memory,
    core_count,
    give_back_memory,
    held_memory,
    limit_of_group,
    total_memory,
)

MB = 10**6


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def run(code, **options):
    path = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
        **options,
    ).stdout


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return the folders of `/sys/fs/cgroup` and of `/proc`, empty but for one line each."""
    system = tmp_path / "groups"
    proc = write(tmp_path / "proc", meminfo="MemTotal: 99 kB\nMemAvailable: 60000000 kB\n")
    write(proc / "self", cgroup="0::/jobs/one\n", status="VmSize: 900 kB\nRssAnon: 300000 kB\n")
    monkeypatch.setattr(machine_limits, "_GROUPS", system)
    monkeypatch.setattr(machine_limits, "_PROC", proc)
    return system, proc


def test_limits_of_a_group_of_either_kind(tmp_path):
    statistic = "active_file 5\ninactive_file 1000\n"
    new = write(tmp_path / "new", memory__max="8000\n", memory__current="3000\n")
    write(new, memory__stat=statistic)
    assert limit_of_group(new) == (8000, 2000)
    statistic = "inactive_file 1\ntotal_inactive_file 500\n"
    old = write(tmp_path / "old", memory__limit_in_bytes="8000", memory__usage_in_bytes="3000")
    write(old, memory__stat=statistic)
    assert limit_of_group(old) == (8000, 2500)
    for most in ("max", "9223372036854771712", "x"):
        for name in ("memory__max", "memory__limit_in_bytes"):
            assert limit_of_group(write(tmp_path / f"{most}{name}", **{name: most})) is None
    assert limit_of_group(tmp_path / "none") is None


def test_the_tightest_group_counts(groups):
    system, proc = groups
    write(system, memory__max="max")
    assert available_memory() == 60_000_000 * 1024 + 300_000 * 1024
    write(system / "jobs", memory__max=str(4000 * MB), memory__current=str(1000 * MB))
    write(system / "jobs" / "one", memory__max=str(3500 * MB), memory__current=str(400 * MB))
    assert available_memory() == 3000 * MB + 300_000 * 1024
    assert total_memory() == 3500 * MB
    write(system / "jobs" / "one", memory__max=str(300 * MB))
    assert available_memory() == 300_000 * 1024  # what it holds, though it is beyond the limit


def test_a_container_whose_group_has_another_name_inside(groups):
    system, proc = groups
    write(system / "memory", memory__limit_in_bytes=str(2000 * MB), memory__usage_in_bytes="0")
    (proc / "self" / "cgroup").write_text("5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n")
    assert available_memory() == 2000 * MB + 300_000 * 1024


def test_cores_of_a_group(groups, monkeypatch):
    system, proc = groups
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert core_count() == 16
    write(system / "jobs", cpu__max="250000 100000\n")
    write(system / "jobs" / "one", cpu__max="max 100000\n")
    assert core_count() == 3
    write(system / "cpu" / "a", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    write(system / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    (proc / "self" / "cgroup").write_text("5:cpu,cpuacct:/a\n4:memory:/a\n")
    assert core_count() == 1


def test_a_system_without_proc(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_limits, "_PROC", tmp_path)
    monkeypatch.setattr(machine_limits, "_GROUPS", tmp_path)
    assert available_memory() is None and held_memory(1) is None
    held = held_memory()
    assert held is not None and held > 10 * MB  # the most so far


def test_memory_of_files_is_not_counted(tmp_path):
    # What earlier tests have left is given back now, not in between.
    gc.collect()
    give_back_memory()
    before = held_memory()
    assert before is not None
    values = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (200 * MB,))
    values[:] = 1
    mapped = held_memory()
    assert mapped is not None and mapped - before < 40 * MB
    own = np.ones(200 * MB, np.uint8)
    held = held_memory()
    assert held is not None and 160 * MB < held - mapped < 240 * MB and own[-1]
    assert 0 < (held_memory(os.getpid()) or 0)


def test_a_limit_of_addresses():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))\n"
        "from msdyn.machine_limits import available_memory; print(available_memory())"
    )
    assert 700 * MB < int(run(code)) < 1000 * MB
