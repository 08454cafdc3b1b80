"""What a request asks for. Names are transformers' names; values of near types are taken, see ``typed``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isinf
from typing import Any

from unspool.engine.noise import SEEDS
from unspool.engine.trace import Event
from unspool.engine.typed import ONE_IS_A_LIST, settle
from unspool.errors import UnspoolError

MAX_ALTERNATIVES = 20
"""Most alternatives that a trace lists per token."""


MOST_TOKENS = 2**24
"""No model's context is longer; more is a slip of the keyboard."""


@dataclass(frozen=True)
class GenerationOptions:
    """One request.

    Attributes:
        max_new_tokens: most tokens to emit, at least 1.
        temperature: 0 is greedy; above 0 tokens are sampled.
        top_k, top_p, min_p, typical_p: truncation, as in transformers; 0 or 1.0 (0.0 for ``min_p``) switch it off.
        repetition_penalty: above 1 makes tokens of the text less likely; 1e-200 to 1e200.
        no_repeat_ngram_size: n-grams of this size appear once at most; 0 switches it off.
        bad_words_ids: token sequences that must not appear.
        sequence_bias: token sequences and what is added to the logit of their last token; -inf forbids it, +inf forbids
            all others.
        seed: of the noise, 0 to 2^64 - 1; token t of the output depends on (seed, t) alone.
        eos_token_id: id or ids that end the text; None: the model's own; an empty list: none.
        stop: string or strings that end the text; the string itself is not part of it.
        logprobs: whether results carry log-probabilities.
        alternatives: how many of the best tokens the trace lists for each emitted one, with their log-probabilities and
            the rank of the emitted one, 0 to 20; 0 records none of that and costs nothing.
        on_event: called with each trace event as it happens, in the thread that decodes.
        shapers: more logits shapers, after the built-in ones; transformers' ``LogitsProcessor`` objects are accepted,
            and by ``Model.generate`` names of the registry.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: Sequence[Sequence[int]] = ()
    sequence_bias: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    seed: int = 0
    eos_token_id: Sequence[int] | None = field(default=None, metadata=ONE_IS_A_LIST)
    stop: Sequence[str] = field(default=(), metadata=ONE_IS_A_LIST)
    logprobs: bool = False
    alternatives: int = 0
    on_event: Callable[[Event], None] | None = None
    shapers: Sequence[Any] = ()

    def __post_init__(self) -> None:
        settle(self)
        eos = self.eos_token_id or ()
        for ok, message in (
            (self.max_new_tokens >= 1, f"max_new_tokens must be at least 1, not {self.max_new_tokens}"),
            (
                self.max_new_tokens <= MOST_TOKENS,
                f"max_new_tokens must be at most {MOST_TOKENS:,}, not {self.max_new_tokens}",
            ),
            (0 <= self.temperature < float("inf"), f"temperature must be 0 or above, not {self.temperature}"),
            (self.top_k >= 0, f"top_k must be 0 (off) or above, not {self.top_k}"),
            (0 < self.top_p <= 1, f"top_p must lie in (0, 1], not {self.top_p}"),
            (0 <= self.min_p <= 1, f"min_p must lie in [0, 1], not {self.min_p}"),
            (0 < self.typical_p <= 1, f"typical_p must lie in (0, 1], not {self.typical_p}"),
            (
                1e-200 <= self.repetition_penalty <= 1e200,
                f"repetition_penalty must lie in 1e-200 to 1e200, not {self.repetition_penalty}",
            ),
            (
                self.no_repeat_ngram_size >= 0,
                f"no_repeat_ngram_size must be 0 (off) or above, not {self.no_repeat_ngram_size}",
            ),
            (self.seed in SEEDS, f"seed must lie in 0 to 2^64 - 1, not {self.seed}"),
            (min(eos, default=0) >= 0, f"eos_token_id must hold ids of 0 or above, not {list(eos)}"),
            (
                0 <= self.alternatives <= MAX_ALTERNATIVES,
                f"alternatives must lie in 0 (off) to {MAX_ALTERNATIVES}, not {self.alternatives}",
            ),
            (all(map(_is_ids, self.bad_words_ids)), "bad_words_ids takes non-empty lists of ids of 0 or above"),
            (all(map(_is_ids, self.sequence_bias)), "sequence_bias takes non-empty tuples of ids of 0 or above"),
            (
                all(abs(bias) <= 1e100 or isinf(bias) for bias in self.sequence_bias.values()),
                "biases of sequence_bias must lie in -1e100 to 1e100, or be -inf or inf",
            ),
        ):
            if not ok:
                raise UnspoolError(message)

    def check_ids(self, vocab_size: int) -> None:
        """Refuse token ids that the model does not have.

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
