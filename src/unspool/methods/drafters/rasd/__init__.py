"""RASD: "RASD: Retrieval-Augmented Speculative Decoding" (2025). Merges retrieved continuations into a drafter's tree.

A drafter is short-sighted and weak on text unlike what it knows; retrieval copies far ahead and is often wrong. So each
pass looks up the longest suffix of the text that occurred before in it, and the longest one of 16 tokens down to 2 that
occurs in a datastore (as REST does). The drafter drafts. Retrieved continuations are dropped if their first token is
not among the ``prune_top_k`` that the drafter ranks highest. The most frequent prefixes of the rest form a tree, which
is merged into the drafter's along their longest common prefixes. One pass scores the union. With the drafter ``plain``
it is retrieval alone.

What it changes about plain decoding: speed only. Guarantee: that of the drafter, since retrieved tokens are chosen, not
drawn, and come after the drafter's siblings (see ``unspool.engine.fuse``).

Choices where the paper's text was not available or leaves one:
- Drafters that have a first-step ranking (``RanksFirst``) provide it: a draft model's first distribution, for a chain
  or a tree; token recycling's row. Without one, nothing is pruned. The first level of the draft is not used instead,
  because it is not a ranking. A chain has one token there, so everything that differs from the draft would be dropped,
  and that is what retrieval is for.
- Pruning may drop a perfect copy whose first token the drafter does not expect. So ``trusted_match`` can exempt long
  matches; the paper exempts none, and neither does the default. ``RASD.branches`` counts what pruning cost.
- The weight of a prefix is the share of a match's occurrences that continue with it, times the length of the match. The
  text itself gives one continuation, after the most recent occurrence.
- Sizes: 60 nodes are EAGLE-2's, 10 tokens per continuation REST's and prompt lookup's, and 30 nodes fit three of them;
  the paper's own are not known, nor is its k. On a CPU 8 to 16 nodes are usually enough.
- The drafter gets ``nodes`` less what retrieval may take, so it has the whole tree if nothing is retrieved.

Left out: both sources of a node that both propose (it counts as the drafter's); drafting and retrieving in parallel
threads (retrieval takes 1 to 3 ms); options of the inner drafter, which has its defaults.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from unspool.engine.contracts import Closing, Context, Drafter, Step
from unspool.engine.fuse import fuse
from unspool.engine.method import DRAFTER, Method
from unspool.engine.option import Options, option
from unspool.engine.suffix_automaton import SuffixAutomaton
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.drafters._datastore import LONGEST_MATCH, SHORTEST_MATCH, Datastore
from unspool.methods.drafters.rasd.retrieval import Continuations, most_frequent
from unspool.methods.resources import Resources


@runtime_checkable
class RanksFirst(Protocol):
    """A drafter that ranks the whole vocabulary, or the best of it, before it drafts its first token."""

    def first_ranking(self, k: int) -> Sequence[int] | None:
        """At most ``k`` ids ranked highest directly after the committed text, by the last ``propose``; None if none.

        The ranking is by the drafter's probabilities, not by what was drawn from them.
        """
        ...


@dataclass(frozen=True)
class RASDOptions(Options):
    """Options of ``rasd``.

    Attributes:
        drafter: name of the inner drafter. None: ``draft_model`` if one is loaded, as in the paper, else
            ``token_recycling``.
        datastore: directory made by ``unspool datastore build``, searched instead of ``memories["rasd"]``.
        nodes: most drafted nodes of the tree, at least 1.
        retrieved_nodes: most nodes that retrieval may take, at least 1.
        continuation: tokens of a retrieved continuation, at least 1.
        prune_top_k: retrieved continuations must begin with one of the ``prune_top_k`` ids that the drafter ranks
            highest; 0: no pruning.
        trusted_match: continuations after a match of at least this many tokens are not pruned; None: all are pruned.
    """

    drafter: str | None = None
    datastore: str | None = option(None, check=Datastore.open)
    nodes: int = option(60, least=1)
    retrieved_nodes: int = option(30, least=1)
    continuation: int = option(10, least=1)
    prune_top_k: int = option(10, least=0)
    trusted_match: int | None = option(None, least=SHORTEST_MATCH)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drafter == "rasd":
            raise UnspoolError("rasd cannot be its own drafter; name another one, see `unspool methods --kind drafter`")


@dataclass(frozen=True)
class Branch:
    """All continuations of one source that begin with the same token.

    Attributes:
        source: ``"text"`` or ``"datastore"``.
        matched: tokens of the match, 16 for more.
        pruned: whether they were dropped.
        right: whether the model took that token.
    """

    source: str
    matched: int
    pruned: bool
    right: bool


class RASD:
    """Another drafter's tree, merged with retrieved continuations.

    Args:
        options: see ``RASDOptions``; the caller resolves the names in it.
        drafter: the inner drafter, of this sequence.
        datastore: searched in addition to the text; may be empty.

    Attributes:
        branches: number of retrieved branches of each kind, which shows how often pruning dropped the right one.
    """

    name = "rasd"

    def __init__(self, options: RASDOptions, drafter: Drafter, datastore: Datastore) -> None:
        self.options = options
        self.branches: Counter[Branch] = Counter()
        self._drafter = drafter
        self._datastore = datastore
        self._automaton = SuffixAutomaton()
        self._undecided: list[tuple[Continuations, Continuations]] = []  # what was retrieved, and what was kept of it

    def start(self, context: Context) -> None:
        """Read the prompt."""
        self._automaton = SuffixAutomaton()
        self._drafter.start(context)

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A tree of at most ``min(budget, nodes + 1)`` nodes."""
        budget = min(budget, self.options.nodes + 1)
        retrieved = self._retrieve(context.tokens)
        reserved = min(self.options.retrieved_nodes, sum(source.rows.size for source in retrieved))
        draft = self._drafter.propose(context, max(1, budget - reserved))
        kept = self._prune(retrieved)
        return fuse(draft, most_frequent(context.tokens[-1], kept, self.options.retrieved_nodes), budget)

    def _retrieve(self, tokens: Sequence[int]) -> list[Continuations]:
        for position in range(len(self._automaton), len(tokens)):
            self._automaton.extend(tokens[position])
        length, found = self.options.continuation, []
        matched, end = self._automaton.match()
        if matched >= SHORTEST_MATCH:
            period = len(tokens) - end  # a continuation that reaches the end of the text continues from its own start
            row = [tokens[end + i % period] for i in range(length)]
            found.append(Continuations.of("text", matched, np.array([row], dtype=np.int32)))
        matched, rows = self._datastore.retrieve(tokens, length)
        if matched:
            found.append(Continuations.of("datastore", matched, rows))
        return found

    def _prune(self, retrieved: Sequence[Continuations]) -> list[Continuations]:
        k, trusted = self.options.prune_top_k, self.options.trusted_match
        ranking = self._drafter.first_ranking(k) if k and isinstance(self._drafter, RanksFirst) else None
        kept = []
        for source in retrieved:
            trust = trusted is not None and source.matched >= trusted
            kept.append(source if ranking is None or trust else source.only(ranking))
        self._undecided = list(zip(retrieved, kept, strict=True))
        return kept

    def close(self) -> None:
        """Close the inner drafter, if it works in the background."""
        if isinstance(self._drafter, Closing):
            self._drafter.close()

    def observe(self, step: Step) -> None:
        """Count which branches were right; the inner drafter learns from all scored nodes."""
        token = step.emitted[0]
        for source, kept in self._undecided:
            matched = min(source.matched, LONGEST_MATCH)
            for pruned, right in itertools.product((False, True), repeat=2):
                branch = Branch(source.source, matched, pruned, right)
                firsts = np.setdiff1d(source.firsts, kept.firsts) if pruned else kept.firsts
                self.branches[branch] += int(np.count_nonzero((firsts == token) == right))
        self._drafter.observe(step)


def _build(resources: Resources, options: RASDOptions) -> RASD:
    inner = options.drafter or ("draft_model" if resources.assistant is not None else "token_recycling")
    # One object for all sequences, so that the files are mapped once.
    store: Datastore
    if options.datastore is None:
        store = resources.memory("rasd", Datastore)
    else:
        store = resources.memory(f"rasd:datastore={options.datastore}", Datastore)
        if store.path is None:  # it is new, or all memories were reset; the options still name it
            store.load(Path(options.datastore))
    store.check(resources.model.vocab_size, resources.vocabulary() if len(store) else "")
    return RASD(options, resources.build(inner, DRAFTER), store)


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Merges continuations retrieved from the text and a datastore into another drafter's tree.",
    paper="RASD: Retrieval-Augmented Speculative Decoding (2025)",
    options=RASDOptions,
    build=_build,
    draws=True,
    memory="a datastore of texts",
)
