"""A model for quick runs on torch, which needs half a minute to read the weights of a GGUF file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from unspool.decoding.model import Model, load
from unspool.experiments._architecture_row import make
from unspool.reproduce.setup import Setup


@contextmanager
def model_or_random(setup: Setup, **options: Any) -> Iterator[Model]:
    """The run's model; for a quick run a random Llama with a tokenizer of bytes, gone afterwards.

    Args:
        options: of ``unspool.load``.
    """
    if not setup.quick:
        yield setup.language_model(**options)
        return
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "model"
        directory.mkdir()
        with patch.dict(os.environ, UNSPOOL_CACHE=str(Path(name) / "cache")):
            make("llama", directory, intermediate_size=128)  # int4 needs rows of whole 64s
            yield load(str(directory), **options)
