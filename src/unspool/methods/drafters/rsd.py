"""Recursive speculative decoding: "Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without
Replacement" (2024). A draft model samples a tree in which all siblings differ, so no node is wasted on a repetition.

Two trees. ``beam`` (RSD-S) is the paper's better one: stochastic beam search keeps the ``num_beams`` prefixes of each
level with the largest perturbed log-probabilities, so nodes go where the draft model is confident; prefixes without a
kept child stay in the tree as leaves. ``constant`` (RSD-C) gives every node of a level the same number of children.
Each level takes one pass of the draft model.

What it changes about plain decoding: one pass of the target yields several of its tokens. Guarantee: the same
distribution under the lossless rule, which tests siblings in the order in which they were drawn and removes each
rejected one from the draft's distribution (recursive rejection sampling); identical under the greedy and the same-noise
rule.

Choices where the paper leaves one: drafts are drawn at the target's temperature. Default sizes are unspool's: the paper
compares trees of 6 to 30 nodes and names no best one. Under the same-noise rule the noise of a node is that of its
position; at temperature 0 there is none, and the two trees are beam search and the top tokens of each node.

If the budget is too small for the tree, the beam loses whole levels, and the constant tree loses children at the level
that does not fit. Left out: top-p for the draft.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, LanguageModel, Step
from unspool.engine.method import DRAFTER, Method, Needs
from unspool.engine.option import Options, option
from unspool.engine.stochastic_beam import Beam
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.errors import UnspoolError
from unspool.methods.drafters._assisted import assisted


@dataclass(frozen=True)
class RSDOptions(Options):
    """Options of ``rsd``.

    Attributes:
        tree: "beam" (RSD-S, stochastic beam search) or "constant" (RSD-C, constant branching).
        num_beams: nodes of each level of the beam tree, at least 1.
        draft_length: levels of the beam tree, at least 1; it has ``num_beams`` times as many nodes.
        branching: children of each node of the constant tree, level by level; at least 1 each.
    """

    tree: Literal["beam", "constant"] = "beam"
    num_beams: int = option(4, least=1)
    draft_length: int = option(3, least=1)
    branching: tuple[int, ...] = (2, 2, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.branching or min(self.branching) < 1:
            raise UnspoolError(f"branching needs one number of at least 1 for each level, not {self.branching}")


class RSD:
    """A tree drawn without replacement from a draft model.

    Args:
        model: the draft model.
        vocab_size: of the target.
    """

    name = "rsd"

    def __init__(self, options: RSDOptions, model: LanguageModel, vocab_size: int) -> None:
        self.options = options
        self._assistant = Assistant(model, vocab_size)
        self._vocab_size = vocab_size

    def start(self, context: Context) -> None:
        """Does nothing: the draft model reads the prompt with the first draft."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        """A tree whose shape is fitted into ``budget`` before anything is drawn, because drawn tokens must stay."""
        builder = TreeBuilder(context.tokens[-1])
        levels = self._assistant.levels(context.tokens)
        if budget > 1 and levels > 0:
            self._assistant.follow(context.tokens)
            draws = Draws(context, self._vocab_size)
            if self.options.tree == "beam":
                self._beam(builder, draws, budget - 1, levels)
            else:
                self._constant(builder, draws, budget - 1, levels)
        return builder.build()

    def _constant(self, builder: TreeBuilder, draws: Draws, nodes: int, levels: int) -> None:
        level = [0]
        for depth, branching in enumerate(self.options.branching[:levels]):
            count = min(branching, (nodes + 1 - len(builder)) // len(level))
            if not count:
                return
            rows = self._assistant.score(builder.build(), level)
            below = []
            for parent, logits in zip(level, rows, strict=True):
                tokens, distribution = draws.siblings(logits, depth, count)
                draft = builder.drawn_from(distribution)
                below += [builder.add(parent, int(token), self.name, draft=draft) for token in tokens]
            level = below

    def _beam(self, builder: TreeBuilder, draws: Draws, nodes: int, levels: int) -> None:
        width = min(self.options.num_beams, nodes)
        beam, level = Beam(), [0]
        for depth in range(min(self.options.draft_length, nodes // width, levels)):
            rows = self._assistant.score(builder.build(), level)
            logprobs = [draws.logprobs(logits) for logits in rows]
            noise = [None if draws.greedy else draws.noise(depth) for _ in level]
            beam = beam.expanded(logprobs, noise, width)
            parents, tokens = beam.parents.tolist(), beam.tokens.tolist()
            drafts = {i: builder.drawn_from(draws.distribution(logprobs[i])) for i in dict.fromkeys(parents)}
            # Best first, which among siblings is the order in which they were drawn.
            level = [
                builder.add(level[i], token, self.name, draft=drafts[i])
                for i, token in zip(parents, tokens, strict=True)
            ]

    def first_ranking(self, k: int) -> Sequence[int] | None:
        """The ``k`` ids that the draft model ranks highest for the token after the text; None if it did not run."""
        return self._assistant.first_ranking(k)

    def observe(self, step: Step) -> None:
        """Does nothing: the next draft starts from the longest prefix that the committed text shares with the last."""


METHOD = Method(
    kind=DRAFTER,
    guarantee="identical",
    summary="Samples distinct siblings from a draft model, by stochastic beam search or with constant branching.",
    paper="Recursive Speculative Decoding: Accelerating LLM Inference via Sampling Without Replacement (2024)",
    options=RSDOptions,
    build=assisted(RSD),
    needs=Needs(assistant=True),
    draws=True,
)
