"""Masks stored as something else than numbers: soft edges, JPEG, colours, transparency."""

import cv2
import numpy as np
import pytest
from moving import write_scene
from PIL import Image

from msdyn.errors import InputError
from msdyn.preprocess.masks.from_files import FileMasks
from msdyn.scene import Tracks

HEIGHT, WIDTH, FRAMES = 60, 80, 3
NO_TRACKS = Tracks.from_dense(
    np.zeros((0, FRAMES, 2)),
    np.zeros((0, FRAMES)),
    np.zeros((0, FRAMES)),
    np.zeros(0),
    np.zeros(0),
)


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene", np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8))


def discs(frame, values):
    """Return discs of these values, side by side, the first larger than the others."""
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    for i, value in enumerate(values):
        cv2.circle(image, (18 + 22 * i + 2 * frame, 30), 12 - 2 * bool(i), int(value), -1)
    return image


def read(scene, folder):
    result = FileMasks(folder).segment(scene, NO_TRACKS, None).masks
    return np.stack(list(result)), result.figures


def write(folder, make, suffix=".png", **options):
    """Write `make(frame)`, an array or an image, for every frame."""
    folder.mkdir(parents=True)
    for frame in range(FRAMES):
        image = make(frame)
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(folder / f"{frame:05d}{suffix}", **options)
    return folder


def white(frame):
    return discs(frame, [255])


def exact():
    return np.stack([discs(frame, [1]) for frame in range(FRAMES)])


def half_size(frame):
    """Return the mask drawn at twice the size, shrunk: few levels between black and white."""
    large = np.kron(white(frame), np.ones((2, 2), np.uint8))
    large[:, 1:] = np.maximum(large[:, 1:], large[:, :-1])
    return cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("high", [255, 180])
@pytest.mark.parametrize(
    "soften",
    [
        lambda image: cv2.GaussianBlur(image, (7, 7), 0),
        lambda image: cv2.GaussianBlur(image, (15, 15), 3),
        lambda image: cv2.resize(image[::2, ::2], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR),
    ],
)
def test_soft_edges_of_black_and_white_masks_are_cut_halfway(tmp_path, scene, soften, high):
    folder = write(tmp_path / "m", lambda frame: soften(discs(frame, [high])))
    found, figures = read(scene, folder)
    assert figures["binary"] and figures["stored_as"] == "soft edges"
    assert set(np.unique(found)) == {0, 1}
    assert (found != exact()).mean() < 0.02


def test_few_grey_levels_between_black_and_white(tmp_path, scene):
    found, figures = read(scene, write(tmp_path / "m", half_size))
    assert set(np.unique(found)) == {0, 1} and (found != exact()).mean() < 0.02
    assert figures["stored_as"] == "soft edges"


@pytest.mark.parametrize("quality", [95, 75, 30])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_black_and_white_jpeg(tmp_path, scene, quality, mode):
    folder = write(
        tmp_path / "m", lambda f: Image.fromarray(white(f)).convert(mode), ".jpg", quality=quality
    )
    found, _ = read(scene, folder)
    assert set(np.unique(found)) == {0, 1} and (found != exact()).mean() < 0.005


def test_soft_folders_of_objects(tmp_path, scene):
    for name, place in (("a", 0), ("b", 1)):
        write(
            tmp_path / "m" / name,
            lambda frame, place=place: cv2.GaussianBlur(
                discs(frame, [0] * place + [255]), (9, 9), 0
            ),
            ".jpg",
        )
    (tmp_path / "m" / "__MACOSX").mkdir()
    (tmp_path / "m" / "__MACOSX" / "._00000.png").write_bytes(b"x")
    found, figures = read(scene, tmp_path / "m")
    assert figures["folders"] == ["a", "b"]
    expected = np.stack([discs(frame, [1, 2]) for frame in range(FRAMES)])
    assert (found != expected).mean() < 0.01


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda f: cv2.GaussianBlur(discs(f, [120, 255]), (9, 9), 0), "grey levels .*120"),
        (lambda f: cv2.GaussianBlur(discs(f, [60]), (9, 9), 0), "grey levels"),
        (lambda f: cv2.GaussianBlur(np.dstack([discs(f, [200])] + [white(f)] * 2), (9, 9), 0),
         "colours, .* soft edges or JPEG"),
        (lambda f: np.dstack([white(f) + 1] * 2 + [white(f)]), "no pixel is black"),
        (lambda f: np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8),
         "grey levels"),
    ],
)  # fmt: skip
def test_unclear_masks_are_refused_with_the_cure(tmp_path, scene, make, words):
    with pytest.raises(InputError, match=f"masks: .*{words}.*save them as PNG") as error:
        read(scene, write(tmp_path / "m", make))
    assert "\n" not in str(error.value)


