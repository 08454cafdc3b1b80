"""Perplexity of each weight format on a text that every Python ships: the price of a format in quality.

The text is the documentation (docstrings) of modules of the standard library, so it needs no download; it differs
slightly between Python versions, therefore the report states version and hash. It is cut into windows of 512 tokens,
of which some, evenly spread, are scored on their own; the first token of a window is context only, and no special token
is put before it.
Perplexity = exp of the mean negative log-probability of the other 511.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import inspect
import math
from pathlib import Path
from typing import Any

import common
import numpy as np

from unspool.backends.openvino.convert import WEIGHTS
from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.contracts import LanguageModel
from unspool.engine.tree import TokenTree
from unspool.errors import UnknownNameError, UnspoolError

MODULES = (
    *("argparse", "asyncio", "collections", "contextlib", "csv", "datetime", "decimal", "difflib", "email", "enum"),
    *("fractions", "functools", "gettext", "heapq", "inspect", "ipaddress", "itertools", "json", "logging"),
    *("multiprocessing", "optparse", "pathlib", "pickle", "random", "re", "shutil", "smtplib", "socket", "statistics"),
    *("string", "subprocess", "tarfile", "tempfile", "textwrap", "threading", "timeit", "turtle", "typing", "unittest"),
    *("urllib", "zipfile"),
)
WINDOW = 512
BLOCK = 64  # rows of logits at a time: the vocabulary is wide

FORMATS = (*WEIGHTS, "torch")
"""The weight formats of the openvino backend, and float32 in torch."""


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


def negative_log_likelihoods(model: LanguageModel, window: list[int]) -> list[float]:
    """Of every token of a window but the first, given those before it."""
    session = model.open()
    losses: list[float] = []
    for at in range(0, len(window) - 1, BLOCK):
        inputs = window[at : min(at + BLOCK, len(window) - 1)]
        scores = session.score(TokenTree.chain(inputs))
        targets = window[at + 1 : at + 1 + len(inputs)]
        logits = scores.logits.astype(np.float64)
        top = logits.max(axis=1)
        normaliser = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        losses.extend((normaliser - logits[np.arange(len(targets)), targets]).tolist())
        session.commit(range(len(inputs)))
    session.close()
    return losses


def windows(ids: list[int], tokens: int) -> list[list[int]]:
    """``tokens`` of the ids in windows, evenly spread over the text.

    Raises:
        UnspoolError: if the text is shorter.
    """
    wanted, there = tokens // WINDOW, len(ids) // WINDOW
    if wanted > there:
        raise UnspoolError(f"the text has only {there * WINDOW} tokens in windows; choose a smaller --tokens")
    starts = [i * there // wanted * WINDOW for i in range(wanted)]
    return [ids[start : start + WINDOW] for start in starts]


def measure(model: Model, parts: list[list[int]], name: str) -> float:
    """Perplexity over all windows."""
    losses: list[float] = []
    for i, window in enumerate(parts, 1):
        losses += negative_log_likelihoods(model.language_model, window)
        common.say(f"{name}: window {i} of {len(parts)}, perplexity so far {math.exp(np.mean(losses)):.3f}")
    return math.exp(np.mean(losses))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--weights", default=",".join(("fp32", "int8", "int4", "torch")), help="comma-separated")
    parser.add_argument("--tokens", type=int, default=8192, help="length of the text; a multiple of 512")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    arguments = parser.parse_args()
    formats = arguments.weights.split(",")
    for name in formats:
        if name not in FORMATS:
            raise UnknownNameError("weight format", name, FORMATS)
    if arguments.tokens < WINDOW or arguments.tokens % WINDOW:
        raise UnspoolError(f"--tokens must be a multiple of {WINDOW}, not {arguments.tokens}")
    common.check_outputs(arguments.json, arguments.markdown)
    setting = about()
    whole = text()
    perplexities: dict[str, float] = {}
    for name in formats:
        backend: dict[str, Any] = {"backend": "transformers"} if name == "torch" else {"weights": name}
        model = load(arguments.model, report=common.say, **backend)
        ids = model.tokenizer.encode(whole, add_special_tokens=False)
        perplexities[name] = measure(model, windows(ids, arguments.tokens), name)
        title = model.name
        del model
        gc.collect()  # one model in memory at a time
    base_name = next((name for name in ("fp32", "torch") if name in perplexities), formats[0])
    base = perplexities[base_name]
    digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
    rows = [
        ["torch, fp32" if name == "torch" else f"openvino, {name}", f"{value:.4f}", f"{value / base:.4f}"]
        for name, value in perplexities.items()
    ]
    markdown = "\n\n".join(
        (
            f"# Perplexity, {title}",
            common.describe(setting),
            f"Text: docstrings of Python's standard library (SHA-256 begins {digest}); {arguments.tokens} of its "
            f"{len(ids)} tokens, in evenly spread windows of {WINDOW} that are scored on their own.",
            common.table(["weights", "perplexity", f"÷ {base_name}"], rows),
        )
    )
    results = {
        **setting,
        "model": title,
        "tokens": arguments.tokens,
        "window": WINDOW,
        "text_sha256": digest,
        "perplexity": perplexities,
        "ratio": {name: value / base for name, value in perplexities.items()},
        "base": base_name,
    }
    common.publish(markdown, results, arguments.markdown, arguments.json)
    return 0


if __name__ == "__main__":
    common.run(main)
