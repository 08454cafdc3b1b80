"""The rows of the registry for what limits and reshapes the output of the autoregressive loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from unspool.engine.contracts import Constraint, Shaper
from unspool.errors import UnspoolError
from unspool.methods import Method, Surroundings
from unspool.methods.constraints.grammar import GrammarConstraint, GrammarOptions
from unspool.methods.constraints.monitor import MonitorConstraint, MonitorOptions
from unspool.methods.constraints.monitor.jedi import JediAnalyser
from unspool.methods.constraints.monitor.masks import monitor_vocabulary
from unspool.methods.sampling._aligned import AlignedOptions, AlignedShaper
from unspool.methods.shaping import rpg
from unspool.methods.shaping.rpg import RPGOptions
from unspool.models.texts import spelled
from unspool.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_vocabularies: WeakKeyDictionary[Tokenizer, LLTokenizer] = WeakKeyDictionary()


def _vocabulary(tokenizer: Tokenizer, size: int) -> LLTokenizer:
    """The tokens as llguidance reads them. That takes a second or two, so it is done once for a tokenizer."""
    if tokenizer not in _vocabularies:
        from llguidance import LLTokenizer

        _vocabularies[tokenizer] = LLTokenizer(tokenizer.to_json(size), n_vocab=size)
    return _vocabularies[tokenizer]


def _grammar(surroundings: Surroundings, options: GrammarOptions) -> Callable[[Sequence[int]], Constraint]:
    if surroundings.tokenizer is None:
        raise UnspoolError("a grammar needs the model's tokenizer; run through unspool.load()")
    vocabulary = spelled(_vocabulary(surroundings.tokenizer, surroundings.model.vocab_size))
    GrammarConstraint(options, vocabulary, surroundings.eos)  # mistakes are told before any work
    return lambda prompt: GrammarConstraint(options, vocabulary, surroundings.eos)


def _monitor(surroundings: Surroundings, options: MonitorOptions) -> Callable[[Sequence[int]], Constraint]:
    if surroundings.tokenizer is None:
        raise UnspoolError("a monitor needs the model's tokenizer; run through unspool.load()")
    tokenizer = surroundings.tokenizer
    analyser = JediAnalyser(options.project, options.file)
    vocabulary = monitor_vocabulary(tokenizer, surroundings.model.vocab_size)

    def begin(prompt: Sequence[int]) -> Constraint:
        code = tokenizer.decode(prompt)
        # A token that begins every text may be there, but none of a conversation.
        if tokenizer.decode(prompt[1:], skip_special_tokens=False) != tokenizer.decode(prompt[1:]):
            raise UnspoolError(
                "a monitor reads the prompt as code; leave the chat template out: --no-chat (chat=False)"
            )
        return MonitorConstraint(options, vocabulary, analyser, code)

    return begin


def _rpg(surroundings: Surroundings, options: RPGOptions) -> Shaper:
    if surroundings.tokenizer is None:
        raise UnspoolError("rpg needs the model's tokenizer; run through unspool.load()")
    return rpg.build(options, _vocabulary(surroundings.tokenizer, surroundings.model.vocab_size), surroundings.eos)


SHIPPED_CONSTRAINTS = (
    Method(
        "rpg",
        "shaper",
        "lossy",
        "Makes the next copy of a repeated grammar structure of Python less likely, the more copies there were.",
        "Rethinking Repetition Problems of LLMs in Code Generation (2025)",
        RPGOptions,
        _rpg,
        extra="code",
    ),
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
        "monitor",
        "constraint",
        "valid",
        "Identifiers behind a dot that a static analyser of Python (jedi) knows.",
        "Guiding Language Models of Code with Global Context using Monitors (2023)",
        MonitorOptions,
        _monitor,
        extra="monitor",
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
)
