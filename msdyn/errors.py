"""Errors caused by user input. The command line prints their message and exits with `exit_code`."""

__all__ = ["InputError", "MissingExtraError", "MsdynError", "PoorInputError"]


_LONGEST = 1600


class MsdynError(Exception):
    """Base of all errors that msdyn raises deliberately.

    A message that quotes thousands of characters of a file is shortened in its middle.
    """

    exit_code = 2

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} [...] {text[-_LONGEST // 4 :]}"
        super().__init__(text)


class InputError(MsdynError, ValueError):
    """An invalid file, option or argument; the message has its name, expected and actual value."""


class PoorInputError(MsdynError):
    """Input from which no useful result can be computed; the message has the reason and a remedy.

    Exit code 3.
    """

    exit_code = 3


class MissingExtraError(MsdynError, ImportError):
    """A missing optional package; the message names it and the extra of msdyn that installs it."""
