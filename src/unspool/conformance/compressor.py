"""What every compressor must do: make a model that can be loaded, leave its source alone, and never overwrite."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from unspool.engine.compressor import Compressor
from unspool.engine.progress import silent
from unspool.errors import UnspoolError
from unspool.models.resolve import resolve


def check(compressor: Compressor, source: Path, folder: Path) -> None:
    """One run, a second one into the same directory, one of what is no model, and an interrupted one.

    Args:
        source: directory of a model.
        folder: empty, to write to.
    """
    before = _contents(source)
    output = folder / "smaller"
    assert compressor.run(source, output, silent) == output, "it names another directory"
    assert _contents(source) == before, "the source was changed"
    assert resolve(str(output)).path == output.resolve(), "the result is not a model directory"
    made = _contents(output)
    _refused(compressor, source, output, "an output that exists")
    assert _contents(output) == made, "what was there was changed"
    empty = folder / "empty"
    empty.mkdir()
    _refused(compressor, empty, folder / "of nothing", "a source that is no model")
    empty.rmdir()
    steps: list[str] = []

    def stop(what: str, done: int, of: int) -> None:
        steps.append(what)
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        compressor.run(source, folder / "interrupted", stop)
    assert steps, "it says nothing of its progress"
    assert sorted(path.name for path in folder.iterdir()) == ["smaller"], "an interrupted run left something"


def _refused(compressor: Compressor, source: Path, output: Path, what: str) -> None:
    try:
        compressor.run(source, output, silent)
    except UnspoolError as error:
        assert "\n" not in str(error), error
    else:
        raise AssertionError(f"{what} is taken")


def _contents(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
