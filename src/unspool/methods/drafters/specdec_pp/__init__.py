"""SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths (2024). A draft ends when it has gone wrong.

A draft model writes a chain, one pass a token, and the draft goes on while the chance that *every* drafted token will
be accepted is high enough. A small head that was trained for the pair of models (``unspool train specdec_pp``)
reads that chance from the draft model's last hidden state. A hidden state belongs to the token that was just fed, so
the pass that draws one candidate judges the one before it, and the newest candidate is always sent along unjudged.

What it changes about plain decoding: several of its tokens leave one pass of the target. Guarantee: identical under the
greedy and the same-noise rule, the same distribution under the lossless rule, for any head: the decision to stop sees
only what was drafted, and all of that is submitted.

Without a head (``head=None``) there is nothing that was trained: an **untrained stand-in** takes the draft model's own
probability of a candidate for its chance of being accepted, which is known before the next pass, so the newest
candidate counts too. It is not the paper's method and needs no hidden states; results call it ``specdec_pp (no head)``.

Where the paper leaves a choice: blocks of the head have weights of their own, as drawn in the paper (its code repeats
one block). A head is trained for one temperature and for the lossless rule, or the greedy one at 0; under the
same-noise rule tokens are accepted less often than it thinks. Left out: stopping at a drafted end of text, which
drafters are not told of; the loop ends the text there.
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
            untrained stand-in, the product of the draft model's own probabilities.
        stop_threshold: a draft ends when the chance that some token of it will be rejected is above this, 0 to 1.
        min_assistant_tokens: tokens of a draft before it may end, at least 1.
        num_assistant_tokens: most tokens of a draft, at least ``min_assistant_tokens``.
    """

    head: str | None = option(None, check=partial(Artifact.load, method="specdec_pp"))
    stop_threshold: float = option(0.7, least=0, most=1)
    min_assistant_tokens: int = option(2, least=1)
    num_assistant_tokens: int = 20

    @property
    def lacks(self) -> str:
        """What of the paper's method is missing with these options."""
        return "no head" if self.head is None else ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_assistant_tokens > self.num_assistant_tokens:
            raise UnspoolError(
                f"min_assistant_tokens must be at most num_assistant_tokens ({self.num_assistant_tokens}), "
                f"not {self.min_assistant_tokens}"
            )


class SpecDecPP:
    """A chain from a draft model that ends by what was drafted.

    Args:
        model: the draft model.
        vocab_size: of the target.
        head: the trained head, if the options name one.

    Attributes:
        estimates: of the last draft, for each of its tokens, the chance that all judged tokens will be accepted as it
            was when the token was drawn; never rises.

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
        """Nothing: the draft model reads the prompt with the first draft."""

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
                if self._head is not None and node:  # the root is committed text, there is nothing to accept
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
        """The ``k`` ids that the draft model ranks highest for the token after the text; None if it was not asked."""
        return self._assistant.first_ranking(k)

    def observe(self, step: Step) -> None:
        """Nothing: the next draft begins with what the committed text shares with the last one."""


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
        "Ends a draft model's chain when some token of it will likely be rejected; (no head): an untrained stand-in."
    ),
    paper="SpecDec++: Boosting Speculative Decoding via Adaptive Candidate Lengths (2024)",
    options=SpecDecPPOptions,
    build=_build,
    needs=Needs(assistant=True),
    draws=True,
    trainer=".train",
)
