"""Options, errors and interruptions, common to all commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from msdyn.cli.options import parse
from msdyn.errors import MsdynError
from msdyn.progress import end_progress

__all__ = ["parse", "run"]

Config = TypeVar("Config")


def run(function: Callable[[Config], int | None], config: Config) -> int:
    """Call `function(config)` and return the exit code of the command.

    0 for success, or the number that the function returns; 2 for invalid input, 3 for input of
    insufficient quality, each after one line on stderr; 130 after an interruption. Any other
    exception is a bug of msdyn and propagates with its traceback.
    """
    try:
        return function(config) or 0
    except MsdynError as error:
        _print_error(str(error))
        return error.exit_code
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        # Errors of the system have an error number; those of msdyn are a sentence already.
        _print_error(f"{error.filename}: {error.strerror}" if error.strerror else str(error))
        return 2
    except KeyboardInterrupt:
        _print_error("interrupted; finished work is kept, the same command resumes from there")
        return 130


def _print_error(line: str) -> None:
    end_progress()
    print("error: " + " ".join(line.split()), file=sys.stderr)
