"""Checks of the file of a trained part: it is read back as written, and otherwise rejected in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from unspool.conformance.check import CheckFailed, require
from unspool.errors import UnspoolError
from unspool.methods.resources import Resources
from unspool.training.artifact import VERSION, Artifact, file_of


def check(made: Artifact, folder: Path) -> None:
    """Everything below.

    Args:
        made: of a trainer, or by hand.
        folder: empty, to write to.
    """
    comes_back(made, folder)
    is_refused(made, folder)
    belongs_to_its_models(made)


def comes_back(made: Artifact, folder: Path) -> None:
    """By its path and by its directory; another one of the same name replaces it; nothing else is written."""
    file = file_of(folder, made.method)
    for one in (made, replace(made, trained_with={**made.trained_with, "again": True})):
        one.save(file)
        for path in (file, folder):
            found = Artifact.load(path, made.method)
            require(found.tensors.keys() == one.tensors.keys(), "a tensor is missing or new")
            for name, tensor in one.tensors.items():
                require(
                    np.array_equal(found.tensors[name], tensor) and found.tensors[name].dtype == tensor.dtype, str(name)
                )
            require(replace(found, tensors={}) == replace(one, tensors={}), "the header is another one")
        require(list(folder.iterdir()) == [file], "more than the file was written")
    file.unlink()


def is_refused(made: Artifact, folder: Path) -> None:
    """Missing, cut short, of another program, of another method or version: one line that says what to do."""
    file = file_of(folder, made.method)
    made.save(file)
    whole = file.read_bytes()
    damaged = {"empty": b"", "of another program": b"hello", "cut": whole[:-1], "cut header": whole[:20]}
    for what, content in damaged.items():
        file.write_bytes(content)
        _refused(file, made.method, what)
    _refused(folder / "missing", made.method, "missing")
    for what, other in (
        ("of another method", replace(made, method="another_method")),
        ("of another version", replace(made, version=VERSION + 1)),
    ):
        other.save(file)
        _refused(file, made.method, what)
    file.unlink()


def belongs_to_its_models(made: Artifact) -> None:
    """Its own models, with any weights unless it names them; no others; models that nobody knows are not checked."""
    own = [f"{key} backend weights" if " " not in key else key for key in made.belongs_to]
    made.check(Resources(keys=lambda: own))
    made.check(Resources())
    if not own:
        return
    for others in (["another"], [f"x{key}" for key in own], own[1:] or ["another"], own[::-1] if own[1:] else [""]):
        try:
            made.check(Resources(keys=lambda others=others: others))  # type: ignore[misc]
        except UnspoolError as error:
            require("unspool train" in str(error), str(error))
        else:
            raise CheckFailed(f"models {others} are taken for {own}")


def _refused(path: Path, method: str, what: str) -> None:
    try:
        Artifact.load(path, method)
    except UnspoolError as error:
        said = str(error)
        require(str(path) in said and f"`unspool train {method}`" in said and "\n" not in said, str(said))
    else:
        raise CheckFailed(f"a file that is {what} is read")
