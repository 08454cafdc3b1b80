"""``extract``: the most probable span of a passage, exactly. How Optimal is Greedy Decoding for Extractive Question
Answering? (2022).

Plain decoding writes one token after the other and may leave the passage. Here the answer is one of the passage's
spans: the one that the unconstrained model would most probably write and then end. Every span is a prefix of a suffix,
so scoring all suffixes as continuations of the prompt gives the score of every span. Shared beginnings of suffixes are
scored once (a trie, scored in passes over token trees). With ``l(i, k)`` the log-probability of token ``k`` of the
suffix at ``i``, ``L(i, m)`` the sum of the first ``m`` of them and ``e(i, m)`` that of an end after them, the score is
``L(i, m) + e(i, m)``. Without ``e`` the best span would always be a single token.

Best-first gives the same answer at a lower cost: ``L`` only falls along a suffix, so it bounds every longer span, and
spans that cannot reach the best complete ones are not scored (A* without a heuristic).

Guarantee: equal to scoring every span by itself, up to the rounding of the model's passes.

Choices: the end is a set of tokens, any of which counts; a span contains none of them, since writing would have ended
there. Spans of equal text count once, with the score of their most probable tokenisation. Of equal scores the earliest
start wins, then the shortest. The paper's normalised score is ``length_penalty`` 1; here the end is predicted and a
begin marker is not, so ``m + 1`` tokens count.

Left out: encoder-decoder models, and with them the splitting of passages into windows, which a decoder-only model with
its longer context does not need.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from unspool.engine import numeric
from unspool.engine.autoregressive import MAX_TREE_NODES, extend
from unspool.engine.contracts import LanguageModel, Logits
from unspool.engine.method import SPAN, Example, Method
from unspool.engine.tree import TreeBuilder
from unspool.engine.turns import turn
from unspool.errors import UnspoolError
from unspool.methods.search.extract.span import ExtractOptions, Found, Suffix
from unspool.methods.search.extract.trie import Best, BestFirst, Everything, Frontier, Node

_NARROW = 32
"""Nodes of a best-first pass: few, so that little is scored that a better bound would have pruned."""


def search(
    model: LanguageModel,
    prompt: Sequence[int],
    passage: Sequence[int] | str,
    candidates: Sequence[Suffix],
    end_token_ids: Collection[int],
    options: ExtractOptions | None = None,
) -> Found:
    """The best of all spans that begin where a candidate does and end at one of its ends.

    Args:
        model: scores the spans.
        prompt: ids that the answer follows, at least one.
        passage: what ``start`` and ``end`` index; spans of equal content count once.
        candidates: the suffixes, see ``suffixes``; they may write the same place in several ways.
        end_token_ids: the ids that end an answer, at least one.
        options: see ``ExtractOptions``.

    Raises:
        UnspoolError: if there is no span, prompt or end, if they do not fit the model, or if its logits are not
            finite.
    """
    options = options or ExtractOptions()
    ends = np.array(sorted(set(end_token_ids)), dtype=np.int64)
    if not prompt:
        raise UnspoolError("the prompt is empty; give some text")
    if not len(ends) or not 0 <= ends[0] <= ends[-1] < model.vocab_size:
        raise UnspoolError(f"end_token_ids must be ids from 0 to {model.vocab_size - 1}, at least one")
    cut = [_cut(suffix, options.max_span_tokens, set(ends.tolist())) for suffix in candidates]
    cut = sorted((suffix for suffix in cut if suffix.tokens), key=lambda suffix: suffix.start)
    if not cut:
        raise UnspoolError("the passage has no span to answer with; give a longer passage or raise max_span_tokens")
    length = len(prompt) + max(len(suffix.tokens) for suffix in cut)
    if length > model.max_length:
        raise UnspoolError(
            f"the prompt and the longest span have {length} tokens, but the model's context has {model.max_length}; "
            "shorten the passage or lower max_span_tokens"
        )
    return _Search(model, prompt, passage, ends, options).run(Node(None, 0, cut))


def _cut(suffix: Suffix, length: int, ends: set[int]) -> Suffix:
    """The part of a suffix that spans may contain: up to its last end, and no token that ends an answer."""
    stop = next((k for k, token in enumerate(suffix.tokens[:length]) if token in ends), length)
    stop = max((k for k, end in enumerate(suffix.ends[:stop], 1) if end is not None), default=0)
    return Suffix(suffix.start, suffix.tokens[:stop], suffix.ends[:stop])


class _Search:
    """One search: fills passes from a frontier and reads their logits."""

    def __init__(
        self,
        model: LanguageModel,
        prompt: Sequence[int],
        passage: Sequence[int] | str,
        ends: NDArray[np.int64],
        options: ExtractOptions,
    ) -> None:
        widest = min(max(model.widths, default=MAX_TREE_NODES), MAX_TREE_NODES)
        self._width = options.pass_nodes or (_NARROW if options.best_first else widest)
        self._best_first = options.best_first
        self._model = model
        self._prompt = prompt
        self._ends = ends
        self._best = Best(passage, options)

    def run(self, root: Node) -> Found:
        frontier: Frontier = BestFirst(root, self._best) if self._best_first else Everything(root)
        session = self._model.open()
        passes = nodes = 0
        try:
            with turn(self._model):
                extend(session, self._prompt[:-1])
            while frontier.peek() is not None:
                tree, wanted = self._fill(frontier)
                with turn(self._model):
                    scores = session.score(tree.build(), tuple(wanted))
                    for node, row in zip(wanted.values(), scores.logits, strict=True):
                        self._read(node, row)
                for node in wanted.values():
                    frontier.scored(node)
                passes += 1
                nodes += len(tree)
        finally:
            session.close()
        if not (spans := self._best.spans()):
            raise UnspoolError("the model gives every span of the passage a probability of 0; rephrase the question")
        return Found(spans, passes, nodes)

    def _fill(self, frontier: Frontier) -> tuple[TreeBuilder, dict[int, Node]]:
        """The tree of a pass, and the nodes whose logits are needed by their index in it, ascending."""
        tree = TreeBuilder(self._prompt[-1])
        wanted: dict[int, Node] = {}
        while (node := frontier.peek()) is not None:
            tokens, at, known = node.tokens, 0, 0
            while known < len(tokens) and (child := tree.child(at, tokens[known])) is not None:
                at, known = child, known + 1
            if wanted and len(tree) + len(tokens) - known > self._width:
                break
            for token in tokens[known:]:
                at = tree.add(at, token, "extract")
            wanted[at] = node
            frontier.pop()
        return tree, wanted

    def _read(self, node: Node, row: Logits) -> None:
        norm = numeric.log_sum_exp(row)
        if not math.isfinite(norm):
            raise UnspoolError("the logits contain NaN or infinity; try other weights")
        for token, child in node.children.items():
            child.logprob = float(row[token]) - norm
            child.total = node.total + child.logprob
        if node.depth:
            ends = row[self._ends]
            # At most 0: two sums that round differently could exceed it.
            end = min(0.0, numeric.log_sum_exp(ends) - norm) if ends.max() > -np.inf else -math.inf
            self._best.offer(node, end)


METHOD = Method(
    kind=SPAN,
    guarantee="valid",
    summary="Answers with the most probable span of a passage, found exactly.",
    paper="How Optimal is Greedy Decoding for Extractive Question Answering? (2022)",
    options=ExtractOptions,
    build=lambda _, options: partial(search, options=options),
    example=Example(
        'unspool extract -q "Who found it?" "The comet was found by Caroline Herschel in 1786."',
        """
        import unspool

        model = unspool.load()
        passage = "The comet was found by Caroline Herschel in 1786."
        print(model.extract("Who found it?", passage).text)
        """,
    ),
)
