"""Options of a request, named as in transformers. Values of similar types are converted, see ``typed``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unspool.engine.noise import SEEDS
from unspool.engine.option import Options, option
from unspool.engine.trace import Event
from unspool.engine.typed import ONE_IS_A_LIST
from unspool.errors import UnspoolError

MAX_ALTERNATIVES = 20
"""Maximum number of alternatives per token in a trace."""


MOST_TOKENS = 2**24
"""No model's context is longer; a larger number is a typing mistake."""


@dataclass(frozen=True)
class GenerationOptions(Options):
    """Options of one request.

    Attributes:
        max_new_tokens: Maximum number of tokens to emit.
        temperature: 0 is greedy; above 0 tokens are sampled.
        top_k: Sample among the k most likely tokens; 0: all.
        top_p: Sample among the most likely tokens of this total probability; 1: all.
        min_p: Sample among the tokens of at least this share of the top token's probability; 0: all.
        typical_p: Sample among the most typical tokens of this total probability; 1: all.
        repetition_penalty: Above 1 makes tokens of the text less likely.
        no_repeat_ngram_size: No n-gram of this size appears twice; 0: off.
        bad_words_ids: Token sequences that must not appear.
        sequence_bias: Token sequences and what is added to the logit of their last token; -inf forbids it, +inf forbids
            all others.
        seed: Of the noise; the noise of output token t depends only on (seed, t).
        eos_token_id: Id or ids that end the text. Default: the model's own; an empty list: none.
        stop: End the text at this string, which is not part of it.
        logprobs: Give the log-probability of each token, in the distribution that it was taken from.
        alternatives: How many of the best tokens a trace lists for each emitted one. Includes their
            log-probabilities and the rank of the emitted one; 0 records none and is free.
        on_event: Called with each trace event as it happens, in the thread that decodes.
        shapers: Logits shapers after the built-in ones; transformers' ``LogitsProcessor`` objects are
            accepted, and by ``Model.generate`` registry specs.
    """

    max_new_tokens: int = option(256, least=1, most=MOST_TOKENS)
    temperature: float = option(0.0, least=0, below=math.inf)
    top_k: int = option(0, least=0)
    top_p: float = option(1.0, above=0, most=1)
    min_p: float = option(0.0, least=0, most=1)
    typical_p: float = option(1.0, above=0, most=1)
    repetition_penalty: float = option(1.0, least=1e-200, most=1e200)
    no_repeat_ngram_size: int = option(0, least=0)
    bad_words_ids: Sequence[Sequence[int]] = ()
    sequence_bias: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    seed: int = option(0, least=0, most=SEEDS[-1])
    eos_token_id: Sequence[int] | None = field(default=None, metadata=ONE_IS_A_LIST)
    stop: Sequence[str] = field(default=(), metadata=ONE_IS_A_LIST)
    logprobs: bool = False
    alternatives: int = option(0, least=0, most=MAX_ALTERNATIVES)
    on_event: Callable[[Event], None] | None = None
    shapers: Sequence[Any] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        eos = self.eos_token_id or ()
        for ok, message in (
            (min(eos, default=0) >= 0, f"eos_token_id must contain ids of 0 or above, not {list(eos)}"),
            (all(map(_is_ids, self.bad_words_ids)), "bad_words_ids takes non-empty lists of ids of 0 or above"),
            (all(map(_is_ids, self.sequence_bias)), "sequence_bias takes non-empty tuples of ids of 0 or above"),
            (
                all(abs(bias) <= 1e100 or math.isinf(bias) for bias in self.sequence_bias.values()),
                "biases of sequence_bias must lie in -1e100 to 1e100, or be -inf or inf",
            ),
        ):
            if not ok:
                raise UnspoolError(message)

    def check_ids(self, vocab_size: int) -> None:
        """Refuse token ids outside the model's vocabulary.

        Raises:
            UnspoolError: with the option's name.
        """
        for name, sequences in (
            ("eos_token_id", [self.eos_token_id or ()]),
            ("bad_words_ids", self.bad_words_ids),
            ("sequence_bias", self.sequence_bias),
        ):
            largest = max((max(sequence) for sequence in sequences if len(sequence)), default=0)
            if largest >= vocab_size:
                raise UnspoolError(
                    f"{name} names token {largest}, but the model's vocabulary ends at {vocab_size - 1}; "
                    "use ids of this model's tokenizer"
                )

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def _is_ids(sequence: Sequence[int]) -> bool:
    return len(sequence) > 0 and min(sequence) >= 0
