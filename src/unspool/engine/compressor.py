"""Compressors: write a smaller model from a model's directory; everything else then works on the result."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from unspool.engine.progress import Progress


class Compressor(Protocol):
    """Makes a smaller model."""

    def run(self, source: Path, output: Path, progress: Progress) -> Path:
        """Write a model directory in Hugging Face layout, atomically.

        Args:
            source: directory of the model; it is not changed.
            output: directory to create; must not exist.

        Returns:
            ``output``.

        Raises:
            UnspoolError: if ``output`` exists or cannot be written, or this compressor cannot compress the model.
        """
        ...
