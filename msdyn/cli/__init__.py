"""The commands. Each parses its options, calls one function and returns an exit code."""

import os

# Waiting threads of OpenMP sleep instead of spinning. It reads this once, when torch loads it.
# Measured with two threads on two cores that other processes use as well: alternating convolutions
# and serial work took 20.7 s and 8.3 CPU seconds without, 12.2 s and 4.6 CPU seconds with it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
