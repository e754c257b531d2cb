"""Parts of `tools/calibrate_estimates.py`: what is measured of a command, and the ratios."""

import pytest
from calibrate_estimates import Measured, Row, measure

from msdyn.estimates import Estimate


def test_what_a_command_takes_is_measured(tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "a").write_bytes(bytes(1000))
    (tmp_path / "result" / "b").write_bytes(bytes(234))
    with pytest.raises(RuntimeError, match="msdyn-fit none: code 2"):
        measure("fit", ["none"], tmp_path)
    took = measure("render", ["--version"], tmp_path / "result")
    assert took.disk == 1234 and took.seconds > 0
    assert 5e6 < took.memory < 500e6


def test_ratios():
    row = Row("a", Measured(200, 50, 4.0, 2.0), Estimate(300, 50, 2.0))
    assert row.ratios() == {"memory": 1.5, "disk": 1.0, "seconds": 0.5}
    row = Row("a", Measured(200, 0, 4.0, 2.0), Estimate(100, 0))
    assert row.ratios() == {"memory": 0.5, "disk": 0.0}
