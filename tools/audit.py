"""Whether the installed packages are those of the lock, and what is known against them.

    python tools/audit.py                             # installed packages against requirements.lock
    python tools/audit.py --advisories PyPI-all.zip   # and against a file of advisories
    python tools/audit.py --write                     # make the lock again

No registry is asked about any package: the advisories are one file for all packages there are, the
archive of https://osv.dev (https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip), or a
folder of such records. Exit code 1 where something was found.

The lock has the hashes of every package but torch, whose builds for CPU and CUDA share a version
number, and the packages of CUDA that torch brings. They are pinned in constraints.txt.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

__all__ = ["advisories", "affected", "differences", "locked", "main", "without_torch"]

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
_TORCH = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
_OURS = re.compile(r"msdyn|pip|setuptools|wheel|uv|torch|triton|nvidia-.*|cuda-.*")
"""Packages that are not in the lock: msdyn, what installs it, and torch."""
_ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)", re.M)
_HEADER = """\
# Every package that `make test` installs for Python 3.11, with the hashes of its files, but not
# torch and what it brings for CUDA (constraints.txt). Made by `python tools/audit.py --write`;
# installed by `pip install --no-deps --require-hashes -r requirements.lock`.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--lock", type=Path, default=LOCK)
    parser.add_argument("--advisories", type=Path, help="a zip or folder of OSV records")
    parser.add_argument("--write", action="store_true", help="make the lock again")
    options = parser.parse_args(arguments)
    if options.write:
        write_lock(options.lock)
        return 0
    installed = {
        canonicalize_name(found.metadata["Name"]): found.version for found in distributions()
    }
    found = differences(locked(options.lock.read_text(encoding="utf-8")), installed)
    print(f"{len(installed)} packages installed; {len(found)} differ from {options.lock.name}")
    if options.advisories is not None:
        known = sorted(affected(installed, advisories(options.advisories)))
        print(f"{len(known)} advisories apply")
        found += known
    for line in found:
        print(f"  {line}")
    return 1 if found else 0


def write_lock(path: Path) -> None:
    """Resolve the packages of setup.py within constraints.txt, and write them with their hashes."""
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    command = [
        uv, "pip", "compile", "setup.py", "--extra", "test", "-c", "constraints.txt",
        "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--quiet",
    ]  # fmt: skip
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    path.write_text(_HEADER + without_torch(made), encoding="utf-8")


def without_torch(lock: str) -> str:
    """Return a lock without torch and what it brings for CUDA."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.M)
    return "".join(entry for entry in entries if not _TORCH.match(entry))


def locked(text: str) -> dict[str, str]:
    """Return the versions of a lock by package.

    Raises:
        ValueError: a package has no hash.
    """
    found = {}
    for name, version, hashes in _ENTRY.findall(text):
        if not hashes:
            raise ValueError(f"{name}=={version}: no hash")
        found[canonicalize_name(name)] = version
    return found


def differences(lock: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """Return how an installation differs from a lock, one line per package."""
    found = []
    for name in sorted({*lock, *installed}):
        if _OURS.fullmatch(name):
            continue
        if name not in installed:
            found.append(f"{name} {lock[name]}: not installed")
        elif name not in lock:
            found.append(f"{name} {installed[name]}: not in the lock")
        elif Version(lock[name]) != Version(installed[name]):
            found.append(f"{name} {installed[name]}: {lock[name]} in the lock")
    return found


def advisories(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a folder or a zip of OSV files, or of one file."""
    if path.is_dir():
        for file in sorted(path.rglob("*.json")):
            yield json.loads(file.read_text(encoding="utf-8"))
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    yield json.loads(archive.read(name))
    else:
        content = json.loads(path.read_text(encoding="utf-8"))
        yield from content if isinstance(content, list) else [content]


def affected(installed: Mapping[str, str], records: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each advisory that applies to an installed version.

    Reference: the OSV schema, https://ossf.github.io/osv-schema/.
    """
    for record in records:
        if "withdrawn" in record:
            continue
        for part in record.get("affected", ()):
            package = part.get("package", {})
            name = canonicalize_name(package.get("name", ""))
            version = installed.get(name) if package.get("ecosystem") == "PyPI" else None
            if version is not None and _applies(part, version):
                yield f"{name} {version}: {record['id']} {record.get('summary', '')}".rstrip()
                break


def _applies(part: Mapping[str, Any], version: str) -> bool:
    if version in part.get("versions", ()):
        return True
    own = _version(version.partition("+")[0])
    return any(
        own is not None and _within(own, span.get("events", ()))
        for span in part.get("ranges", ())
        if span.get("type") == "ECOSYSTEM"
    )


def _within(own: Version, events: list[dict[str, str]]) -> bool:
    """Return whether a version lies in a range: the last event at or before it decides."""
    inside = False
    for event in events:
        if "introduced" in event:
            start = event["introduced"]
            if start == "0" or _at_least(own, start):
                inside = True
        elif "fixed" in event and _at_least(own, event["fixed"]):
            inside = False
        elif "last_affected" in event:
            last = _version(event["last_affected"])
            if last is not None and own > last:
                inside = False
    return inside


def _at_least(own: Version, text: str) -> bool:
    other = _version(text)
    return other is not None and own >= other


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


if __name__ == "__main__":
    raise SystemExit(main())
