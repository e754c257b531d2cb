"""Options, errors and interruptions, common to all commands."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, TypeVar

import tyro

from msdyn.disk import disk_error
from msdyn.errors import InputError, MsdynError
from msdyn.interruption import tell, told
from msdyn.plugins import load_plugins

__all__ = ["BEGINS_AGAIN", "RESUMES", "parse", "run"]

BEGINS_AGAIN = "files that are complete are kept, the same command begins again"
"""What commands say on an interruption that have nothing to resume."""
RESUMES = "finished work is kept, the same command resumes from there"
_CLOSED_PIPE = 141  # as of a process that SIGPIPE ends

Config = TypeVar("Config")


def parse(
    config_type: type[Config],
    argv: Sequence[str] | None,
    prog: str,
    description: str,
    default: Config | None = None,
) -> Config:
    """Parse the options of a command into a config.

    Args:
        config_type: a dataclass; a string under each field is its help.
        argv: the arguments; None takes those of the process.
        prog: name of the command.
        description: shown by `--help`.
        default: defaults of the options, instead of those of the class.

    Raises:
        SystemExit: 0 after `--help`, 2 after an error message about the options.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    messages = io.StringIO()
    try:
        load_plugins()
        with redirect_stderr(messages):
            return tyro.cli(config_type, args=argv, prog=prog, description=description, **given)
    except InputError as error:  # also of a config inside the config
        _print_error(str(error))
        raise SystemExit(2) from error
    except SystemExit as end:
        # Of a value that the config rejects, the config's message; of an option that cannot be
        # read, that of tyro, which lists similar options.
        cause: BaseException | None = end.__context__
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__context__  # tyro has several in a row where there are subcommands
        if cause is not None:
            _print_error(str(cause))
        else:
            sys.stderr.write(messages.getvalue())
        raise


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
    try:
        return _stop_at_closed_pipe(function(config) or 0)
    except BrokenPipeError:
        return _stop_at_closed_pipe(_CLOSED_PIPE)
    except MsdynError as error:
        _print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
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
    print("error: " + " ".join(line.split()), file=sys.stderr)
