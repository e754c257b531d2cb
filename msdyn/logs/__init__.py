"""Logs of runs for programs that show curves: TensorBoard, Weights & Biases, Trackio.

with open_logs(("tensorboard",), LoggedRun("msdyn-fit", folder, {"epochs": 5}, step=0)) as logs:
    logs.scalars({"loss": 0.5}, step=20)
    logs.picture("preview", image, step=20)
"""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.logs.log import Log, LoggedRun, Logs, open_logs
    from msdyn.logs.registry import installed_logs, log_names, register_log, require_logs

__all__ = [
    "Log",
    "LoggedRun",
    "Logs",
    "installed_logs",
    "log_names",
    "open_logs",
    "register_log",
    "require_logs",
]

__getattr__ = lazy_names(
    __name__,
    {
        "log": ("Log", "LoggedRun", "Logs", "open_logs"),
        "registry": ("installed_logs", "log_names", "register_log", "require_logs"),
    },
)
