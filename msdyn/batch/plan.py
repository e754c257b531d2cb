"""What a batch is: `run.json` in its folder, which does not change while it is run."""

from __future__ import annotations

import json
import posixpath
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from msdyn.batch.clips import StageName, stages_until
from msdyn.batch.config import RunConfig
from msdyn.batch.manifest import Manifest
from msdyn.batch.store import Store, local_path
from msdyn.errors import InputError
from msdyn.reading import decode_json
from msdyn.version import __version__

__all__ = ["BatchPlan", "begin", "open_run", "plan_of"]

RUN = "run.json"
_VERSION = 1


@dataclass(frozen=True)
class BatchPlan:
    """What is done with which clips.

    Attributes:
        manifest: path or URL.
        clips: how many it has.
        preprocess, fit: options of the commands for all clips.
        until: the last stage.
        cameras: of a LeRobotDataset: those that are taken; none for all.
    """

    manifest: str
    clips: int
    preprocess: str
    fit: str
    until: StageName
    cameras: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The stages of each clip."""
        return tuple(stages_until(self.until))

    @property
    def source(self) -> Manifest:
        """The manifest."""
        return Manifest(self.manifest, self.cameras)


def plan_of(config: RunConfig) -> tuple[Manifest, Store, BatchPlan]:
    """Return the manifest, the store and the plan of options; clips are not counted yet."""
    uri, out = _absolute(config.manifest), config.out
    if out is None:
        name = posixpath.splitext(posixpath.basename(uri.rstrip("/")))[0]
        out = f"{name}_batch"
    plan = BatchPlan(uri, 0, config.preprocess or "", config.fit, config.until, config.camera)
    return plan.source, Store(_absolute(out)), plan


def open_run(out: str) -> tuple[Store, BatchPlan]:
    """Return the store and the plan of a batch that was begun.

    Raises:
        FileNotFoundError: there is none.
        InputError: its `run.json` is invalid.
    """
    store = Store(_absolute(out))
    value = _read(store)
    if value is None:
        raise FileNotFoundError(f"{store.place(RUN)}: no batch here; msdyn-batch run makes one")
    try:
        plan = BatchPlan(**value["plan"])
        plan = replace(plan, cameras=tuple(plan.cameras))
        stages_until(plan.until)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{store.place(RUN)}: expected the plan of a batch ({error})") from error
    return store, plan


def begin(store: Store, plan: BatchPlan) -> None:
    """Write the plan of a new batch, or compare it with that of the one that is there.

    Clips may be added to a manifest.

    Raises:
        InputError: another batch is there.
    """
    value = _read(store)
    if value is None:
        value = {"version": _VERSION, "msdyn": __version__, "begun": time.strftime("%F %T")}
    else:
        _, before = open_run(store.url)
        if before == plan:
            return
        for name, old in asdict(before).items():
            new = getattr(plan, name)
            if name != "clips" and new != old:
                raise InputError(
                    f"{store.url}: was begun with {name} {old!r}, not {new!r}; choose another "
                    "--out, or use msdyn-batch retry"
                )
    store.write(RUN, json.dumps(value | {"plan": asdict(plan)}, indent=2).encode())


def _read(store: Store) -> dict[str, Any] | None:
    content = store.read(RUN)
    if content is None:
        return None
    value = decode_json(content, store.place(RUN))
    if not isinstance(value, dict) or value.get("version") != _VERSION:
        raise InputError(f"{store.place(RUN)}: expected a batch of version {_VERSION}")
    return value


def _absolute(uri: str) -> str:
    """Return a URI that holds in every folder: workers may have others."""
    path = local_path(uri)
    return uri if path is None else str(path.absolute())
