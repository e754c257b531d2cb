"""Many clips: a manifest, workers on one machine or many, results, quarantine, a page."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.batch.clips import STAGES, Clip, Job, Row, StageName, State
    from msdyn.batch.config import RetryConfig, RunConfig, StatusConfig
    from msdyn.batch.engine import Engine, Event, Worker
    from msdyn.batch.local_engine import LocalEngine
    from msdyn.batch.manifest import Manifest, Shard
    from msdyn.batch.ray_engine import RayEngine
    from msdyn.batch.results import read_rows
    from msdyn.batch.run import batch_status, retry_batch, run_batch
    from msdyn.batch.schedule import Pending, Scheduler
    from msdyn.batch.store import Store
    from msdyn.batch.summary import Summary
    from msdyn.batch.supervisor import Supervisor, WorkerOptions
    from msdyn.batch.worker import StageResult, StageWork, serve

_HOMES = {
    "clips": ("STAGES", "Clip", "Job", "Row", "StageName", "State"),
    "config": ("RetryConfig", "RunConfig", "StatusConfig"),
    "engine": ("Engine", "Event", "Worker"),
    "local_engine": ("LocalEngine",),
    "manifest": ("Manifest", "Shard"),
    "ray_engine": ("RayEngine",),
    "results": ("read_rows",),
    "run": ("batch_status", "retry_batch", "run_batch"),
    "schedule": ("Pending", "Scheduler"),
    "store": ("Store",),
    "summary": ("Summary",),
    "supervisor": ("Supervisor", "WorkerOptions"),
    "worker": ("StageResult", "StageWork", "serve"),
}

__all__ = [
    "STAGES",
    "Clip",
    "Engine",
    "Event",
    "Job",
    "LocalEngine",
    "Manifest",
    "Pending",
    "RayEngine",
    "RetryConfig",
    "Row",
    "RunConfig",
    "Scheduler",
    "Shard",
    "StageName",
    "StageResult",
    "StageWork",
    "State",
    "StatusConfig",
    "Store",
    "Summary",
    "Supervisor",
    "Worker",
    "WorkerOptions",
    "batch_status",
    "read_rows",
    "retry_batch",
    "run_batch",
    "serve",
]

__getattr__ = lazy_names(__name__, _HOMES)
