"""Options, errors and interruptions, common to all commands."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, TypeVar

import tyro

from msdyn.errors import InputError, MsdynError
from msdyn.plugins import load_plugins

__all__ = ["parse", "run"]

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
    print("error: " + " ".join(line.split()), file=sys.stderr)
