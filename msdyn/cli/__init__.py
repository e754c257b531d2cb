"""The commands. Each parses its options, calls one function and returns an exit code."""
