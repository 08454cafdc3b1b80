"""Drafts of a draft model along a text of the target, and replays of rules for the length of a draft.

Under greedy decoding, whether a drafted token is right depends only on the text before it. So the draft model drafts
once along the target's text, and after each place where it is wrong. Any rule can be replayed on that without a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, LanguageModel
from unspool.engine.taps import OUTPUT, Taps
from unspool.methods.drafters.specdec_pp.head import AcceptanceHead

MOST = 20
"""Maximum tokens of a draft, SpecDec++'s default."""


@dataclass
class Candidate:
    """A drafted token.

    Attributes:
        q: its probability in the draft's distribution.
        entropy: of that distribution, in nats.
        head: its acceptance probability by the head, 1 without one.
    """

    token: int
    q: float
    entropy: float
    head: float = 1.0


@dataclass
class Text:
    """The target's text and what is drafted along it.

    Attributes:
        drafted: the candidate of each position of the output.
        branches: where that is wrong, what is drafted after it. Left out where only lengths count: the wrong
            candidate stands for all after it.
    """

    output: list[int]
    drafted: list[Candidate] = field(default_factory=list)
    branches: dict[int, list[Candidate]] = field(default_factory=dict)

    def right(self, at: int) -> bool:
        return self.drafted[at].token == self.output[at]

    def chain(self, at: int) -> list[Candidate]:
        """The draft of ``MOST`` tokens at a position of the output; ends with the text."""
        chain: list[Candidate] = []
        while len(chain) < MOST and at + len(chain) < len(self.output):
            place = at + len(chain)
            chain.append(self.drafted[place])
            if not self.right(place):
                return (chain + self.branches.get(place, [chain[-1]] * MOST))[: min(MOST, len(self.output) - at)]
        return chain

    def agreed(self, at: int) -> int:
        """Number of correct tokens in the draft at a position."""
        count = 0
        while at + count < len(self.output) and self.right(at + count):
            count += 1
        return count


def draft_along(
    draft: LanguageModel, vocab_size: int, ids: list[int], output: list[int], head: AcceptanceHead | None = None
) -> Text:
    """Every possible greedy draft, one pass per token, as in the methods; branches only with a head."""
    text, assistant = Text(output), Assistant(draft, vocab_size, None if head is None else Taps())

    def candidate(tokens: list[int]) -> tuple[Candidate, float]:
        """The draft after tokens, and the head's prediction for the last of them."""
        assistant.follow(tokens)
        logprobs = Draws(Context(tokens, len(ids), 0, 0.0), vocab_size).logprobs(assistant.step(tokens[-1]))
        token, p = int(np.argmax(logprobs)), np.exp(logprobs)
        entropy = -float((p * np.where(p > 0, logprobs, 0.0)).sum())
        opinion = (
            1.0 if head is None or assistant.hidden is None else float(head.probabilities(assistant.hidden[OUTPUT])[0])
        )
        return Candidate(token, float(p[token]), entropy), opinion

    for at in range(len(output)):
        made, opinion = candidate([*ids, *output[:at]])
        if at and text.right(at - 1):
            text.drafted[at - 1].head = opinion
        text.drafted.append(made)
    for at, wrong in enumerate(text.drafted if head is not None else ()):
        if not text.right(at):
            branch, tokens = [wrong], [*ids, *output[:at], wrong.token]
            while len(branch) < min(MOST, len(output) - at):
                made, branch[-1].head = candidate(tokens)
                branch.append(made)
                tokens = [*tokens, made.token]
            text.branches[at] = branch[1:]
    return text


Rule = Callable[[Sequence[Candidate]], int]
"""How many tokens of a chain are drafted before the draft ends."""


def until(stops: Callable[[Sequence[Candidate]], bool], least: int = 1) -> Rule:
    """Draft at least a minimum, then until a test of the candidates says stop."""
    return lambda chain: next((i for i in range(least, len(chain)) if stops(chain[:i])), len(chain))


def fixed(length: int) -> Rule:
    """A fixed number of tokens."""
    return lambda chain: min(length, len(chain))


def trained(threshold: float) -> Rule:
    """SpecDec++ with a head: the newest candidate is not judged yet."""
    return until(lambda chain: 1 - float(np.prod([c.head for c in chain[:-1]])) > threshold, 2)


def product(threshold: float) -> Rule:
    """SpecDec++'s substitute without a head."""
    return until(lambda chain: 1 - float(np.prod([c.q for c in chain])) > threshold, 2)


def replay(text: Text, rule: Rule) -> tuple[int, int]:
    """Drafted tokens and passes of the target that a rule costs."""
    at = drafted = passes = 0
    while at < len(text.output):
        made = rule(text.chain(at))
        drafted += made
        passes += 1
        at += min(made, text.agreed(at)) + 1
    return drafted, passes


def pearl(text: Text, block: int) -> tuple[int, int, int]:
    """Passes of the target, tests of drafted tokens, and rejections."""
    passes = tests = rejections = 0
    at, pending = 0, 0  # tokens that are final, and drafted tokens after them that are not tested yet
    while at < len(text.output):
        passes += 1
        tested = pending + 1
        right = min(text.agreed(at), tested, len(text.output) - at)
        rejected = right < tested and at + right < len(text.output)
        tests += right + rejected
        rejections += rejected
        at += right + rejected
        pending = 0 if rejected else block - 1
    return passes, tests, rejections
