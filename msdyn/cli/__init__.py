"""The commands. Each parses its options, calls one function and returns an exit code."""

import os
import sys

from msdyn.interruption import install

# Waiting threads of OpenMP sleep instead of spinning. It reads this once, when torch loads it.
# Measured with two threads on two cores that other processes use as well: alternating convolutions
# and serial work took 20.7 s and 8.3 CPU seconds without, 12.2 s and 4.6 CPU seconds with it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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
