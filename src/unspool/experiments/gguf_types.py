"""GGUF types: files that llama.cpp's quantiser makes, against the weights that llama.cpp itself reads from them.

A random Llama is written in float32 and quantised. The weights of each file are read back by the same library and put
into the model that was written; that is the reference. Each backend loads the file as a user would, and the largest
difference of any log-probability in 64 tokens is noted, and as a control that of the reference from the model before it
was quantised. The library is llama.cpp's; with ``--quick`` it is the package gguf, which knows the simplest types.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from unspool.experiments._gguf_files import Library, Pure, llama, log_softmax, reference
from unspool.experiments._llama_cpp import LlamaCpp
from unspool.experiments._quick_model import RANDOM, refuse_model
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup

TYPES = {
    "F32": 0,
    "F16": 1,
    "BF16": 32,
    "Q8_0": 7,
    "Q4_0": 2,
    "Q5_0": 8,
    "Q2_K": 10,
    "Q3_K_M": 12,
    "Q4_K_M": 15,
    "Q5_K_M": 17,
    "Q6_K": 18,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
}
"""llama.cpp's numbers of the mixtures (``llama_ftype``)."""
QUICK_TYPES = ("F16", "Q8_0")
TOKENS = [3 + (7 * i) % 250 for i in range(64)]
BACKENDS: dict[str, dict[str, Any]] = {"transformers": {}, "openvino": {"weights": "fp32"}}


def cases(setup: Setup) -> list[Case]:
    """A case is a type.

    Raises:
        UnspoolError: if the libraries of llama.cpp are not installed.
    """
    refuse_model(setup)
    library: Library = Pure() if setup.quick else LlamaCpp()
    kinds = QUICK_TYPES if setup.quick else list(TYPES)[: setup.count]
    return [Case(kind, partial(measure, library, kind)) for kind in kinds]


def measure(library: Library, kind: str) -> list[Row]:
    """The errors of both backends, and of the control."""
    import gguf
    import torch

    from unspool.models import gguf_header

    model = llama()
    with torch.no_grad():
        before = log_softmax(model(torch.tensor([TOKENS])).logits[0].numpy())
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, UNSPOOL_CACHE=str(Path(name) / "cache")):
        path = Path(name) / f"{kind}.gguf"
        library.write(path, model, kind, TYPES[kind])
        types = Counter(
            gguf.GGMLQuantizationType(tensor.kind).name
            for tensor in gguf_header.read(path).tensors.values()
            if len(tensor.shape) > 1
        )
        expected = reference(model, path, library, TOKENS)
        errors = {backend: float(abs(_loaded(path, backend) - expected).max()) for backend in BACKENDS}
    control = float(abs(expected - before).max())
    return [{"type": kind, "matrices": dict(types), **errors, "quantised or not": control}]


def _loaded(path: Path, backend: str) -> Any:
    """Log-probabilities [tokens, vocabulary] of the file as unspool loads it."""
    import unspool
    from unspool.engine.tree import TokenTree

    session = unspool.load(str(path), backend=backend, **BACKENDS[backend]).language_model.open()
    return log_softmax(session.score(TokenTree.chain(TOKENS)).logits)


def summarise(rows: Sequence[Row]) -> Summary:
    """The largest error over all types."""
    quantised = [row["quantised or not"] for row in rows if row["type"] != "F32"]
    figures = {
        f"largest error, {backend}": Figure(max(row[backend] for row in rows), count=len(rows)) for backend in BACKENDS
    }
    figures["smallest effect of quantising"] = Figure(min(quantised, default=float("nan")), count=len(quantised))
    drawn = [
        (
            row["type"],
            ", ".join(f"{n} {kind}" for kind, n in sorted(row["matrices"].items())),
            *(f"{row[name]:.1e}" for name in (*BACKENDS, "quantised or not")),
        )
        for row in rows
    ]
    return Summary(figures, [Table("", ("type", "its matrices", *BACKENDS, "quantised or not"), drawn)])


EXPERIMENT = Experiment(
    claim="GGUF files of the usual types are loaded with the weights that llama.cpp reads from them.",
    control="the model before it was quantised",
    test="a random Llama of two layers in 13 types, log-probabilities of 64 tokens",
    cases=cases,
    summarise=summarise,
    requires=[Expect("smallest effect of quantising", at_least=1e-3)],
    expects=[Expect(f"largest error, {backend}", at_most=1e-4) for backend in BACKENDS],
    model=RANDOM,
    quick_model=RANDOM,
    count=len(TYPES),
    minutes=3,
)
