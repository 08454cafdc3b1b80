"""Helpers for drafters: a prompt decoded by a drafter, and tokens per pass."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from unspool import methods
from unspool.decoding.model import Model
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Drafter, Step
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import summarise
from unspool.engine.trace import StepEvent
from unspool.engine.tree import TokenTree
from unspool.reproduce.experiment import Expect, Figure, Row, Table
from unspool.reproduce.statistics import ratio, ratio_of_ratios
from unspool.suites.prompts import Prompt


def decode_with(
    model: Model,
    drafter: Drafter | str,
    prompt: Prompt,
    max_new_tokens: int,
    temperature: float = 0.0,
    acceptance: str | None = None,
    seed: int = 0,
    chat: bool | None = None,
) -> Row:
    """Decode one prompt.

    Args:
        drafter: a spec, or a drafter of the experiment's own.
        chat: see ``Model.encode``.

    Returns:
        ``prompt``, ``tokens``, ``last`` (tokens of the last pass, which the end of the text cuts), ``passes``,
        ``nodes`` (scored, roots included), and ``digest`` of the token ids.
    """
    resources = model.resources()
    built = methods.build(drafter, DRAFTER, resources) if isinstance(drafter, str) else drafter
    options = GenerationOptions(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    request = Request(
        model.encode(prompt.text, chat),
        built,
        methods.acceptance_rule(acceptance, options.greedy, resources),
        options,
        eos=model.eos_token_ids,
        assistants=(model.assistant.language_model,) if model.assistant else (),
    )
    events = list(decode(model.language_model, [request]))
    emitted = [event.emitted for event in events if isinstance(event, StepEvent)]
    ids = [token for tokens in emitted for token in tokens]
    figures = summarise(events)
    return {
        "prompt": prompt.id,
        "category": prompt.category,
        "tokens": figures.tokens,
        "last": len(emitted[-1]),
        "passes": figures.passes,
        "nodes": figures.nodes,
        "digest": hashlib.sha256(repr(ids).encode()).hexdigest()[:16],
    }


IDENTICAL = Expect("texts identical to plain decoding's", at_least=1)
"""A requirement of every experiment whose variants promise plain decoding's text; the figure is ``identical``."""


def identical(variants: Mapping[str, Sequence[Row]]) -> Figure:
    """Share of texts that are plain decoding's, whose rows are the variant ``plain``; exact, without an interval."""
    plain = {row["prompt"]: row["digest"] for row in variants[methods.PLAIN]}
    same = [row["digest"] == plain[row["prompt"]] for rows in variants.values() for row in rows]
    return Figure(sum(same) / len(same), count=len(same))


def accepted(rows: Sequence[Row]) -> Figure:
    """Tokens a pass, over all rows."""
    return ratio([row["tokens"] for row in rows], [row["passes"] for row in rows])


def gain(ours: Sequence[Row], theirs: Sequence[Row]) -> Figure:
    """Tokens a pass of ``ours`` divided by that of ``theirs``, paired by prompt.

    Raises:
        ValueError: if the rows are not of the same prompts in the same order.
    """
    if [row["prompt"] for row in ours] != [row["prompt"] for row in theirs]:
        raise ValueError("the rows are not of the same prompts")
    return ratio_of_ratios(*([row[name] for row in rows] for rows in (ours, theirs) for name in ("tokens", "passes")))


def by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by their ``variant``, in the order in which they come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["variant"], []).append(row)
    return found


def table(variants: Mapping[str, Sequence[Row]], title: str = "") -> Table:
    """Tokens a pass and nodes a pass of each variant."""
    return Table(
        title,
        ("variant", "tokens/pass", "95 %", "nodes/pass"),
        [
            (
                name,
                f"{(figure := accepted(rows)).value:.2f}",
                f"{figure.low or 0:.2f}-{figure.high or 0:.2f}",
                f"{sum(row['nodes'] for row in rows) / max(1, sum(row['passes'] for row in rows)):.1f}",
            )
            for name, rows in variants.items()
        ],
    )


class RandomCopy:
    """A chain that continues a random earlier place of the text: the value of copying without a match."""

    name = "random"

    def __init__(self, length: int, rng: np.random.Generator) -> None:
        self._length = length
        self._rng = rng

    def start(self, context: Context) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        tokens = context.tokens
        begin = int(self._rng.integers(len(tokens)))
        return TokenTree.chain([tokens[-1], *tokens[begin : begin + min(self._length, budget - 1)]], self.name)

    def observe(self, step: Step) -> None: ...
