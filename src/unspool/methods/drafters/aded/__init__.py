"""Adaptive Draft-Verification for Efficient Large Language Model Decoding (2025): ADED, tree search in a trigram table.

A table gives the probability of each token after each pair of tokens. It is counted in a corpus or starts empty, and
the values of all trigrams in the newest text are raised. Before each pass a tree search (PUCT, as in AlphaZero) runs
through the table from the last two tokens; the prefixes that it visited most often are drafted.

The paper's table starts from a corpus; so does this one if ``corpus`` names one. Without it the table contains only
what was decoded with it, and results are labelled ``aded (no corpus)``.

What it changes about plain decoding: one pass yields several of its tokens. Guarantee: identical, whatever the table
contains; drafts are point masses, and the acceptance rule decides (the paper's own rule is biased when it samples).

Choices where the paper's code is arbitrary or at odds with its purpose:
- The score of a search sums the table's values along its path. The code looks up another token's value, mostly 0.
- Successors are tried in order of value, then of id (the code: in the order of a hash table).
- Excess drafts are cut by visits. The code drops its longest drafts first, until their tokens, shared ones counted
  again, are at most 64; with its 24 prefixes a tree has fewer than 64 nodes anyway.
- Trigrams learned from the text are bounded in number; the pair raised longest ago returns to its corpus values.

Left out: values never decay (nor do they in the paper), so frequent trigrams of a long run all reach the cap.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass

from unspool.engine.contracts import Context, Step
from unspool.engine.method import DRAFTER, Method
from unspool.engine.noise import draft_generator
from unspool.engine.option import Options, option
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.methods.drafters._datastore import Datastore
from unspool.methods.drafters.aded.search import LEVELS, Draft, Search
from unspool.methods.drafters.aded.table import TrigramTable
from unspool.methods.resources import Resources

_WINDOW = 16  # last tokens, whose trigrams are raised before each pass
_SHARES, _VALUES = 4, (0.1, 0.3, 1.0)  # of the buckets


@dataclass(frozen=True)
class AdedOptions(Options):
    """Defaults are those of the paper's code.

    Attributes:
        nodes: most drafted nodes of a tree, 1 to 64, without the root.
        iterations: of the search before each pass, at least 1. 150 take about 1 to 2 ms.
        increment: added to a trigram of the newest text, 0 to 3; 0: nothing is learned from the text.
        corpus: directory made by ``unspool datastore build``. Its trigrams are counted on first use, about a second per
            million tokens. None: the table is ``memories["aded"]``, which is empty at first.
    """

    nodes: int = option(64, least=1, most=64)
    iterations: int = option(150, least=1)
    increment: float = option(0.04, least=0, most=3)
    corpus: str | None = option(None, check=Datastore.open)

    @property
    def lacks(self) -> str:
        """What part of the paper's method is missing with these options."""
        return "no corpus" if self.corpus is None else ""


class Aded:
    """The prefixes that a tree search through a ``TrigramTable`` visits most.

    The bucket of a node is its share of its parent's visits in quarters and its value in the table.

    Args:
        options: see ``AdedOptions``.
        memory: the table to read and write.
        vocab_size: width of the model's row of logits.

    Raises:
        UnspoolError: if the table belongs to another vocabulary.
    """

    def __init__(self, options: AdedOptions, memory: TrigramTable, vocab_size: int) -> None:
        self.options = options
        self.memory = memory
        # A table passed by the user may have a corpus that the options do not name.
        self.name = "aded" if memory.has_corpus else f"aded ({AdedOptions().lacks})"
        memory.fit(vocab_size)

    def start(self, context: Context) -> None:
        """Does nothing: the end of the prompt is learned with the first draft."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A tree of at most ``min(budget, nodes + 1)`` nodes; only the root if the table has no successor."""
        tokens = context.tokens
        if self.options.increment:
            self.memory.reinforce(tokens[-_WINDOW:], self.options.increment)
        builder = TreeBuilder(tokens[-1])
        limit = min(budget, self.options.nodes + 1)
        if limit > 1 and len(tokens) > 1:
            place: dict[tuple[int, ...], int] = {(): 0}
            for path, share, value in self.drafts(context)[: limit - 1]:
                bucket = min(int(share * _SHARES), _SHARES - 1) * (len(_VALUES) + 1) + bisect(_VALUES, value)
                place[path] = builder.add(place[path[:-1]], path[-1], self.name, bucket)
        return builder.build()

    def drafts(self, context: Context) -> list[Draft]:
        """The drafts of a search after a text of at least two tokens, best first, parents before their children."""
        tokens, options = context.tokens, self.options
        uniform = draft_generator(context.seed, len(tokens)).random(options.iterations * LEVELS).tolist()
        search = Search(self.memory, (tokens[-2], tokens[-1]), iter(uniform))
        search.run(options.iterations)
        return search.drafts()

    def observe(self, step: Step) -> None:
        """Does nothing: the text is learned in ``propose``, as in the paper's code."""


def _build(resources: Resources, options: AdedOptions) -> Aded:
    table: TrigramTable
    if options.corpus is None:
        table = resources.memory("aded", TrigramTable)
    else:
        table = resources.memory(f"aded:corpus={options.corpus}", TrigramTable)
        if not table.has_corpus:  # it is new, or all memories were reset; the options still name the corpus
            store = Datastore.open(options.corpus)
            store.check(resources.model.vocab_size, resources.vocabulary())
            table.count(store.documents())
    return Aded(options, table, resources.model.vocab_size)


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary=("Drafts by tree search in a trigram table, which may start from a corpus and learns from the text."),
    paper="Adaptive Draft-Verification for Efficient Large Language Model Decoding (2025)",
    options=AdedOptions,
    build=_build,
    memory="a table of trigrams",
)
