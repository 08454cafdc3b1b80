"""The rows of the registry for searches and for programs over the loops, which are called by their own names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from unspool.engine.contracts import Ability
from unspool.methods import Method
from unspool.methods.cache.edit import PieOptions
from unspool.methods.search.adadec import AdaDecOptions, adadec
from unspool.methods.search.beam import BeamOptions, beam
from unspool.methods.search.extract.span import ExtractOptions
from unspool.methods.search.plan import PlanOptions, plan


def _search(run: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda _, options: partial(run, options=options)


SHIPPED_PROGRAMS = (
    Method(
        "adadec",
        "search",
        "lossy",
        "Greedy decoding that pauses where the model is unsure and looks a few tokens ahead.",
        "Towards Better Code Generation: Adaptive Decoding with Uncertainty Guidance (2025)",
        AdaDecOptions,
        _search(adadec),
    ),
    Method(
        "beam",
        "search",
        "lossy",
        "Keeps the likeliest few unfinished texts.",
        "beam search, as in transformers",
        BeamOptions,
        _search(beam),
    ),
    Method(
        "plan",
        "search",
        "lossy",
        "Monte-Carlo tree search for a program of the highest reward, such as the tests that it passes.",
        "Planning with Large Language Models for Code Generation (2023)",
        PlanOptions,
        _search(plan),
    ),
    Method(
        "edit",
        "program",
        "lossy",
        "Changes a prompt in its middle and keeps the cache of what follows, moved to its new place.",
        "Let the Code LLM Edit Itself When You Edit the Code (2024)",
        PieOptions,
        # Imported on use: it needs the public interface, which needs the registry.
        lambda _, options: import_module("unspool.decoding.edit").edit,
        needs=frozenset({Ability.CACHE_EDIT}),
    ),
    Method(
        "extract",
        "program",
        "valid",
        "Answers with the most probable span of a passage, found exactly.",
        "How Optimal is Greedy Decoding for Extractive Question Answering? (2022)",
        ExtractOptions,
        lambda _, options: import_module("unspool.decoding.extract").extract,
    ),
)
