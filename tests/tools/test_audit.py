"""The lock of packages, and the comparison of an installation with advisories."""

import json
import re
import zipfile
from pathlib import Path

import pytest
from audit import LOCK, advisories, affected, differences, locked, main, without_torch

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def record(number, name="toy", ecosystem="PyPI", **part):
    package = {"name": name, "ecosystem": ecosystem}
    return {"id": f"X-{number}", "summary": "bad", "affected": [{"package": package, **part}]}


def span(*events):
    return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}


def test_the_lock_has_the_versions_of_the_constraints():
    """And hashes for each package but torch."""
    lock = locked(LOCK.read_text())
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", CONSTRAINTS.read_text(), re.M))
    outside = {"torch", "uv"}
    assert {k: v for k, v in lock.items() if k in pinned} == {
        k: v for k, v in pinned.items() if k not in outside
    }
    assert len(lock) > 80
    assert not any(re.match("torch$|triton|nvidia|cuda", name) for name in lock)


def test_a_package_without_hash_is_refused():
    good = "a-b==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"
    assert locked(good) == {"a-b": "1.0"}
    with pytest.raises(ValueError, match="c==2: no hash"):
        locked(good + "c==2\n")
    lock = f"{good}nvidia-x==1 \\\n    --hash=sha256:{'1' * 64}\ntorchmetrics==3\ntriton==3\n"
    assert without_torch(lock) == f"{good}torchmetrics==3\n"


def test_differences():
    lock = {"a": "1.0", "b": "2", "c": "3"}
    installed = {"a": "1", "b": "2.1", "d": "4", "torch": "9+cpu", "pip": "1", "nvidia-x": "1"}
    assert differences(lock, installed) == [
        "b 2.1: 2 in the lock", "c 3: not installed", "d 4: not in the lock"
    ]  # fmt: skip


def test_advisories_apply_to_versions_and_ranges():
    records = [
        record(1, versions=["1.4", "1.5"]),
        record(2, **span({"introduced": "0"}, {"fixed": "1.5"})),
        record(3, **span({"introduced": "1.2"}, {"fixed": "1.6"})),
        record(4, **span({"introduced": "0"}, {"last_affected": "1.5"})),
        record(5, **span({"introduced": "0"}, {"last_affected": "1.4.9"})),
        record(6, **span({"introduced": "0"}, {"fixed": "1.1"}, {"introduced": "1.3"})),
        record(7, ecosystem="npm", versions=["1.5"]),
        record(8, name="other", versions=["1.5"]),
        record(9, versions=["1.5"]) | {"withdrawn": "2020-01-01"},
        record(10, name="Toy", **span({"introduced": "not a version"})),
        {"id": "X-11"},
    ]
    found = list(affected({"toy": "1.5"}, iter(records)))
    assert [line.split()[2] for line in found] == ["X-1", "X-3", "X-4", "X-6"]
    assert found[0] == "toy 1.5: X-1 bad"
    local = list(affected({"toy": "1.5+cpu"}, iter(records[2:3])))
    assert local == ["toy 1.5+cpu: X-3 bad"]


def test_advisories_of_a_folder_a_zip_and_a_file(tmp_path):
    folder = tmp_path / "osv"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.json").write_text(json.dumps(record(number)))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    (tmp_path / "one.json").write_text(json.dumps([record(0), record(1), record(2)]))
    for path in (folder, tmp_path / "all.zip", tmp_path / "one.json"):
        assert {r["id"] for r in advisories(path)} == {"X-0", "X-1", "X-2"}


def test_the_command_reports_by_its_exit_code(tmp_path, capsys):
    import numpy

    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK.read_text())
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(record(1, name="NumPy", versions=[numpy.__version__])))
    assert main(["--lock", str(lock), "--advisories", str(bad)]) == 1
    assert f"numpy {numpy.__version__}: X-1 bad" in capsys.readouterr().out
    lock.write_text(lock.read_text().replace(f"numpy=={numpy.__version__}", "numpy==1.0"))
    assert main(["--lock", str(lock)]) == 1
    assert "1.0 in the lock" in capsys.readouterr().out
