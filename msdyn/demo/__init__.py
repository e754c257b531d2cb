"""The demo that runs the whole toolkit on a synthetic clip."""

from typing import TYPE_CHECKING

from msdyn.lazy import lazy_names

if TYPE_CHECKING:
    from msdyn.demo.demo import DemoConfig, run_demo

__all__ = ["DemoConfig", "run_demo"]

__getattr__ = lazy_names(
    __name__,
    {
        "demo": (
            "DemoConfig",
            "run_demo",
        ),
    },
)
