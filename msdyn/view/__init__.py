"""Looking at a fit: the report that every fit writes."""

from msdyn.view.report import write_report

__all__ = ["write_report"]
