"""SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths (2024). Stops drafting at a likely rejection.

A draft model writes a chain, one pass per token, as long as the probability that *every* drafted token will be accepted
is high enough. A small head, trained for the pair of models (``unspool train specdec_pp``), predicts that probability
from the draft model's last hidden state. A hidden state belongs to the token just fed, so the pass that draws one
candidate judges the one before it, and the newest candidate is always submitted unjudged.

Effect on plain decoding: one pass of the target yields several tokens. Guarantee: identical under the greedy and the
same-noise rule, the same distribution under the lossless rule, for any head: the decision to stop depends only on
drafted tokens, and all of them are submitted.

Without a head (``head=None``), an **untrained substitute** uses the draft model's own probability of a candidate as its
probability of acceptance. It is known before the next pass, so the newest candidate counts too. This is not the paper's
method and needs no hidden states; results call it ``specdec_pp (no head)``.

Choices where the paper is open: the blocks of the head have separate weights, as drawn in the paper (its code repeats
one block). A head is trained for one temperature and for the lossless rule, or for the greedy one at 0; under the
same-noise rule tokens are accepted less often than it predicts. Omitted: stopping at a drafted end of text, which
drafters do not know; the loop ends the text there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, LanguageModel, Step
from unspool.engine.method import DRAFTER, Method, Needs
from unspool.engine.option import Options, option
from unspool.engine.taps import OUTPUT, Taps, check
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.errors import UnspoolError
from unspool.methods.drafters.specdec_pp.head import AcceptanceHead
from unspool.methods.resources import Resources
from unspool.training.artifact import Artifact


@dataclass(frozen=True)
class SpecDecPPOptions(Options):
    """Defaults are the paper's.

    Attributes:
        head: a trained head, the file or the directory that ``unspool train specdec_pp`` wrote; None: the
            untrained substitute, the product of the draft model's own probabilities.
        stop_threshold: a draft ends when the probability that any of its tokens is rejected exceeds this, 0 to 1.
        min_assistant_tokens: minimum tokens of a draft, at least 1.
        num_assistant_tokens: maximum tokens of a draft, at least ``min_assistant_tokens``.
    """

    head: str | None = option(None, check=partial(Artifact.load, method="specdec_pp"))
    stop_threshold: float = option(0.7, least=0, most=1)
    min_assistant_tokens: int = option(2, least=1)
    num_assistant_tokens: int = 20

    @property
    def lacks(self) -> str:
        """The part of the paper's method that is missing with these options."""
        return "no head" if self.head is None else ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_assistant_tokens > self.num_assistant_tokens:
            raise UnspoolError(
                f"min_assistant_tokens must be at most num_assistant_tokens ({self.num_assistant_tokens}), "
                f"not {self.min_assistant_tokens}"
            )


class SpecDecPP:
    """A chain from a draft model whose length depends on the drafted tokens.

    Args:
        model: the draft model.
        vocab_size: of the target.
        head: the trained head, if the options name one.

    Attributes:
        estimates: for each token of the last draft, the probability, when it was drawn, that all judged tokens will be
            accepted; never increases.

    Raises:
        UnsupportedError: if there is a head and the draft model has no hidden states.
    """

    def __init__(
        self, options: SpecDecPPOptions, model: LanguageModel, vocab_size: int, head: AcceptanceHead | None = None
    ) -> None:
        self.options = options
        self.name = f"specdec_pp ({options.lacks})" if options.lacks else "specdec_pp"
        self.estimates: list[float] = []
        self._head = head
        taps = None if head is None else Taps()
        check(model, taps, "the head of specdec_pp")
        self._assistant = Assistant(model, vocab_size, taps)
        self._vocab_size = vocab_size

    def start(self, context: Context) -> None:
        """Do nothing: the draft model reads the prompt with the first draft."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A chain of at most ``min(budget, num_assistant_tokens + 1)`` nodes."""
        options, builder = self.options, TreeBuilder(context.tokens[-1])
        self.estimates = []
        length = min(budget - 1, options.num_assistant_tokens, self._assistant.levels(context.tokens))
        if length > 0:
            self._assistant.follow(context.tokens)
            draws = Draws(context, self._vocab_size)
            all_accepted = 1.0
            for node in range(length):
                logprobs = draws.logprobs(self._assistant.step(builder.tokens[node]))
                if self._head is not None and node:  # the root is committed text, so there is nothing to accept
                    assert self._assistant.hidden is not None
                    all_accepted *= float(self._head.probabilities(self._assistant.hidden[OUTPUT])[0])
                token = int(np.argmax(logprobs + draws.noise(node)))
                builder.add(node, token, self.name, draft=builder.drawn_from(draws.distribution(logprobs)))
                if self._head is None:
                    all_accepted *= float(np.exp(logprobs[token]))
                self.estimates.append(all_accepted)
                if node + 1 >= options.min_assistant_tokens and 1 - all_accepted > options.stop_threshold:
                    break
        return builder.build()

    def first_ranking(self, k: int) -> Sequence[int] | None:
        """The draft model's top ``k`` ids for the token after the text; None if it was not run there."""
        return self._assistant.first_ranking(k)

    def observe(self, step: Step) -> None:
        """Do nothing: the next draft starts from what the committed text shares with the last one."""


def _build(resources: Resources, options: SpecDecPPOptions) -> SpecDecPP:
    head = None
    if options.head is not None:
        artifact = Artifact.load(options.head, "specdec_pp")
        artifact.check(resources)
        head = AcceptanceHead(artifact)
    assert resources.assistant is not None  # see Needs
    return SpecDecPP(options, resources.assistant, resources.model.vocab_size, head)


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary=(
        "Stops drafting once a rejection becomes likely, by a trained head (without one: by draft probabilities)."
    ),
    paper="SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths (2024)",
    options=SpecDecPPOptions,
    build=_build,
    needs=Needs(assistant=True),
    draws=True,
    trainer=".train",
)
