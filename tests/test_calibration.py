"""What is calibrated."""

from __future__ import annotations

from pathlib import Path

import pytest

from unspool import calibration
from unspool.backends.toy import ToyModel
from unspool.engine.contracts import Ability
from unspool.engine.cost import CostCurve


def test_a_model_settles_before_it_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its passes would change while they are measured, and the curve fit neither state."""
    told: list[str] = []

    class Settling(ToyModel):
        abilities = frozenset({Ability.SEPARATE_WIDTHS})

        def settle(self) -> None:
            told.append("settled")

    def measure(model: object, progress: object) -> CostCurve:
        told.append("measured")
        return CostCurve((1,), (32,), ((1.0,),))

    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path))
    monkeypatch.setattr(calibration, "measure", measure)
    model = Settling.random(vocab_size=5, max_length=64)
    curve = calibration.calibrate(model, "toy")
    assert told == ["settled", "measured"]
    assert calibration.load(model, "toy") == curve
