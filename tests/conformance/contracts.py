"""Tiny examples of contracts that no built-in method fills yet: a probe, a code, a compressor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from unspool.engine.channel import Decoded, Edit, Word
from unspool.engine.method import CHANNEL, COMPRESSOR, PROBE, Method, Needs
from unspool.engine.option import Options, option
from unspool.engine.probe import Reading, States
from unspool.engine.progress import Progress
from unspool.engine.taps import OUTPUT, Taps
from unspool.errors import UnspoolError
from unspool.storage.cache import atomic_directory
from unspool.training.artifact import Artifact


class Mean:
    """Reads the projection of a state on a direction, and its sign; trained as the mean of the states."""

    taps = Taps((0, OUTPUT))

    def __init__(self, direction: np.ndarray) -> None:
        self.direction = direction

    def read(self, states: States) -> Reading:
        values = states.hidden[OUTPUT] @ self.direction + states.hidden[0].argmax(axis=1)
        return Reading(tuple(map(float, values)), tuple("plus" if value > 0 else "minus" for value in values))

    def fit(self, examples: Iterable[tuple[States, Any]]) -> Artifact:
        found = [states.hidden[OUTPUT] * float(value) for states, value in examples]
        if not found:
            raise UnspoolError("a probe needs examples; give some")
        return Artifact("probe", "mean", ("a model",), {"direction": np.concatenate(found).mean(axis=0)})


@dataclass(frozen=True)
class RepeatOptions(Options):
    """Options of ``repeat``.

    Attributes:
        times: how often a symbol is sent.
    """

    times: int = option(3, least=1, most=9)


class Repeat:
    """Sends every symbol several times; the most frequent one wins."""

    inputs = outputs = 3

    def __init__(self, times: int = 3) -> None:
        self.times = times
        self.corrects: frozenset[Edit] = frozenset({"substitution"} if times >= 3 else ())

    def encode(self, data: Sequence[int]) -> Word:
        return tuple(symbol for symbol in data for _ in range(self.times))

    def decode(self, observation: Sequence[int]) -> list[Decoded]:
        if len(observation) % self.times:
            return []
        parts = [observation[i : i + self.times] for i in range(0, len(observation), self.times)]
        best = tuple(max(range(self.inputs), key=list(part).count) for part in parts)
        wrong = sum(a != b for a, b in zip(self.encode(best), observation, strict=True))
        return [Decoded(best, -float(wrong))]


class Half:
    """Stores every matrix in half precision."""

    def run(self, source: Path, output: Path, progress: Progress) -> Path:
        if not (source / "config.json").is_file() or output.exists():
            raise UnspoolError(f"{source} is no model, or {output} exists; name others")
        with atomic_directory(output) as directory:
            progress("weights", 0, 1)
            weights = load_file(source / "model.safetensors")
            halves = {name: value.astype(np.float16) for name, value in weights.items()}
            save_file(halves, directory / "model.safetensors")
            config = json.loads((source / "config.json").read_text())
            (directory / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
            progress("weights", 1, 1)
        return output


@dataclass(frozen=True)
class SizeOptions(Options):
    """Options.

    Attributes:
        size: of nothing.
    """

    size: int = option(3, least=1, most=9)


mean = Method(
    PROBE,
    "identical",
    "Projects states.",
    "none",
    SizeOptions,
    lambda resources, options: Mean(np.arange(options.size * 7, dtype=np.float32) % 5 - 2),
    Needs(taps=Mean.taps),
)
repeat = Method(
    CHANNEL, "exact", "Sends symbols again.", "none", RepeatOptions, lambda resources, options: Repeat(options.times)
)
half = Method(COMPRESSOR, "lossy", "Halves the bits.", "none", SizeOptions, lambda resources, options: Half())
