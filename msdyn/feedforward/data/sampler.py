"""Which clip a running number draws: the whole state is a seed and a number.

The numbers of an epoch draw each clip as often as its data set is repeated, in a random order that
changes from epoch to epoch.
"""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Int64

from msdyn.errors import InputError

__all__ = ["ClipSampler", "permuted"]

_ROUNDS = 6


class ClipSampler:
    """Draws clips by number.

    Attributes:
        epoch_length: draws per epoch.
    """

    def __init__(self, repeats: Int64[np.ndarray, " clips"], seed: int) -> None:
        """Prepare to draw.

        Args:
            repeats: draws of each clip per epoch, at least 1.
            seed: of the order.

        Raises:
            InputError: there are no clips, or a repeat below 1.
        """
        if len(repeats) == 0 or repeats.min() < 1:
            raise InputError("sampler: expected clips, each drawn at least once per epoch")
        self._ends = np.cumsum(repeats)
        self.seed = seed
        self.epoch_length = int(self._ends[-1])

    def clip(self, number: int) -> int:
        """Return the index of the clip that a number, from 0, draws."""
        epoch, step = divmod(number, self.epoch_length)
        position = permuted(step, self.epoch_length, f"{self.seed}/{epoch}".encode())
        return int(np.searchsorted(self._ends, position, side="right"))


def permuted(position: int, length: int, key: bytes) -> int:
    """Return the image of a position under a random permutation of 0 .. length - 1.

    A Feistel network permutes the numbers of an even number of bits, at most 4 times `length` of
    them; it is applied until the result is below `length`. Nothing of the size of `length` is kept.

    Reference: Black and Rogaway, Ciphers with arbitrary finite domains, 2002 ("cycle walking").
    """
    half = max(1, (max(length - 1, 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    value = position
    while True:
        left, right = value >> half, value & mask
        for turn in range(_ROUNDS):
            message = turn.to_bytes(1, "little") + right.to_bytes(8, "little")
            digest = hashlib.blake2b(message, digest_size=8, key=key[:64]).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        value = left << half | right
        if value < length:
            return value
