"""Errors caused by user input. The command line prints their message and exits with `exit_code`."""

__all__ = [
    "InputError",
    "MissingExtraError",
    "MsdynError",
    "PoorInputError",
    "ResourceError",
    "printable",
]


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


class ResourceError(MsdynError):
    """The machine does not allow what the command needs: space, memory, permission to write.

    The message has the file, what the system said, and a remedy. Exit code 4.
    """

    exit_code = 4


def printable(text: object, longest: int = 400) -> str:
    """Return a text of a file in one line for a terminal, which would act on control characters.

    Args:
        text: of any kind, as from a JSON file.
        longest: number of characters; the rest is left out.
    """
    shown = str(text)[: longest + 1]
    line = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in shown)
    return line if len(line) <= longest else line[: longest - 3] + "..."
