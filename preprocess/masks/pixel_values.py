"""What the values of pixels in mask files mean: object numbers, black and white, or colours.

Masks are often stored as something else than numbers: black and white, with soft edges once they
have been resized or blurred, slightly off after JPEG, or as colours of objects. Objects have flat
insides, of one value; soft edges have none. So the values of flat insides tell what is stored: two
of them, and others in between, are a black and white mask, which is cut halfway. What remains
unclear, as soft edges between three values, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int, Shaped

from msdyn.errors import InputError
from msdyn.preprocess.contracts import Mask
from msdyn.reading import opened_image
from msdyn.scene import IGNORE, STATIC

__all__ = ["MAX_OBJECTS", "PixelValues", "read_mask_file"]

MAX_OBJECTS = 254
FLAT_SHARE = 0.05  # of the pixels of a value that are inside, for it not to be of an edge only
SOFT_VALUES = 8  # so many values of edges only are soft edges, not thin objects
BRIGHT = 128  # least grey level of a soft white region
NEAR = 24  # grey levels: JPEG changes flat regions by less
GREY = 12  # levels: channels that differ less are grey, as colours of a JPEG
NOISE = 6  # grey levels between neighbours in a flat region of a JPEG
LOSSY = (".jpg", ".jpeg", ".webp")
CURE = (
    "save them as PNG of object numbers (0 static, 1, 2, ...), resized to the nearest pixel, or as "
    "one folder of black and white images per object"
)


def read_mask_file(path: Path) -> tuple[Shaped[np.ndarray, "height width *channels"], bool]:
    """Return the stored values of a mask, uint8 or uint16 [H, W] or uint8 [H, W, 3].

    Of a palette image the indices. Transparency is the mask where it varies over one colour.

    Returns:
        The values, and whether they are indices of a palette.

    Raises:
        InputError: not an image, or an image of other values.
    """
    with opened_image(path) as opened:
        image, palette = np.array(opened), opened.mode == "P"
    if image.ndim == 3 and image.shape[2] in (2, 4):
        colours, alpha = image[..., :-1], image[..., -1]
        if alpha.min() < 255 and (colours != colours[:1, :1]).any():
            raise InputError(f"{path}: its colours and its transparency vary: which is it? {CURE}")
        image = alpha if alpha.min() < 255 else colours
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim == 3 and (np.ptp(image, axis=2) <= GREY * (path.suffix.lower() in LOSSY)).all():
        image = image[..., 1]
    if image.dtype == np.bool_:
        return image.astype(np.uint8), True
    if image.ndim == 2 and image.dtype.kind in "iu" and image.dtype != np.uint8:
        if image.min() >= 0 and image.max() <= np.iinfo(np.uint16).max:
            return image.astype(np.uint16), False
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise InputError(
            f"{path}: expected one 8-bit channel (or a palette, or colours) of object numbers, "
            f"got {image.dtype} {image.shape}"
        )
    return image, palette


@dataclass
class PixelValues:
    """Collects the values of mask files; `labels` then returns what they mean.

    Attributes:
        what: begins errors.
        kind: set by `decide`: "numbers"; "binary", black and white, cut at
            `middle`; "colours".
        middle: value between black and white.
        binary: 255 is the one object, not "ignore".
        soft: black and white, but not exactly.
    """

    what: str
    kind: Literal["numbers", "binary", "colours"] = "numbers"
    middle: float = 0.0
    binary: bool = False
    soft: bool = False
    _pixels: dict[int, int] = field(default_factory=dict)
    _flat: dict[int, int] = field(default_factory=dict)
    _lossy: bool = False
    _kinds: set[str] = field(default_factory=set)
    _table: dict[int, int] = field(default_factory=dict)

    def add(
        self, path: Path, stored: Shaped[np.ndarray, "height width *channels"], palette: bool
    ) -> None:
        """Count the values of a file; see `read_mask_file`."""
        if not stored.any():  # nothing moves: of every kind
            self._count(np.zeros(stored.shape[:2], np.int32))
            return
        self._kinds.add("colours" if stored.ndim == 3 else "indices" if palette else "grey")
        lossy = path.suffix.lower() in LOSSY
        self._lossy |= lossy
        self._count(_codes(stored), lossy)

    def decide(self) -> None:
        """Decide what the values mean.

        Raises:
            InputError: that is not clear.
        """
        if len(self._kinds) > 1:
            kinds = " and ".join(sorted(self._kinds))
            raise InputError(f"{self.what}: they are of different kinds, {kinds}; {CURE}")
        if "colours" in self._kinds:
            self._decide_colours()
        else:
            self._decide_grey()

    def labels(self, stored: Shaped[np.ndarray, "height width *channels"]) -> Mask:
        """Return the index mask [H, W] of the values of a file."""
        if not stored.any():
            return np.zeros(stored.shape[:2], np.uint8)
        if self.kind == "binary":
            return (stored > self.middle).astype(np.uint8)
        if self.kind == "colours":
            codes, index = np.unique(_codes(stored), return_inverse=True)
            table = np.array([self._table[code] for code in codes.tolist()], np.uint8)
            return table[index].reshape(stored.shape[:2])
        return np.minimum(stored, 1 if self.binary else IGNORE).astype(np.uint8)

    def _count(self, codes: Int[np.ndarray, "height width"], lossy: bool = False) -> None:
        """Add the pixels of each value, and those whose 3x3 surroundings have the same."""
        inside = np.ones(codes.shape, bool)
        inside[[0, -1]] = inside[:, [0, -1]] = False
        middle, tolerance = codes[1:-1, 1:-1], NOISE if lossy else 0
        for row in range(3):
            for column in range(3):
                height, width = middle.shape
                around = codes[row : row + height, column : column + width]
                inside[1:-1, 1:-1] &= np.abs(around - middle) <= tolerance
        for counts, chosen in ((self._pixels, codes), (self._flat, codes[inside])):
            for value, number in zip(*np.unique(chosen, return_counts=True), strict=True):
                counts[int(value)] = counts.get(int(value), 0) + int(number)

    def _solid(self) -> list[int]:
        """Return the values that have an inside, increasing."""
        return sorted(
            value
            for value, number in self._pixels.items()
            if self._flat.get(value, 0) >= FLAT_SHARE * number
        )

    def _decide_grey(self) -> None:
        values = sorted(self._pixels)
        if "indices" in self._kinds and not set(values) <= {STATIC, IGNORE}:
            return
        if values[-1] < BRIGHT and not self._lossy and len(values) <= SOFT_VALUES:
            return
        if set(values) <= {STATIC, IGNORE} or (values[-1] > IGNORE and len(values) == 2):
            self.kind, self.middle, self.binary = "binary", values[-1] / 2, True
            return
        solid = self._solid()
        edges = [value for value in values if value not in solid]
        groups = _groups(solid, NEAR)
        low, high = groups[0][-1] if groups else 0, groups[-1][0] if groups else 0
        between = [value for value in edges if low + NEAR < value < high - NEAR]
        clear = self._lossy or len(between) >= 3 or (between and high == IGNORE)
        if len(groups) == 2 and low <= NEAR and high >= BRIGHT and clear:
            self.kind, self.middle, self.binary = "binary", (groups[0][0] + groups[1][-1]) / 2, True
            self.soft = True
            return
        if self._lossy or len(edges) > SOFT_VALUES:
            found = ", ".join(str(group[-1]) for group in groups[:5])
            why = "JPEG changes them" if self._lossy else "they were resized or blurred"
            raise InputError(
                f"{self.what}: {len(values)} grey levels ({values[0]} to {values[-1]}), of which "
                f"{found or 'none'} fill regions: not black and white, and no object numbers "
                f"({why}); {CURE}"
            )
        if values[-1] > IGNORE:
            raise InputError(
                f"{self.what}: expected object numbers up to {MAX_OBJECTS}, got {values[-1]}; "
                f"{CURE}"
            )

    def _decide_colours(self) -> None:
        solid = self._solid()
        edges = len(self._pixels) - len(solid)
        if self._lossy or edges > SOFT_VALUES or len(self._pixels) > MAX_OBJECTS:
            raise InputError(
                f"{self.what}: {len(self._pixels)} colours, {len(solid)} of which fill regions: "
                f"soft edges or JPEG mix the colours of objects; {CURE}"
            )
        if 0 not in self._pixels:
            raise InputError(f"{self.what}: no pixel is black, which is static; {CURE}")
        palette = {code: index for index, code in enumerate(_voc_palette())}
        void = (224 << 16) | (224 << 8) | 192
        colours = sorted(set(self._pixels) - {0, void}, key=lambda c: (palette.get(c, 256), c))
        self._table = {0: STATIC, void: IGNORE}
        self._table |= {code: index for index, code in enumerate(colours, start=1)}
        if all(code in palette for code in colours):
            self._table |= {code: palette[code] for code in colours}
        self.kind = "colours"


def _codes(
    stored: Shaped[np.ndarray, "height width *channels"],
) -> Int[np.ndarray, "height width"]:
    """Return one number per pixel, of a colour 0xRRGGBB."""
    values = stored.astype(np.int32)
    if values.ndim == 2:
        return values
    return (values[..., 0] << 16) | (values[..., 1] << 8) | values[..., 2]


def _groups(values: Iterable[int], gap: int) -> list[list[int]]:
    """Return increasing values in groups, between which there are more than `gap`."""
    groups: list[list[int]] = []
    for value in values:
        if groups and value - groups[-1][-1] <= gap:
            groups[-1].append(value)
        else:
            groups.append([value])
    return groups


def _voc_palette() -> list[int]:
    """Return the codes of the 255 colours in which PASCAL VOC and DAVIS store numbers.

    Bit 0, 1, 2 of the number is the highest free bit of red, green, blue, and so on.
    """
    codes = []
    for number in range(255):
        colour = [0, 0, 0]
        for bit in range(8):
            colour[bit % 3] |= ((number >> bit) & 1) << (7 - bit // 3)
        codes.append((colour[0] << 16) | (colour[1] << 8) | colour[2])
    return codes
