"""Textures: float32 RGB in [0, 1], procedural or from photographs.

A material is a function `(height, width, rng) -> texture`, sizes in texels. All materials have
detail at several scales down to a few texels, for optical flow and feature matching, and none is
periodic.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, Float32

__all__ = [
    "Colour",
    "Material",
    "dead_leaves",
    "fabric",
    "inset",
    "key_caps",
    "photo",
    "plaster",
    "wood",
]

Texture = Float32[np.ndarray, "height width 3"]
Material = Callable[[int, int, np.random.Generator], Texture]
Colour = tuple[float, float, float]


def fractal_noise(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    coarsest: float,
    finest: float = 2.0,
    persistence: float = 0.7,
    stretch: float = 1.0,
) -> Float32[np.ndarray, "height width"]:
    """Return a sum of smooth random fields, the features of each half the size of the one before.

    Args:
        height, width: size in texels.
        rng: source of randomness.
        coarsest, finest: feature size, texels, of the first and last octave.
        persistence: amplitude of an octave relative to the one before.
        stretch: aspect ratio of the features, width to height.

    Returns:
        Noise of mean 0 and standard deviation 1.
    """
    import cv2

    total = np.zeros((height, width), np.float32)
    size, amplitude = coarsest, 1.0
    while size >= finest:
        rows, columns = int(np.ceil(height / size)) + 3, int(np.ceil(width / size / stretch)) + 3
        grid = rng.standard_normal((rows, columns)).astype(np.float32)
        scale = np.array([[1 / (size * stretch), 0, 1], [0, 1 / size, 1]], np.float32)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        total += amplitude * cv2.warpAffine(
            grid, scale, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT
        )
        size, amplitude = size / 2, amplitude * persistence
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def _blend(values: Float[np.ndarray, "height width"], colours: Sequence[Colour]) -> Texture:
    """Map values in [0, 1] to a piecewise linear colour map."""
    stops = np.linspace(0, 1, len(colours))
    channels = [np.interp(values, stops, channel) for channel in zip(*colours, strict=True)]
    return np.stack(channels, -1).astype(np.float32)


def _with_grain(texture: Texture, rng: np.random.Generator, amount: float) -> Texture:
    """Vary the brightness by noise at all scales, like that of print, dirt and fibres."""
    height, width = texture.shape[:2]
    noise = fractal_noise(height, width, rng, coarsest=32, finest=1.5, persistence=0.85)
    return np.clip(texture * (1 + amount * noise[..., None]), 0, 1).astype(np.float32)


def plaster(*colours: Colour, coarsest: float = 160, grain: float = 0.05) -> Material:
    """Return a material of fractal noise over many octaves, like walls, stone or felt."""

    def make(height: int, width: int, rng: np.random.Generator) -> Texture:
        noise = fractal_noise(height, width, rng, coarsest=coarsest, persistence=0.8)
        return _with_grain(_blend(0.5 + 0.28 * noise, colours), rng, grain)

    return make


def wood(*colours: Colour, plank: int = 90) -> Material:
    """Return planks along the width, `plank` texels wide, each of random tone and grain."""

    def make(height: int, width: int, rng: np.random.Generator) -> Texture:
        texture = np.zeros((height, width, 3), np.float32)
        for top in range(0, height, plank):
            rows = min(plank, height - top)
            swirl = fractal_noise(rows, width, rng, coarsest=60, stretch=8)
            grain = np.sin(2.5 * swirl + rng.uniform(0, 6)) + 0.7 * fractal_noise(
                rows, width, rng, coarsest=12, finest=1.5, persistence=0.9, stretch=10
            )
            tone = rng.normal(0, 0.12)
            texture[top : top + rows] = _blend(0.5 + tone + 0.2 * grain, colours)
            texture[top : top + 2] *= 0.6  # the gap between planks
        return _with_grain(texture, rng, 0.04)

    return make


def dead_leaves(*colours: Colour, largest: float = 40, smallest: float = 2.5) -> Material:
    """Return a material of overlapping discs, bars and triangles: sharp detail at every scale.

    Sizes follow a power law, as in the dead-leaves model of natural images. Larger shapes are drawn
    first, so that they do not cover small ones.

    Args:
        colours: palette, sampled at random with some jitter.
        largest, smallest: range of radii, texels.

    Reference: Lee, Mumford and Huang, "Occlusion models for natural images", 2001.
    """
    import cv2

    corners = {"bar": [45, 135, 225, 315], "triangle": [90, 210, 330]}

    def make(height: int, width: int, rng: np.random.Generator) -> Texture:
        palette = np.asarray(colours)
        canvas = np.empty((height, width, 3), np.uint8)
        canvas[:] = (255 * palette[0]).astype(np.uint8)
        radius = largest
        while radius >= smallest:
            # The shapes of each radius have 40 % of the texture's area in total.
            count = int(np.ceil(0.4 * height * width / (np.pi * radius**2)))
            tint = palette[rng.integers(len(palette), size=count)] + rng.normal(0, 0.03, (count, 1))
            tints = (255 * tint.clip(0, 1)).tolist()
            centres = rng.uniform((0, 0), (width, height), (count, 2))
            sizes = radius * rng.uniform(0.7, 1.4, count)
            rotations = rng.uniform(0, 360, count)
            kinds = rng.choice(["disc", "bar", "triangle"], count)
            # OpenCV's fixed-point coordinates with three fractional bits.
            for kind in ("disc", "bar", "triangle"):
                for i in np.flatnonzero(kinds == kind):
                    if kind == "disc":
                        centre = np.rint(8 * centres[i]).astype(int).tolist()
                        cv2.circle(canvas, centre, int(8 * sizes[i]), tints[i], -1, cv2.LINE_AA, 3)
                        continue
                    angles = np.radians(np.asarray(corners[kind]) + rotations[i])
                    points = centres[i] + sizes[i] * np.stack([np.cos(angles), np.sin(angles)], -1)
                    points = np.rint(8 * points).astype(np.int32)
                    cv2.fillConvexPoly(canvas, points, tints[i], cv2.LINE_AA, 3)
            radius /= 1.6
        return _with_grain(canvas.astype(np.float32) / 255, rng, 0.05)

    return make


def fabric(*colours: Colour, narrowest: float = 3, widest: float = 24) -> Material:
    """Return a tartan: the mean of stripes of random width and colour in both directions."""

    def stripes(length: int, rng: np.random.Generator) -> Float32[np.ndarray, "length 3"]:
        out = np.zeros((length, 3), np.float32)
        start = 0
        while start < length:
            end = start + int(np.exp(rng.uniform(np.log(narrowest), np.log(widest))))
            out[start:end] = colours[rng.integers(len(colours))]
            start = end
        return out

    def make(height: int, width: int, rng: np.random.Generator) -> Texture:
        warp, weft = stripes(width, rng)[None], stripes(height, rng)[:, None]
        return _with_grain((warp + weft) / 2, rng, 0.09)

    return make


def photo(name: str) -> Material:
    """Return a photograph cropped to the aspect ratio of the surface.

    Args:
        name: "china" or "flower" of scikit-learn, or "portrait" of matplotlib.
    """

    def make(height: int, width: int, rng: np.random.Generator) -> Texture:
        import cv2

        image = _load_photo(name)
        full_height, full_width = image.shape[:2]
        scale = min(full_height / height, full_width / width)
        rows, columns = int(scale * height), int(scale * width)
        top, left = (full_height - rows) // 2, (full_width - columns) // 2
        crop = np.ascontiguousarray(image[top : top + rows, left : left + columns])
        interpolation = cv2.INTER_AREA if scale > 1 else cv2.INTER_CUBIC
        resized = cv2.resize(crop, (width, height), interpolation=interpolation)
        return _with_grain(resized.clip(0, 1), rng, 0.03)

    return make


@cache
def _load_photo(name: str) -> Texture:
    """Return an image that an installed package ships."""
    if name == "portrait":
        import imageio.v3 as iio
        from matplotlib.cbook import get_sample_data

        path = get_sample_data("grace_hopper.jpg", asfileobj=False)
        return np.asarray(iio.imread(path), np.float32) / 255
    from sklearn.datasets import load_sample_image

    return np.asarray(load_sample_image(f"{name}.jpg"), np.float32) / 255


def key_caps(rows: int, columns: int, cap: Colour, body: Colour, ink: Colour) -> Material:
    """Return a keyboard: key caps of random width in rows, each with a random blob of ink."""

    def make(height: int, width: int, rng: np.random.Generator) -> Texture:
        texture = np.empty((height, width, 3), np.float32)
        texture[:] = body
        edges = np.linspace(0.04 * height, 0.96 * height, rows + 1)
        for top, bottom in zip(edges[:-1], edges[1:], strict=True):
            widths = rng.choice([1, 1, 1, 1, 1.5, 2], columns)
            ends = 0.03 * width + 0.94 * width * np.r_[0, np.cumsum(widths)] / widths.sum()
            for left, right in zip(ends[:-1], ends[1:], strict=True):
                gap = 0.08 * (bottom - top)
                area = texture[int(top + gap) : int(bottom - gap), int(left + gap) : int(right)]
                area[:] = np.asarray(cap) * rng.uniform(0.8, 1.15)
                high, wide = area.shape[:2]
                blob = fractal_noise(high, wide, rng, coarsest=8, persistence=0.5)
                centre = np.hanning(area.shape[0])[:, None] * np.hanning(area.shape[1])
                area[(blob + 3 * centre) > 2.2] = ink
        return _with_grain(texture, rng, 0.07)

    return make


def inset(material: Material, picture: Material, margin: float) -> Material:
    """Return a material with a picture in it; the margin is a fraction of the shorter side."""

    def make(height: int, width: int, rng: np.random.Generator) -> Texture:
        texture = material(height, width, rng)
        edge = int(margin * min(height, width))
        inner = picture(height - 2 * edge, width - 2 * edge, rng)
        texture[edge : height - edge, edge : width - edge] = inner
        return texture

    return make
