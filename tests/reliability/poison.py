"""Backends of masks that crash, eat memory or hang; a plugin of msdyn (MSDYN_PLUGINS)."""

import os
import time

from msdyn.preprocess import Backend, register_backend


class _Poison(Backend):
    def segment(self, scene, tracks, solution):
        raise NotImplementedError


@register_backend("masks", "crash", needs=("frames", "tracks"))
class Crash(_Poison):
    """Ends its process as a fault of compiled code does."""

    def segment(self, scene, tracks, solution):
        os.abort()


@register_backend("masks", "eat", needs=("frames", "tracks"))
class Eat(_Poison):
    """Takes memory, slower than the machine has it."""

    def segment(self, scene, tracks, solution):
        held = []
        while True:
            held.append(bytearray(b"x") * (32 << 20))
            time.sleep(0.02)


@register_backend("masks", "hang", needs=("frames", "tracks"))
class Hang(_Poison):
    """Never ends."""

    def segment(self, scene, tracks, solution):
        while True:
            time.sleep(1)
