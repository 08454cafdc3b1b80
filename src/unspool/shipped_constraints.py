"""The rows of the registry for what limits and reshapes the output of the autoregressive loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from unspool.backends.tokenizer import Tokenizer
from unspool.constraints.aligned import AlignedOptions, AlignedShaper
from unspool.constraints.grammar import GrammarConstraint, GrammarOptions
from unspool.engine.contracts import Constraint
from unspool.errors import UnspoolError
from unspool.methods import Method, Surroundings
from unspool.spans.span import ExtractOptions

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_vocabularies: WeakKeyDictionary[Tokenizer, LLTokenizer] = WeakKeyDictionary()


def _vocabulary(tokenizer: Tokenizer, size: int) -> LLTokenizer:
    """The tokens as llguidance reads them. That takes a second or two, so it is done once for a tokenizer."""
    if tokenizer not in _vocabularies:
        from llguidance import LLTokenizer

        _vocabularies[tokenizer] = LLTokenizer(tokenizer.to_json(), n_vocab=size)
    return _vocabularies[tokenizer]


def _grammar(surroundings: Surroundings, options: GrammarOptions) -> Callable[[Sequence[int]], Constraint]:
    if surroundings.tokenizer is None:
        raise UnspoolError("a grammar needs the model's tokenizer; run through unspool.load()")
    vocabulary = _vocabulary(surroundings.tokenizer, surroundings.model.vocab_size)
    GrammarConstraint(options, vocabulary, surroundings.eos)  # mistakes are told before any work
    return lambda prompt: GrammarConstraint(options, vocabulary, surroundings.eos)


SHIPPED_CONSTRAINTS = (
    Method(
        "grammar",
        "constraint",
        "valid",
        "Text that fits a JSON Schema, a regular expression, a Lark grammar or a list of choices.",
        "llguidance (Microsoft), a library; no paper",
        GrammarOptions,
        _grammar,
    ),
    Method(
        "asap",
        "sampler",
        "valid",
        "Samples texts of a grammar ever closer to the model's own distribution over them.",
        "Grammar-Aligned Decoding (2024)",
        AlignedOptions,
        lambda _, options: partial(AlignedShaper, "asap"),
    ),
    Method(
        "cars",
        "sampler",
        "valid",
        "Samples texts of a grammar from exactly the model's own distribution over them, and rejects on the way.",
        "Constrained Adaptive Rejection Sampling (2025)",
        AlignedOptions,
        lambda _, options: partial(AlignedShaper, "cars"),
    ),
    Method(
        "extract",
        "program",
        "valid",
        "Answers with the most probable span of a passage, found exactly.",
        "How Optimal is Greedy Decoding for Extractive Question Answering? (2022)",
        ExtractOptions,
        lambda _, options: import_module("unspool.spans.api").extract,
    ),
)
