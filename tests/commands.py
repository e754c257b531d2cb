"""Running a command within the process of the tests."""

from collections.abc import Callable, Sequence

__all__ = ["exit_code"]


def exit_code(main: Callable[[Sequence[str]], int], arguments: Sequence[object]) -> int:
    """Return the exit code of a command, also where its options are refused."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
