"""The demo's comparison sheet: input, render, held-out truth and error at a few times."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from jaxtyping import UInt8

from msdyn.colours import error_image
from msdyn.geometry import Similarity, align_camera_paths
from msdyn.render import render_image
from msdyn.scene import Scene
from msdyn.sequence import GaussianSequence
from msdyn.writing import atomic_path

__all__ = ["save_comparison_sheet"]

_TITLES = ("input", "render of a held-out camera", "its true image", "error where covisible")
_TIMES = 4


def save_comparison_sheet(
    path: Path, scene: Scene, sequence: GaussianSequence, truth: Scene, *, align: bool
) -> None:
    """Save a sheet with a row for each of a few times, cycling through the held-out cameras.

    Args:
        path: PNG to write.
        scene: the input of the fit.
        sequence: the fit.
        truth: scene with held-out views.
        align: align their worlds by a similarity first.
    """
    world = Similarity.identity()
    if align:
        world = align_camera_paths(truth.cameras, sequence.cameras)
    views = list(truth.views.values())
    rows = [_titles(scene.size[1], views[0].cameras.width)]
    for number, frame in enumerate(np.linspace(0, len(scene) - 1, _TIMES).round().astype(int)):
        view = views[number % len(views)]
        camera = view.cameras.transformed(world)[frame]
        image = render_image(sequence, camera, sequence.timeline.time_of_frame(int(frame))).rgb8
        true = view.image(int(frame))
        error = error_image(image, true, view.covisible(int(frame)))
        rows.append(np.concatenate([scene.image(int(frame)), image, true, error], axis=1))
    with atomic_path(path) as temporary:
        iio.imwrite(temporary, np.concatenate(rows, axis=0))


def _titles(input_width: int, view_width: int) -> UInt8[np.ndarray, "20 width 3"]:
    """Return a strip with the titles of the columns."""
    from PIL import Image, ImageDraw

    widths = [input_width, view_width, view_width, view_width]
    strip = Image.new("RGB", (sum(widths), 20), (20, 20, 24))
    draw = ImageDraw.Draw(strip)
    left = 0
    for title, width in zip(_TITLES, widths, strict=True):
        draw.text((left + 6, 4), title, fill=(235, 235, 235))
        left += width
    return np.asarray(strip)
