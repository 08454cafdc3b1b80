"""What is calibrated, how it is kept, and what becomes of a curve that cannot be read or kept."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unspool.backends.toy import ToyModel
from unspool.engine.contracts import Ability
from unspool.engine.cost import CostCurve
from unspool.errors import UnspoolError
from unspool.models import calibration
from unspool.storage import cache as store

CURVE = CostCurve((1, 2, 4), (32, 256), ((1.0, 1.5, 2.0), (1.5, 2.0, 3.0)), 0.5, True)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An empty cache, and each measurement that is made."""
    told: list[str] = []

    def measure(model: object, progress: object) -> CostCurve:
        told.append("measured")
        return CURVE

    monkeypatch.setenv("UNSPOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(calibration, "measure", measure)
    return told


@pytest.fixture
def model() -> ToyModel:
    return ToyModel.random(vocab_size=5, max_length=64)


def test_a_model_settles_before_it_is_measured(told: list[str]) -> None:
    """Its passes would change while they are measured, and the curve fit neither state."""

    class Settling(ToyModel):
        abilities = frozenset({Ability.SPECIALISE_WIDTHS})

        def warm_up(self) -> None:
            told.append("settled")

    model = Settling.random(vocab_size=5, max_length=64)
    assert calibration.calibrate(model, "toy") == CURVE
    assert told == ["settled", "measured"]
    assert calibration.load(model, "toy") == CURVE


def edited(**changes: Any) -> str:
    """The file of a curve with other values; a value of None leaves the key out."""
    curve = {"nodes": [1, 2], "lengths": [32], "ms": [[1.0, 2.0]], "switch_ms": 0.0, "padded": False} | changes
    return json.dumps({"curve": {key: value for key, value in curve.items() if value is not None}})


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "{}", '{"curve": 3}', "\0\0", "version https://git-lfs.github.com/spec/v1\n"),
        *("[" * 100_000, edited(ms=None), edited(padded=None), edited(ms=[[1.0]]), edited(ms=[]), edited(ms=3)),
        *(edited(ms=[[math.nan, 2.0]]), edited(ms=[[math.inf, 2.0]]), edited(ms=[[-1.0, 2.0]]), edited(ms=[[0.0, 2]])),
        *(edited(nodes=[2, 3]), edited(nodes=[1, 1]), edited(nodes=[]), edited(lengths=[]), edited(switch_ms=-1.0)),
        *(edited(switch_ms=math.nan), edited(ms=[["x", 2.0]]), edited(nodes=[1, None])),
    ],
)
def test_a_damaged_curve_is_measured_again(content: str, model: ToyModel, told: list[str]) -> None:
    path = calibration.path_of(model, "toy")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert calibration.load(model, "toy") is None
    assert calibration.calibrate(model, "toy") == CURVE
    assert calibration.load(model, "toy") == CURVE


def test_a_sound_curve_is_read(model: ToyModel, told: list[str]) -> None:
    path = calibration.path_of(model, "toy")
    path.parent.mkdir(parents=True)
    path.write_text(edited())
    assert calibration.load(model, "toy") == CostCurve((1, 2), (32,), ((1.0, 2.0),))


def _no_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise UnspoolError(f"cannot write to the cache {path}: Read-only file system")

    monkeypatch.setattr(store, "make_directory", refuse)


def _full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "publish", refuse)


@pytest.mark.parametrize("obstacle", [_no_directory, _full_disk])
def test_a_curve_that_cannot_be_kept_serves_this_process(
    obstacle: Callable[[pytest.MonkeyPatch], None],
    model: ToyModel,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    obstacle(monkeypatch)
    assert calibration.calibrate(model, "toy") == CURVE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the cost curve is kept only for this process: ")
    assert not calibration.path_of(model, "toy").exists()


def test_of_two_processes_one_measures(
    model: ToyModel, told: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While one waits for the other's lock, the other writes the curve."""
    locked = store.lock

    def lock(name: str, waiting: str) -> Any:
        path = calibration.path_of(model, "toy")
        path.parent.mkdir(parents=True)
        path.write_text(edited())
        return locked(name, waiting)

    monkeypatch.setattr(store, "lock", lock)
    assert calibration.calibrate(model, "toy") == CostCurve((1, 2), (32,), ((1.0, 2.0),))
    assert told == []


def test_measuring_anew_does_not_take_an_older_curve(model: ToyModel, told: list[str]) -> None:
    path = calibration.path_of(model, "toy")
    path.parent.mkdir(parents=True)
    path.write_text(edited())
    assert calibration.calibrate(model, "toy") == CURVE
    assert told == ["measured"]
