"""Errors a user can act on. The command line prints their one line and exits with `exit_code`."""

__all__ = ["InputError", "MissingExtraError", "MsdynError", "PoorInputError"]


class MsdynError(Exception):
    """Base of the errors that msdyn raises on purpose."""

    exit_code = 2


class InputError(MsdynError, ValueError):
    """Say what was wrong with a file, option or argument: what, expected, actual, what to do."""


class PoorInputError(MsdynError):
    """Say why a result would be too poor to be of use, and what would help. Exit code 3."""

    exit_code = 3


class MissingExtraError(MsdynError, ImportError):
    """Say which package an option needs, and which extra of msdyn brings it."""
