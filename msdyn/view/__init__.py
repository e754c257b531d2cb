"""Looking at a fit: in the browser, and the report that every fit writes."""

from msdyn.view.report import write_report
from msdyn.view.viewer import Viewer

__all__ = ["Viewer", "write_report"]
