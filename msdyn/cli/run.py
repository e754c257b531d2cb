"""Options, errors and interruptions, common to all commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from msdyn import events
from msdyn.cli.options import parse
from msdyn.errors import MsdynError
from msdyn.interruption import tell, told
from msdyn.progress import end_progress, write_error
from msdyn.writing import disk_error

__all__ = ["BEGINS_AGAIN", "RESUMES", "parse", "run"]

BEGINS_AGAIN = "files that are complete are kept, the same command begins again"
"""What commands say on an interruption that have nothing to resume."""
RESUMES = "finished work is kept, the same command resumes from there"
_CLOSED_PIPE = 141  # as of a process that SIGPIPE ends

Config = TypeVar("Config")


def run(
    function: Callable[[Config], int | None], config: Config, *, interrupted: str = BEGINS_AGAIN
) -> int:
    """Call `function(config)` and return the exit code of the command.

    0 for success, or the number that the function returns; 2 for invalid input, 3 for input of
    insufficient quality, 4 for what the machine refuses (space, permission to write, memory), each
    after one line on stderr; 130 after an interruption. Any other exception is a bug of msdyn and
    propagates with its traceback.

    Args:
        function: of the command.
        config: its argument.
        interrupted: what an interruption leaves, and what the same command does after it; the
            function may change it by `msdyn.interruption.tell`.
    """
    tell(interrupted)
    code = _call(function, config)
    events.emit("exit", code=code)
    return code


def _call(function: Callable[[Config], int | None], config: Config) -> int:
    """Call a function and return the exit code, after the line about an error."""
    try:
        return _stop_at_closed_pipe(function(config) or 0)
    except BrokenPipeError:
        return _stop_at_closed_pipe(_CLOSED_PIPE)
    except MsdynError as error:
        _print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        end_progress()
        if events.are_json():
            events.emit("note", text=f"interrupted; {told()}")
        else:
            print(f"interrupted; {told()}", file=sys.stderr)
        return 130
    except Exception as error:
        refused = disk_error(error)
        if refused is not None:
            _print_error(str(refused))
            return refused.exit_code
        if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) or (
            isinstance(error, PermissionError)
        ):
            # Errors of the system have an error number; those of msdyn are a sentence already.
            _print_error(f"{error.filename}: {error.strerror}" if error.strerror else str(error))
            return 2
        raise


def _stop_at_closed_pipe(code: int) -> int:
    """Return the exit code, after what was printed has been read; another if nobody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _CLOSED_PIPE
    if code == _CLOSED_PIPE:
        # Else the interpreter would complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _print_error(line: str) -> None:
    end_progress()
    write_error(line)
