"""The demo that runs the whole toolkit on a synthetic clip."""

from msdyn.demo.demo import DemoConfig, run_demo

__all__ = ["DemoConfig", "run_demo"]
