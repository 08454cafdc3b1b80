"""What a draft model drafts along a text of the target, and how rules for the length of a draft would have used it.

Whether a drafted token is right depends on the text before it alone (greedy, or the noise of the position). So the
draft model drafts once along the target's text, and behind each place where it is wrong; any rule can be replayed on
that without another pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unspool.decoding.model import Model
from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context
from unspool.engine.options import GenerationOptions
from unspool.engine.taps import OUTPUT, Taps
from unspool.methods.drafters.specdec_pp import SpecDecPPOptions
from unspool.methods.drafters.specdec_pp.head import AcceptanceHead

MOST = SpecDecPPOptions().num_assistant_tokens
LENGTHS = range(1, 13)
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ENTROPIES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


@dataclass
class Candidate:
    """A drafted token: its probability in the draft's distribution, what else that tells, and the head's opinion."""

    token: int
    q: float
    entropy: float
    margin: float
    head: float = 1.0
    features: float = 1.0


@dataclass
class Text:
    """The target's text and what is drafted along it.

    Attributes:
        drafted: the candidate of each position of the output.
        branches: where that is wrong, what is drafted behind it.
    """

    prompt: list[int]
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
                return (chain + self.branches[place])[: min(MOST, len(self.output) - at)]
        return chain

    def agreed(self, at: int) -> int:
        """How many tokens drafted at a position are right."""
        count = 0
        while at + count < len(self.output) and self.right(at + count):
            count += 1
        return count


def draft_along(
    model: Model, ids: list[int], output: list[int], options: GenerationOptions, head: AcceptanceHead | None
) -> Text:
    """Everything that could be drafted, one pass a token, as the methods do it."""
    assert model.assistant is not None
    text, size = Text(ids, output), model.language_model.vocab_size
    assistant = Assistant(model.assistant.language_model, size, Taps() if head else None)

    def candidate(tokens: list[int]) -> tuple[Candidate, float]:
        """What is drafted behind tokens, and the head's opinion of the last of them."""
        draws = Draws(Context(tokens, len(ids), options.seed, options.temperature), size)
        assistant.follow(tokens)
        logprobs = draws.logprobs(assistant.step(tokens[-1]))
        token = int(np.argmax(logprobs + draws.noise(0)))
        p = np.exp(logprobs)
        second, first = np.partition(p, -2)[-2:]
        entropy = -float((p * np.where(p > 0, logprobs, 0.0)).sum())
        opinion = (
            1.0 if head is None or assistant.hidden is None else float(head.probabilities(assistant.hidden[OUTPUT])[0])
        )
        return Candidate(token, float(p[token]), entropy, float(first - second)), opinion

    for at in range(len(output)):
        made, opinion = candidate([*ids, *output[:at]])
        if at and text.right(at - 1):
            text.drafted[at - 1].head = opinion
        text.drafted.append(made)
    for at, wrong in enumerate(text.drafted):
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
    """Draft until the candidates so far, at least so many, say stop."""
    return lambda chain: next((i for i in range(least, len(chain)) if stops(chain[:i])), len(chain))


def product(values: Sequence[float]) -> float:
    return float(np.prod(values))


def rules(head: bool) -> dict[str, Rule]:
    """By name; thresholds of SpecDec++ and of products are of the chance of a rejection."""
    made = {f"fixed {k}": fixed(k) for k in LENGTHS}
    for h in THRESHOLDS:
        if head:
            made[f"specdec_pp {h}"] = trained(h)
        made[f"specdec_pp without a head {h}"] = untrained(h, 2)
        made[f"product of q {h}"] = untrained(h, 1)
        made[f"log q, entropy, margin {h}"] = until(
            lambda chain, h=h: 1 - product([c.features for c in chain]) > h  # type: ignore[misc]
        )
        made[f"newest q below {1 - h:.1f}"] = until(lambda chain, h=h: chain[-1].q < 1 - h)  # type: ignore[misc]
    for most in ENTROPIES:
        made[f"entropy above {most}"] = until(lambda chain, most=most: chain[-1].entropy > most)  # type: ignore[misc]
    return made


def fixed(length: int) -> Rule:
    return lambda chain: min(length, len(chain))


def trained(threshold: float) -> Rule:
    """SpecDec++ with a head: the newest candidate is not judged yet."""
    return until(lambda chain: 1 - product([c.head for c in chain[:-1]]) > threshold, 2)


def untrained(threshold: float, least: int) -> Rule:
    return until(lambda chain: 1 - product([c.q for c in chain]) > threshold, least)


@dataclass
class Counts:
    """What a rule cost: emitted and drafted tokens, discarded ones among them, and verifications."""

    tokens: int = 0
    drafted: int = 0
    discarded: int = 0
    passes: int = 0

    def speed(self, ratio: float) -> float:
        """Tokens in the time of one pass of the target, for a draft model that is ``ratio`` times as fast."""
        return self.tokens / (self.passes + self.drafted / ratio)


def replay(texts: Sequence[Text], rule: Rule | None) -> Counts:
    """What a rule costs; transformers' schedule from 5 tokens on if there is no rule."""
    counts = Counts()
    for text in texts:
        at, length = 0, 5
        while at < len(text.output):
            chain = text.chain(at)
            made = min(length, len(chain)) if rule is None else rule(chain)
            right = min(made, text.agreed(at))
            length = length + 2 if right == made else max(1, length - 1)
            counts.drafted += made
            counts.discarded += made - right
            counts.passes += 1
            at += right + 1
        counts.tokens += len(text.output)
    return counts


def oracle(texts: Sequence[Text]) -> Counts:
    """The counts of drafts that hold all that is right and nothing else."""
    tokens = sum(len(text.output) for text in texts)
    wrong = sum(not text.right(at) for text in texts for at in range(len(text.output)))
    unbroken = sum(
        text.right(len(text.output) - 1) for text in texts
    )  # those end with a draft, the others with a bonus
    return Counts(tokens, tokens - wrong, 0, wrong + unbroken)


def fit_features(texts: Sequence[Text]) -> NDArray[np.float64]:
    """Logistic regression by Newton's method, rejections weighing 6 as in the paper's loss."""
    pairs = [(c, text.right(at)) for text in texts for at, c in enumerate(text.drafted)]
    x, y = np.array([inputs(c) for c, _ in pairs]), np.array([right for _, right in pairs], dtype=float)
    weights, w = np.where(y > 0, 1.0, 6.0), np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ w))
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(w))
        w += np.linalg.solve(hessian, x.T @ (weights * (y - p)) - 1e-3 * w)
    return w


def inputs(c: Candidate) -> list[float]:
    return [1.0, float(np.log(max(c.q, 1e-12))), c.entropy, c.margin]


def pearl(texts: Sequence[Text], gamma: int) -> tuple[int, int, int, int]:
    """Tokens, passes of the target, tests of drafted tokens, and rejections."""
    tokens = passes = tests = rejections = 0
    for text in texts:
        at, pending = 0, 0  # tokens that are final, and drafted tokens that are right or not behind them
        while at < len(text.output):
            passes += 1
            tested = pending + 1
            right = min(text.agreed(at), tested, len(text.output) - at)
            rejected = right < tested and at + right < len(text.output)
            tests += right + rejected
            rejections += rejected
            at += right + rejected
            pending = 0 if rejected else gamma - 1
        tokens += len(text.output)
    return tokens, passes, tests, rejections


def formula(alpha: float, gamma: int) -> float:
    """Tokens per pass of the target if each draft is right with probability ``alpha``, independently."""
    return 1 / (1 - alpha) / (1 + alpha / (1 - alpha**gamma))
