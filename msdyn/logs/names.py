"""The type of the option `--log`."""

from __future__ import annotations

from typing import Annotated

from msdyn.logs.registry import log_names
from msdyn.options import REPEATED, Choices

__all__ = ["LogNames"]

LogNames = Annotated[tuple[Annotated[str, Choices(log_names)], ...], REPEATED]
"""Names of logs; the option may be given several times."""
