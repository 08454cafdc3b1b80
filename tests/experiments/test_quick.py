"""Every experiment runs: few cases on a small model give all figures that a verdict needs."""

from __future__ import annotations

import pytest

from unspool import experiments, methods
from unspool.reproduce.run import QUICK, run
from unspool.reproduce.setup import Setup


@pytest.mark.model
@pytest.mark.parametrize("name", experiments.names())
def test_a_quick_run_gives_every_figure(name: str) -> None:
    experiment = experiments.find(name)
    result = run(experiment, Setup(experiment.quick_model, QUICK, quick=True), f"unspool reproduce {name} --quick")
    wanted = {bound.figure for bound in (*experiment.requires, *experiment.expects)}
    assert wanted and wanted <= set(result.figures)
    broken = [str(bound) for bound in experiment.requires if not bound.met(result.figures[bound.figure])]
    assert not broken
    assert experiment.expects, "an experiment states what it expects"


@pytest.mark.parametrize("name", experiments.names())
def test_an_experiment_names_methods_that_exist(name: str) -> None:
    assert set(experiments.find(name).methods) <= set(methods.names())
