"""Random checkpoints: for experiments about them, and for quick runs on torch, which reads GGUF files slowly."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from unspool.errors import UnspoolError
from unspool.experiments._architecture_row import make
from unspool.reproduce.setup import Setup

RANDOM = "random"
"""The model's name in experiments that make their own."""


def refuse_model(setup: Setup) -> None:
    """Refuse a model that would not be used.

    Raises:
        UnspoolError: if the run names one.
    """
    if setup.model != RANDOM:
        raise UnspoolError("this experiment makes random models of its own; leave --model out")


@contextmanager
def checkpoint(setup: Setup) -> Iterator[str]:
    """The run's model; for a quick run a random Llama with a tokenizer of bytes, gone afterwards."""
    if not setup.quick:
        yield setup.model
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "model"
        directory.mkdir()
        with patch.dict(os.environ, UNSPOOL_CACHE=str(Path(name) / "cache")):
            make("llama", directory, intermediate_size=128)  # int4 needs rows of whole 64s
            yield str(directory)
