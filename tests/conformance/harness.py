"""A small decoding loop over the toy model, drafters for tests, and the chi-squared test.

The loop is apart from the engine's own on purpose: rules and sessions are tested through it alone, and the drafters are
then used on the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance.drafter import EOS, resources
from unspool.conformance.enumeration import Drawn, Node, Output, Row, Text, build, without
from unspool.conformance.stubs import EmptyDrafter, EosDrafter, OracleDrafter, RandomDrafter
from unspool.engine import noise
from unspool.engine.contracts import AcceptanceRule, Context, Drafter, Step
from unspool.engine.method import DRAFTER
from unspool.engine.numeric import softmax
from unspool.engine.tree import DraftDistribution, TokenTree
from unspool.methods.acceptance._exact_match import ExactMatch


class ScoredTarget:
    """The target distributions of a scored tree at a temperature; a ``Target``."""

    def __init__(self, tree: TokenTree, logits: Row, context: Context) -> None:
        self.tree = tree
        self._logits = logits
        self._context = context

    def probabilities(self, node: int) -> Row:
        return softmax(self._logits[node] / self._context.temperature)

    def choose(self, node: int) -> int:
        row = self._logits[node]
        if self._context.temperature == 0:
            return int(row.argmax())
        position = len(self._context.tokens) + int(self.tree.depths[node])
        ids = np.arange(len(row))
        return noise.draw(row / self._context.temperature, self._context.seed, position, len(row), ids)


@dataclass(frozen=True)
class Decoded:
    """Tokens of one run and what its rounds accepted."""

    tokens: Text
    rounds: int
    accepted: int  # drafted tokens that were accepted, over all rounds
    drafted: int  # drafted nodes, over all rounds


RoundGenerator = Callable[[int, int], np.random.Generator]  # (seed, position of the round's first token)


def decode(
    model: ToyModel,
    drafter: Drafter,
    rule: AcceptanceRule,
    prompt: Text,
    max_new_tokens: int,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    budget: int = 8,
    round_generator: RoundGenerator = noise.rule_generator,
) -> Decoded:
    """Rounds of propose, score, decide and commit until there are ``max_new_tokens`` tokens; the rest is cut off."""
    session = model.open()
    if len(prompt) > 1:
        session.score(TokenTree.chain(prompt[:-1]), rows=())
        session.commit(range(len(prompt) - 1))
    tokens = list(prompt)
    context = Context(tokens, len(prompt), seed, temperature)
    drafter.start(context)
    rounds = accepted = drafted = 0
    while len(tokens) - len(prompt) < max_new_tokens:
        tree = drafter.propose(context, budget)
        assert tree.tokens[0] == tokens[-1]
        scores = session.score(tree)
        target = ScoredTarget(tree, np.asarray(scores.logits, dtype=np.float64), context)
        decision = rule.decide(target, partial(round_generator, seed, len(tokens)))
        session.commit(decision.path)
        tokens += [tree.tokens[node] for node in decision.path[1:]] + [decision.token]
        rounds += 1
        accepted += len(decision.path) - 1
        drafted += len(tree) - 1
    return Decoded(tuple(tokens[len(prompt) :][:max_new_tokens]), rounds, accepted, drafted)


def plain(model: ToyModel, prompt: Text, max_new_tokens: int, *, seed: int = 0, temperature: float = 1.0) -> Text:
    """Plain decoding, one token a pass."""
    return decode(
        model, EmptyDrafter(), ExactMatch(), prompt, max_new_tokens, seed=seed, temperature=temperature
    ).tokens


ALL = [*(row.name for row in methods.of_kind(DRAFTER)), "random", "perfect", "empty", "eos"]
"""Every registered drafter, and stubs."""


def drafters(toy: ToyModel, text: Sequence[int], name: str) -> Drafter:
    """The drafter of ``ALL`` with this name; ``text`` is what plain decoding gives, prompt included."""
    stubs: dict[str, Callable[[], Drafter]] = {
        "random": lambda: RandomDrafter(toy.vocab_size, seed=5),
        "perfect": lambda: OracleDrafter(text),
        "empty": EmptyDrafter,
        "eos": lambda: EosDrafter(EOS, text),
    }
    return stubs[name]() if name in stubs else methods.build(name, DRAFTER, resources(toy))


Sampler = Callable[[ToyModel, Text, np.random.Generator], TokenTree]


class SampledDrafter:
    """Draws a tree from a draft model in every round, with fresh randomness of its own.

    Args:
        draft: the draft model.
        sampler: draws a tree for a text.
        seed: of the randomness, which goes on over rounds and requests.
    """

    def __init__(self, draft: ToyModel, sampler: Sampler, seed: int = 0) -> None:
        self._draft = draft
        self._sampler = sampler
        self._rng = np.random.default_rng(seed)

    def start(self, context: Context) -> None:
        pass

    def propose(self, context: Context, budget: int) -> TokenTree:
        return self._sampler(self._draft, tuple(context.tokens), self._rng)

    def observe(self, step: Step) -> None:
        pass


SiblingSampler = Callable[[Row, int, Text, np.random.Generator], Drawn]


def sample_tree(
    draft: ToyModel, text: Text, rng: np.random.Generator, siblings: SiblingSampler, widths: Sequence[int]
) -> TokenTree:
    """A tree whose nodes at depth d have ``widths[d]`` children, each group drawn by ``siblings``."""
    nodes: list[Node] = [(text[-1], -1, None)]
    level = [(0, text)]
    for width in widths:
        below = []
        for node, path in level:
            for token, distribution in siblings(draft.probabilities(path), width, path, rng):
                below.append((len(nodes), (*path, token)))
                nodes.append((token, node, distribution))
        level = below
    return build(nodes)


def draw_independent(q: Row, count: int, text: Text, rng: np.random.Generator) -> Drawn:
    """Siblings drawn independently."""
    distribution = DraftDistribution(q, replacement=True)
    tokens = np.searchsorted(np.cumsum(q)[:-1], rng.random(count), side="right")
    return [(token, distribution) for token in tokens.tolist()]


def gumbel_top_k(log_q: Row, count: int, rng: np.random.Generator) -> list[int]:
    """``count`` tokens drawn without replacement, in the order of their perturbed log-probabilities."""
    perturbed = log_q + rng.gumbel(size=len(log_q))
    return [int(token) for token in np.argsort(-perturbed)[:count] if perturbed[token] > -math.inf]


def draw_no_replacement(q: Row, count: int, text: Text, rng: np.random.Generator) -> Drawn:
    """Gumbel-top-k siblings."""
    distribution = DraftDistribution(q, replacement=False)
    with np.errstate(divide="ignore"):
        return [(token, distribution) for token in gumbel_top_k(np.log(q), count, rng)]


def take_top(q: Row, count: int, text: Text, rng: np.random.Generator) -> Drawn:
    """The likeliest tokens as point masses."""
    return [(int(token), None) for token in np.argsort(-q, kind="stable")[:count]]


def draw_mixed(q: Row, count: int, text: Text, rng: np.random.Generator) -> Drawn:
    """A retrieved token as a point mass, then siblings without replacement from the draft without it."""
    retrieved = (2 * text[-1] + 1) % len(q)
    rest = without(q, [retrieved])
    assert rest is not None
    return [(retrieved, None), *draw_no_replacement(rest, count - 1, text, rng)]


def stochastic_beam(width: int, depth: int) -> Sampler:
    """Stochastic beam search (Kool et al., 2019): paths without replacement, siblings in perturbed order."""

    def sample(draft: ToyModel, text: Text, rng: np.random.Generator) -> TokenTree:
        nodes: list[Node] = [(text[-1], -1, None)]
        beam = [(0.0, 0.0, 0, text)]  # perturbed and plain log-probability of the path, node, text
        for _ in range(depth):
            candidates = []
            for perturbed, log_path, node, path in beam:
                q = draft.probabilities(path)
                distribution = DraftDistribution(q, replacement=False)
                log_paths = log_path + np.log(q)
                noisy = log_paths + rng.gumbel(size=len(q))
                # Conditioned on their maximum being the parent's perturbed value.
                noisy = -np.log(np.exp(-perturbed) - np.exp(-noisy.max()) + np.exp(-noisy))
                candidates += [
                    (float(noisy[token]), float(log_paths[token]), node, (*path, token), distribution)
                    for token in range(len(q))
                ]
            candidates.sort(key=lambda candidate: -candidate[0])
            beam = []
            for perturbed, log_path, node, path, distribution in candidates[:width]:
                beam.append((perturbed, log_path, len(nodes), path))
                nodes.append((path[-1], node, distribution))
        return build(nodes)

    return sample


@dataclass(frozen=True)
class ChiSquared:
    """Result of a chi-squared test."""

    statistic: float
    freedom: int
    p_value: float
    total_variation: float


def chi_squared(samples: Iterable[Text], expected: Output) -> ChiSquared:
    """Test samples against an exact distribution; cells that expect fewer than 10 samples are pooled.

    The p-value is the approximation of Wilson and Hilferty (1931): the cube root of chi-squared over its degrees of
    freedom is nearly normal. At 4 and more degrees of freedom it is good to a few per cent down to 1e-4.
    """
    counts: dict[Text, int] = {}
    for sample in samples:
        counts[sample] = counts.get(sample, 0) + 1
    n = sum(counts.values())
    assert set(counts) <= set(expected), "a sample that plain decoding cannot give"
    distance = 0.5 * sum(abs(counts.get(key, 0) / n - p) for key, p in expected.items())
    cells = [(counts.get(key, 0), n * p) for key, p in expected.items()]
    large = [(seen, mean) for seen, mean in cells if mean >= 10]
    small = [(seen, mean) for seen, mean in cells if mean < 10]
    if small:
        large.append((sum(seen for seen, _ in small), sum(mean for _, mean in small)))
    statistic = sum((seen - mean) ** 2 / mean for seen, mean in large)
    freedom = len(large) - 1
    variance = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - variance)) / math.sqrt(variance)
    return ChiSquared(statistic, freedom, 0.5 * math.erfc(z / math.sqrt(2)), distance)


def sample_outputs(
    model: ToyModel,
    drafter: Drafter,
    rule: AcceptanceRule,
    n: int,
    *,
    first_seed: int = 0,
    length: int = 3,
    round_generator: RoundGenerator = noise.rule_generator,
) -> list[Text]:
    """``n`` runs of ``length`` tokens after the prompt (0,), one seed each."""
    return [
        decode(model, drafter, rule, (0,), length, seed=first_seed + i, round_generator=round_generator).tokens
        for i in range(n)
    ]
