"""Checks of a compressor: its result can be loaded, its source is not changed, and nothing is overwritten."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from unspool import methods
from unspool.backends.prepare import quiet
from unspool.conformance.check import CheckFailed, Row, options_of, require
from unspool.engine.compressor import Compressor
from unspool.engine.method import COMPRESSOR
from unspool.engine.progress import silent
from unspool.errors import UnspoolError
from unspool.methods.resources import Resources
from unspool.models.resolve import resolve


def check(compressor: Compressor, source: Path, folder: Path) -> None:
    """One run, a second one into the same directory, one of what is no model, and an interrupted one.

    Args:
        source: directory of a model.
        folder: empty, to write to.
    """
    before = _contents(source)
    output = folder / "smaller"
    require(compressor.run(source, output, silent) == output, "it names another directory")
    require(_contents(source) == before, "the source was changed")
    require(resolve(str(output)).path == output.resolve(), "the result is not a model directory")
    made = _contents(output)
    _refused(compressor, source, output, "an output that exists")
    require(_contents(output) == made, "what was there was changed")
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
    require(steps, "it says nothing of its progress")
    require(sorted(path.name for path in folder.iterdir()) == ["smaller"], "an interrupted run left something")


def _refused(compressor: Compressor, source: Path, output: Path, what: str) -> None:
    try:
        compressor.run(source, output, silent)
    except UnspoolError as error:
        require("\n" not in str(error), str(error))
    else:
        raise CheckFailed(f"{what} is taken")


def _contents(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def makes_a_model_and_leaves_the_source(row: Row) -> None:
    """The result is a model, the source is unchanged, no output is overwritten, an interruption leaves no files."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with TemporaryDirectory() as folder, quiet():
        source, output = Path(folder, "in"), Path(folder, "out")
        output.mkdir()
        LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes)).save_pretrained(source)
        check(methods.build(row.name, COMPRESSOR, Resources(), options_of(row)), source, output)


CHECKS = (makes_a_model_and_leaves_the_source,)