def test_numbers_in_a_jpeg_are_refused(tmp_path, scene):
    folder = write(tmp_path / "m", lambda f: discs(f, [1, 2]), ".jpg")
    with pytest.raises(InputError, match="JPEG changes them"):
        read(scene, folder)


def coloured(frame, colours):
    numbers = discs(frame, range(1, len(colours) + 1))
    return np.array([(0, 0, 0), *colours], np.uint8)[numbers]


def test_colours_of_the_palette_of_davis_are_its_numbers(tmp_path, scene):
    red, green, yellow = (128, 0, 0), (0, 128, 0), (128, 128, 0)
    folder = write(tmp_path / "m", lambda f: coloured(f, [yellow, red, green]))
    found, figures = read(scene, folder)
    expected = np.stack([discs(frame, [3, 1, 2]) for frame in range(FRAMES)])
    np.testing.assert_array_equal(found, expected)
    assert figures["stored_as"] == "colours"


def test_other_colours_are_objects_in_every_frame_the_same(tmp_path, scene):
    colours = [(10, 200, 30), (250, 40, 90)]
    folder = write(tmp_path / "m", lambda f: coloured(f, colours if f else colours[:1]))
    found, _ = read(scene, folder)
    expected = np.stack([discs(f, [1, 2] if f else [1]) for f in range(FRAMES)])
    np.testing.assert_array_equal(found, expected)


def test_transparency_may_be_the_mask(tmp_path, scene):
    def cut_out(frame):
        return np.dstack([np.full((HEIGHT, WIDTH), 255, np.uint8)] * 3 + [white(frame)])

    np.testing.assert_array_equal(read(scene, write(tmp_path / "a", cut_out))[0], exact())

    def opaque(frame):
        return np.dstack([white(frame)] * 3 + [np.full((HEIGHT, WIDTH), 255, np.uint8)])

    np.testing.assert_array_equal(read(scene, write(tmp_path / "b", opaque))[0], exact())

    def both(frame):
        noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        return np.dstack([noise, white(frame)])

    with pytest.raises(InputError, match="its colours and its transparency vary"):
        read(scene, write(tmp_path / "c", both))


def test_sixteen_bits(tmp_path, scene):
    folder = write(tmp_path / "a", lambda f: discs(f, [1]).astype(np.uint16) * 65535)
    np.testing.assert_array_equal(read(scene, folder)[0], exact())
    folder = write(tmp_path / "b", lambda f: discs(f, [1, 2]).astype(np.uint16))
    assert set(np.unique(read(scene, folder)[0])) == {0, 1, 2}
    folder = write(tmp_path / "c", lambda f: discs(f, [1, 2]).astype(np.uint16) * 500)
    with pytest.raises(InputError, match="object numbers up to 254, got 1000"):
        read(scene, folder)


def test_numbers_stay_numbers(tmp_path, scene):
    """Thin objects, a border of 255 around objects, and many objects are no soft edges."""

    def thin(frame):
        image = discs(frame, [1, 2])
        image[5], image[7, ::2], image[9] = 3, 4, 255
        return image

    found, _ = read(scene, write(tmp_path / "a", thin))
    np.testing.assert_array_equal(found[1], thin(1))

    def many(frame):
        return np.kron(np.arange(48, dtype=np.uint8).reshape(6, 8), np.ones((10, 10), np.uint8))

    found, _ = read(scene, write(tmp_path / "b", many))
    np.testing.assert_array_equal(found[0], many(0))

    def of_palette(frame):
        image = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH))
        return image.convert("P", palette=Image.Palette.ADAPTIVE)

    found, figures = read(scene, write(tmp_path / "c", of_palette))
    assert len(np.unique(found)) > 100 and not figures["binary"]


def test_frames_without_an_object_are_of_every_kind(tmp_path, scene):
    def sometimes(frame):
        return coloured(frame, [(128, 0, 0)]) if frame else np.zeros((HEIGHT, WIDTH), np.uint8)

    found, _ = read(scene, write(tmp_path / "m", sometimes))
    assert not found[0].any() and set(np.unique(found[1:])) == {0, 1}

    def mixed(frame):
        return coloured(frame, [(128, 0, 0)]) if frame else discs(frame, [7])

    with pytest.raises(InputError, match="of different kinds, colours and grey"):
        read(scene, write(tmp_path / "n", mixed))
