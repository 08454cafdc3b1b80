"""Files of everything that is trained, and whether their checks see faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.methods.search.test_adadec import LEARNED
from tests.trained import acceptance_head
from unspool.backends.toy import ToyModel
from unspool.conformance import artifact as conformance
from unspool.errors import UnspoolError
from unspool.models import diffusion
from unspool.training.artifact import Artifact, file_of


class Named:
    key, name, language_model = "a", "model a", ToyModel.random()


MADE = {
    "specdec_pp": acceptance_head(
        {"output.weight": np.ones((2, 6), np.float32), "output.bias": np.zeros(2, np.float32)}, ("target", "draft")
    ),
    "adadec": LEARNED.artifact(Named()),  # type: ignore[arg-type]
    "learn2pd": Artifact.load(diffusion.find("tiny-diffusion"), "learn2pd"),
    "a scalar, and nothing that it belongs to": Artifact("number", "mine", (), {"x": np.array(1.0)}),
}


@pytest.mark.parametrize("name", MADE)
def test_artifacts(name: str, tmp_path: Path) -> None:
    conformance.check(MADE[name], tmp_path)


@pytest.mark.parametrize("name", diffusion.shipped())
def test_filters_of_built_in_models_are_theirs(name: str) -> None:
    directory = diffusion.find(name)
    assert Artifact.load(directory, "learn2pd").belongs_to == (diffusion.key(directory),)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = file_of(tmp_path, "mine")
    MADE["adadec"].save(file)
    before = file.read_bytes()
    with pytest.raises(TypeError):  # what JSON cannot say
        replace(MADE["adadec"], trained_with={"x": object()}).save(file)
    with pytest.raises(UnspoolError, match="cannot write the threshold"):
        MADE["adadec"].save(tmp_path / "no" / "x")
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_the_checks_see_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = MADE["specdec_pp"]
    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "check", lambda self, resources: None)
        with pytest.raises(AssertionError, match="are taken for"):
            conformance.belongs_to_its_models(made)
    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "load", lambda path, method: made)
        with pytest.raises(AssertionError, match="is read"):
            conformance.is_refused(made, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "load", lambda path, method: replace(made, belongs_to=()))
        with pytest.raises(AssertionError, match="header"):
            conformance.comes_back(made, tmp_path)
