"""High dynamic range: known levels of HLG and PQ, and a video that is tagged so."""

from fractions import Fraction

import av
import numpy as np
import pytest

from msdyn.io import read_video, scan_video
from msdyn.io.hdr import KNEE, PEAK_NITS, WHITE_NITS, to_standard_range

DISPLAY = 1 / 2.4
PQ = {10: 0.2997, 100: 0.5081, 203: 0.5807, 1000: 0.7518}
"""Signal of cd/m2, ITU-R BT.2408 and SMPTE ST 2084."""


def grey(signal):
    return np.full((1, 1, 3), round(signal * 65535), np.uint16)


def level(signal, transfer):
    pixel = to_standard_range(grey(signal), transfer)[0, 0]
    assert np.ptp(pixel) <= 1  # grey stays grey
    return int(pixel[0])


@pytest.mark.parametrize("nits", [10, 100])
def test_light_below_the_knee_is_kept(nits):
    expected = 255 * (nits / WHITE_NITS) ** DISPLAY
    assert nits / WHITE_NITS < KNEE
    assert level(PQ[nits], "PQ") == pytest.approx(expected, abs=1)


def test_hlg_and_pq_agree_at_diffuse_white_and_at_the_peak():
    # BT.2408: diffuse white is 75 % HLG, which a display of 1000 cd/m2 shows with 203.
    assert level(0.75, "HLG") == pytest.approx(level(PQ[203], "PQ"), abs=1)
    assert 235 < level(0.75, "HLG") < 250
    assert level(1.0, "HLG") == level(PQ[PEAK_NITS], "PQ") == 255
    assert level(0.0, "HLG") == level(0.0, "PQ") == 0


@pytest.mark.parametrize("transfer", ["HLG", "PQ"])
def test_levels_increase(transfer):
    ramp = np.repeat(np.arange(0, 65536, 64, dtype=np.uint16)[None, :, None], 3, axis=2)
    levels = to_standard_range(ramp, transfer)[0, :, 0].astype(int)
    assert (np.diff(levels) >= 0).all() and levels[-1] == 255


def test_colours_are_those_of_bt709():
    """Red of BT.709, at half of diffuse white, is written with these shares of BT.2020's red,
    green and blue (BT.2087)."""
    light = 0.5 * np.array([0.6274, 0.0691, 0.0164])
    nits = light * WHITE_NITS
    y = (nits / 10000) ** (2610 / 16384)
    signal = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
    pixel = to_standard_range(np.round(65535 * signal).astype(np.uint16)[None, None], "PQ")[0, 0]
    assert pixel[0] == pytest.approx(255 * 0.5**DISPLAY, abs=2) and max(pixel[1:]) < 20


def encode(path, signal, trc):
    """Write a 10-bit video of grey frames, tagged with a transfer of ITU-T H.273."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = trc, 9, 9
        context.color_range = 1
        for number in range(4):
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for i, plane in enumerate(frame.planes):
                code = round(64 + 876 * signal) if i == 0 else 512
                plane.update(np.full(plane.buffer_size // 2, code, "<u2").tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("trc, transfer", [(18, "HLG"), (16, "PQ"), (1, "")])
def test_a_video_says_its_transfer(tmp_path, trc, transfer):
    path = encode(tmp_path / "v.mp4", 0.6, trc)
    assert scan_video(path).hdr == transfer
    found = next(iter(read_video(path))).mean()
    expected = level(0.6, transfer) if transfer else 0.6 * 255
    assert found == pytest.approx(expected, abs=3)
