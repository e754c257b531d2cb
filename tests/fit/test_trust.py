"""Weights of losses where preprocessing states that it could not measure."""

import dataclasses

import pytest

from msdyn.errors import InputError
from msdyn.fit import FitConfig, preset
from msdyn.fit.trust import with_trust
from msdyn.scene.stages import check_stages


def record(**quality):
    return {"backend": "files", "model": None, "licence": None, "options": {}, "input_hash": "",
            "seconds": 0.0, "quality": quality}  # fmt: skip


def test_weights_follow_the_trust_of_each_stage():
    config = FitConfig(scene=preset("quick").scene)
    changed = with_trust(config, {"tracks": record(trust=0.05), "depth": record(trust=0.2)})
    assert changed.loss.track == pytest.approx(0.05 * config.loss.track)
    assert changed.loss.depth == pytest.approx(0.2 * config.loss.depth)
    assert config.loss.rigidity < changed.loss.rigidity <= 3 * config.loss.rigidity
    same = dataclasses.replace(
        changed.loss,
        track=config.loss.track, depth=config.loss.depth, rigidity=config.loss.rigidity,
    )  # fmt: skip
    assert dataclasses.replace(changed, loss=same) == config


def test_other_scenes_keep_their_options():
    config = preset("quick")
    for stages in ({}, {"tracks": record(), "depth": record(known=1.0)}):
        assert with_trust(config, stages) is config


def test_depth_alone_leaves_tracks_and_rigidity():
    config = preset("quick")
    changed = with_trust(config, {"tracks": record(), "depth": record(trust=0.5)})
    assert changed.loss == dataclasses.replace(config.loss, depth=0.5 * config.loss.depth)


@pytest.mark.parametrize("trust", [0, -1, 1.5, "much", float("nan")])
def test_no_other_trust_is_read(trust):
    with pytest.raises(InputError, match=r"stages\.tracks\.quality.*trust"):
        check_stages({"tracks": record(trust=trust)}, 5)
