"""Weight formats: the perplexity cost of int8 and int4, on a text that every Python installation has.

The text is the documentation (docstrings) of modules of the standard library. It is cut into windows, of which some,
evenly spread, are scored on their own; the first token of a window is context only, and no special token comes before
it. Perplexity is exp of the mean negative log-probability of the other tokens. The text differs slightly between
versions of Python, so its digest is in every row.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from unspool.decoding.load import load
from unspool.engine.contracts import LanguageModel
from unspool.engine.numeric import log_softmax
from unspool.engine.tree import TokenTree
from unspool.experiments._drafting import by_variant
from unspool.experiments._quick_model import checkpoint
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference

MODULES = (
    *("argparse", "asyncio", "collections", "contextlib", "csv", "datetime", "decimal", "difflib", "email", "enum"),
    *("fractions", "functools", "gettext", "heapq", "inspect", "ipaddress", "itertools", "json", "logging"),
    *("multiprocessing", "optparse", "pathlib", "pickle", "random", "re", "shutil", "smtplib", "socket", "statistics"),
    *("string", "subprocess", "tarfile", "tempfile", "textwrap", "threading", "timeit", "turtle", "typing", "unittest"),
    *("urllib", "zipfile"),
)
BLOCK = 64  # rows of logits at a time: the vocabulary is wide
TORCH, FP32, INT8, INT4 = "torch, fp32", "openvino, fp32", "openvino, int8", "openvino, int4"
FORMATS: dict[str, dict[str, Any]] = {
    TORCH: {"backend": "transformers"},
    FP32: {"backend": "openvino", "weights": "fp32"},
    INT8: {"backend": "openvino", "weights": "int8"},
    INT4: {"backend": "openvino", "weights": "int4"},
}


def cases(setup: Setup) -> list[Case]:
    """A case is a format over all windows."""
    length, wanted = setup.pick(512, 48), setup.count

    def measure(variant: str) -> list[Row]:
        whole = text()
        digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
        with checkpoint(setup) as name:
            model = load(name, report=setup.report, **FORMATS[variant])  # not kept: one at a time in memory
            ids = model.tokenizer.encode(whole, add_special_tokens=False)
            there = len(ids) // length
            starts = [i * there // wanted * length for i in range(wanted)]
            nats = [_nats(model.language_model, ids[start : start + length]) for start in starts]
        return [
            {"variant": variant, "window": start, "nats": round(one, 6), "text": digest}
            for start, one in zip(starts, nats, strict=True)
        ]

    return [Case(variant, partial(measure, variant)) for variant in FORMATS]


def text() -> str:
    """Docstrings of the modules and of their public classes, methods and functions, each once, in order of name."""
    parts: dict[str, None] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        parts[inspect.getdoc(module) or ""] = None
        for _, member in sorted(inspect.getmembers(module, lambda m: inspect.isclass(m) or inspect.isfunction(m))):
            if member.__module__.partition(".")[0] != name or member.__name__.startswith("_"):
                continue
            parts[inspect.getdoc(member) or ""] = None
            for attribute, method in sorted(vars(member).items()):
                if inspect.isfunction(method) and not attribute.startswith("_"):
                    parts[inspect.getdoc(method) or ""] = None
    return "\n\n".join(part for part in parts if part)


def _nats(model: LanguageModel, window: list[int]) -> float:
    """Mean negative log-probability of the tokens of a window but the first, given those before it."""
    session = model.open()
    losses: list[float] = []
    for at in range(0, len(window) - 1, BLOCK):
        inputs = window[at : min(at + BLOCK, len(window) - 1)]
        scores = session.score(TokenTree.chain(inputs))
        targets = window[at + 1 : at + 1 + len(inputs)]
        losses += [-float(log_softmax(row)[target]) for row, target in zip(scores.logits, targets, strict=True)]
        session.commit(range(len(inputs)))
    session.close()
    return float(np.mean(losses))


def summarise(rows: Sequence[Row]) -> Summary:
    """Perplexities divided by those of float32, paired by window."""
    by = {variant: [row["nats"] for row in found] for variant, found in by_variant(rows).items()}

    def quotient(ours: str, theirs: str) -> Figure:
        each = difference(by[ours], by[theirs])
        low, high = (math.exp(bound) if bound is not None else None for bound in (each.low, each.high))
        return Figure(math.exp(each.value), low, high, each.count)

    figures = {
        "perplexity, openvino / torch, fp32": quotient(FP32, TORCH),
        "perplexity, int8 / fp32": quotient(INT8, FP32),
        "perplexity, int4 / fp32": quotient(INT4, FP32),
    }
    drawn = [(variant, f"{math.exp(float(np.mean(nats))):.4f}") for variant, nats in by.items()]
    return Summary(figures, [Table("", ("weights", "perplexity"), drawn)])


EXPERIMENT = Experiment(
    claim="Weights in int8 cost less than 1 % of perplexity, and int4 less than 15 %.",
    control="float32 on the same backend; float32 in torch",
    test="docstrings of Python's standard library, evenly spread windows of 512 tokens",
    cases=cases,
    summarise=summarise,
    requires=[Expect("perplexity, openvino / torch, fp32", at_least=0.999, at_most=1.001)],
    expects=[
        Expect("perplexity, int8 / fp32", at_most=1.01, cases=8),
        Expect("perplexity, int4 / fp32", at_most=1.15, cases=8),
    ],
    count=16,
    minutes=15,
)
