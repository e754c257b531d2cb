"""The commands. Each parses its options, calls one function and returns an exit code."""

import os
import sys

from msdyn.errors import InputError
from msdyn.interruption import install
from msdyn.thread_share import command_environment


def _is_command() -> bool:
    """Return whether this process is a command of msdyn, not a program that imports this package.

    It is one if it runs a script of ours, or a module of this package with `python -m`.
    """
    if os.path.basename(sys.argv[0] if sys.argv else "").startswith("msdyn-"):
        return True
    options = sys.orig_argv[1:]
    return any(
        option == "-m" and name.startswith(f"{__name__}.")
        for option, name in zip(options, options[1:], strict=False)
    )


# Before the imports of the commands, which take seconds: a command may be interrupted in them.
if _is_command():
    install()
# Libraries read these once, when they are loaded.
try:
    os.environ.update(command_environment())
except InputError as _error:
    if not _is_command():
        raise
    print(f"error: {_error}", file=sys.stderr)
    sys.exit(_error.exit_code)
