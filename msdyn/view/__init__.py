"""The interactive viewer of a fit, and the report that every fit writes."""

from msdyn.view.report import write_report
from msdyn.view.viewer import Viewer

__all__ = ["Viewer", "write_report"]
