"""Folders of images: files that are no frames, 16 bits, and what cameras wrote into them."""

import numpy as np
import pytest
from moving import texture
from PIL import Image

from msdyn.errors import InputError
from msdyn.preprocess.frames.extract import FrameOptions, write_frames
from msdyn.preprocess.frames.sources import source_files
from msdyn.scene import Scene


def write(folder, count=4, size=(48, 64), suffix=".png", **options):
    folder.mkdir()
    for i in range(count):
        image = np.roll(texture(*size), i, 1)
        Image.fromarray(image).save(folder / f"{i:03d}{suffix}", **options)
    return folder


def run(folder, out):
    record = write_frames(folder, out, FrameOptions())
    return Scene(out), record


def test_files_of_file_managers_are_no_frames(tmp_path):
    folder = write(tmp_path / "f")
    for name in ("._000.png", ".hidden.jpg", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (folder / name).write_bytes(b"x")
    (folder / "sub.png").mkdir()
    assert len(run(folder, tmp_path / "s")[0]) == 4
    assert len(source_files(folder / "0*.png")) == 4


def test_an_image_without_a_number_among_numbered_ones_is_left_out_and_named(tmp_path, caplog):
    folder = write(tmp_path / "f", 6)
    Image.fromarray(texture(48, 64, seed=9)).save(folder / "preview.png")
    scene, record = run(folder, tmp_path / "s")
    assert len(scene) == 6 and "preview.png" not in record["source_names"]
    assert [r.message for r in caplog.records] == [
        f"frames: {folder}: left out, as the name has no number: preview.png"
    ]


def test_two_kinds_of_one_image_are_refused(tmp_path):
    folder = write(tmp_path / "f")
    Image.fromarray(texture(48, 64)).save(folder / "002.jpg")
    with pytest.raises(InputError, match=r"002\.png: there is also 002\.jpg"):
        run(folder, tmp_path / "s")


@pytest.mark.parametrize("white", [1023, 4095, 65535])
def test_grey_images_of_16_bits_are_shown_by_the_range_of_the_sensor(tmp_path, caplog, white):
    folder = tmp_path / "f"
    folder.mkdir()
    ramp = np.linspace(0, 0.9 * white, 48 * 64).reshape(48, 64).round().astype(np.uint16)
    for i in range(3):
        Image.fromarray(np.roll(ramp, i, 0)).save(folder / f"{i}.png")
    scene, record = run(folder, tmp_path / "s")
    assert record["source_white"] == white
    assert f"0 to {white} is shown black to white" in caplog.records[0].message
    expected = np.roll(ramp, 1, 0).astype(float) * 255 / white
    np.testing.assert_allclose(scene.image(1)[..., 0], expected, atol=0.51)


def test_deeper_images_get_a_cure(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(np.full((48, 64), 0.5, np.float32)).save(folder / f"{i}.tif")
    with pytest.raises(InputError, match="got mode F; convert them first"):
        run(folder, tmp_path / "s")
    Image.fromarray(np.full((48, 64), 500, np.uint16)).save(folder / "0.tif")
    Image.fromarray(np.full((48, 64), 50, np.uint8)).save(folder / "1.tif")
    with pytest.raises(InputError, match="of 8 and of 16 bits in one folder"):
        run(folder, tmp_path / "s")


def exif(**tags):
    """Return EXIF data with tags of the Exif part, by number."""
    data = Image.Exif()
    data.get_ifd(0x8769).update({int(k[1:]): v for k, v in tags.items()})
    return data


def test_the_focal_length_as_on_full_frame(tmp_path):
    folder = write(tmp_path / "f", suffix=".jpg", exif=exif(t41989=26))
    _, record = run(folder, tmp_path / "s")
    # The diagonal of the image, 80 px, is that of 36x24 mm.
    assert record["source_focal_px"] == pytest.approx(26 * 80 / np.hypot(36, 24), abs=0.01)
    assert record["source_focal"] == "EXIF: 26 mm, as on full frame"


def test_the_focal_length_of_a_sensor_of_known_size(tmp_path):
    # 6000 px at 2438.4 per inch: 62.5 mm.
    tags = {"t37386": 50.0, "t41486": 2438.4, "t41488": 2, "t40962": 6000, "t40963": 4500}
    folder = write(tmp_path / "f", suffix=".jpg", exif=exif(**tags))
    _, record = run(folder, tmp_path / "s")
    assert record["source_focal_px"] == pytest.approx(50 / 62.5 * 64, abs=0.01)
    assert "sensor 62.5 mm wide" in record["source_focal"]


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"t41989": 0},
        {"t37386": 4.2},  # of a sensor of unknown size
        {"t41989": 26, "t40962": 4000, "t40963": 2250},  # cropped since
        {"t41989": 65535},
    ],
)
def test_focal_lengths_that_tell_nothing(tmp_path, tags):
    folder = write(tmp_path / "f", suffix=".jpg", exif=exif(**tags))
    assert "source_focal_px" not in run(folder, tmp_path / "s")[1]


def test_a_zoom_is_not_taken(tmp_path):
    folder = write(tmp_path / "f", suffix=".jpg", exif=exif(t41989=26))
    Image.fromarray(texture(48, 64)).save(folder / "001.jpg", exif=exif(t41989=52))
    assert "source_focal_px" not in run(folder, tmp_path / "s")[1]
