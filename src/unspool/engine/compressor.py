"""Compressors: from the directory of a model to that of a smaller one, on which everything else then works."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from unspool.engine.progress import Progress


class Compressor(Protocol):
    """Makes a smaller model."""

    def run(self, source: Path, output: Path, progress: Progress) -> Path:
        """Write a model directory in Hugging Face layout, whole or not at all.

        Args:
            source: directory of the model, which stays as it is.
            output: directory that is made; must not exist.

        Returns:
            ``output``.

        Raises:
            UnspoolError: if ``output`` exists or cannot be written, or the model is none that can be compressed so.
        """
        ...
