"""Parts of `tools/calibrate_judge.py`: perturbed copies, correlations by hand, the table."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from calibrate_judge import (
    SYNTHETIC,
    best_limit,
    copied_runs,
    copy_perturbed,
    correlations,
    depth_error,
    judged,
    limits,
    synthetic_runs,
    table,
)
from clips import two_boxes

from msdyn.scene import Scene
from msdyn.synthetic import write_truth


@pytest.fixture(scope="module")
def truth():
    return two_boxes(10, 96, 72)


@pytest.fixture(scope="module")
def exact(truth, tmp_path_factory):
    return write_truth(truth, tmp_path_factory.mktemp("judge") / "boxes")


def row(clip, score, psnr, depth=None):
    values = {"clip": clip, "level": "exact", "grade": "good", "score": score}
    return {**values, "psnr": psnr, "psnr_moving": None, "views": None, "depth": depth}


def test_copies_are_perturbed_by_what_is_asked(exact, tmp_path):
    (exact / "fit").mkdir(exist_ok=True)
    copy_perturbed(exact, tmp_path / "a", degrees=0.0, scale=0.0)
    copy_perturbed(exact, tmp_path / "b", degrees=2.0, scale=0.0)
    copy_perturbed(exact, tmp_path / "c", degrees=0.0, scale=0.3)
    source, same, turned, scaled = (Scene(p) for p in (exact, *(tmp_path / n for n in "abc")))
    assert not (tmp_path / "a" / "fit").exists()
    poses = source.cameras.cam_from_world
    np.testing.assert_allclose(same.cameras.cam_from_world, poses)
    np.testing.assert_allclose(turned.cameras.centres, source.cameras.centres, atol=1e-9)
    relative = turned.cameras.cam_from_world[:, :3, :3] @ poses[:, :3, :3].swapaxes(1, 2)
    angles = np.degrees(np.arccos((np.trace(relative, axis1=1, axis2=2) - 1) / 2))
    assert np.sqrt((angles**2).mean() / 3) == pytest.approx(2.0, rel=0.4)
    ratios = np.array([scaled.depth(t) / source.depth(t) for t in range(10)])
    assert np.ptp(ratios, axis=(1, 2)).max() < 1e-5
    assert np.log(ratios[:, 0, 0]).std() == pytest.approx(0.3, rel=0.5)
    scores = [judged(scene)["score"] for scene in (source, same, turned, scaled)]
    assert scores[0] == scores[1] < min(scores[2:])


def test_runs(exact):
    runs = list(synthetic_runs(["rigid"]))
    assert [run.level for run in runs] == list(SYNTHETIC) and len({r.name for r in runs}) == 8
    found = list(copied_runs(exact.parent, []))
    assert [run.name for run in found] == ["boxes-as-it-is"]
    assert len(list(copied_runs(exact.parent, ["boxes"]))) == 3


def test_correlations_by_hand():
    # Within each clip the ranking is perfect; over both, the clips' own levels of PSNR disturb it.
    rows = [row("a", s, 30 - s) for s in range(4)] + [row("b", s, 20 - s) for s in range(4)]
    psnr, *_, depth = correlations(rows)[2:]
    assert psnr.startswith("| psnr | 8 | ") and psnr.endswith("| 1.00 | 1.00 |")
    overall = float(psnr.split("|")[3])
    assert 0.3 < overall < 0.8
    assert depth == "| depth | 0 | - | - | - |"
    wrong = [row("a", s, 20 + s, depth=s) for s in range(4)]
    psnr, *_, depth = correlations(wrong)[2:]
    assert "| -1.00 | -1.00 |" in psnr and "| 1.00 | 1.00 |" in depth


def test_limits_by_hand():
    scores = np.array([0.1, 0.2, 0.8, 1.6])
    bad = np.array([False, False, True, True])
    assert best_limit(scores, bad) == pytest.approx(0.4)  # between .2 and .8
    assert best_limit(scores, ~bad) in (pytest.approx(0.05), pytest.approx(3.2), pytest.approx(0.4))
    # Clip b loses 3 dB at a score where clip a loses none: one of six is wrong, whatever the limit.
    rows = [row("a", s, p) for s, p in ((0.1, 30), (0.4, 29.5), (1.0, 25))]
    rows += [row("b", s, p) for s, p in ((0.1, 20), (0.3, 16.5), (1.0, 15))]
    three, six = limits(rows)[2:]
    assert three.split("|")[3].strip() == "17%"
    assert six == "| 6 | 2.00 | 0% | 0% |"  # nothing loses so much
    assert limits(rows[:2]) == []


def test_the_table_is_ordered_by_score():
    lines = table([row("b", 0.7, 21.26), row("a", 0.2, 30.0, depth=0.0123)])
    assert lines[2] == "| a | exact | good | 0.20 | 30.0 |  |  | 0.012 |"
    assert lines[3] == "| b | exact | good | 0.70 | 21.3 |  |  |  |"


def test_depth_error_of_exact_depth_is_small(truth, monkeypatch):
    """After one scale for the clip, which is not known of a video."""

    def render(sequence, camera, time):
        factor = 1.1 if time == 8 else 1.0
        return SimpleNamespace(depth=3 * factor * truth.clip.depths[time])

    timeline = SimpleNamespace(time_of_frame=lambda frame: frame)
    sequence = cast(Any, SimpleNamespace(cameras=truth.clip.cameras, timeline=timeline))

    monkeypatch.setattr("calibrate_judge.render_image", render)
    assert depth_error(sequence, truth) == pytest.approx(0, abs=1e-6)  # the median of frames
