"""The decoded runs of a proof, kept in a journal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from unspool.bench.about import versions
from unspool.decoding.model import Model
from unspool.models.calibration import processor
from unspool.proof.plan import Run
from unspool.storage.journal import Journal

Decoded = tuple[list[int], list[float]]
"""The tokens of a run and their leads over the runners-up."""


class Runs:
    """Runs by temperature and method.

    Args:
        path: of the journal; None: no journal.

    Raises:
        UnspoolError: if the journal belongs to another model, machine or set of prompts.
    """

    def __init__(
        self, model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int, seed: int, path: Path | None
    ) -> None:
        header = {
            "model": model.name,
            "settings": model.language_model.settings,
            "assistant": model.assistant and {model.assistant.name: model.assistant.language_model.settings},
            "cpu": processor(),
            "versions": versions(peers=False),
            "prompts": hashlib.sha256(json.dumps([list(prompt) for prompt in prompts]).encode()).hexdigest()[:16],
            "max_new_tokens": max_new_tokens,
            "seed": seed,
        }
        self._journal = Journal(path, header, "--runs")

    def get(self, temperature: float, run: Run, decode: Callable[[], list[Decoded]]) -> list[Decoded]:
        """Tokens and margins of each prompt; calls ``decode`` if they are not in the journal."""
        key = [temperature, *run]
        for line in self._journal.lines:
            if line["run"] == key:
                return [(ids, margins) for ids, margins in line["outputs"]]
        outputs = decode()
        self._journal.add({"run": key, "outputs": outputs})
        return outputs

    def close(self) -> None:
        self._journal.close()
