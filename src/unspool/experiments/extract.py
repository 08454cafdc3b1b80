"""Exact extraction: is the most probable span a better answer than greedy decoding's, and what does finding it cost?

Passages are docstrings of numpy and the metadata of installed packages. Variants: ``greedy``, plain decoding until an
end token; ``masked``, the same, but only tokens that continue a span may follow; ``exact``; and ``normalised``, which
ranks spans by the mean log-probability of a token. Spans of greedy and masked are scored in passes of other shapes than
exact's, hence a tolerance. ``nodes`` are the tokens that the model evaluated after the prompt, ``all`` those that
reading every span once would take.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from unspool.decoding.extract import extract, line_ends, word_suffixes
from unspool.decoding.model import Model
from unspool.engine.autoregressive import extend
from unspool.engine.tree import TokenTree
from unspool.experiments._drafting import by_variant
from unspool.experiments._package_questions import Question, f1, questions, words
from unspool.methods.search.extract import search
from unspool.methods.search.extract.span import Suffix
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, ratio, share

GREEDY, MASKED, OURS, NORMALISED = "greedy", "masked", "exact", "normalised"
TOLERANCE = 1e-2
"""Nats."""


def cases(setup: Setup) -> list[Case]:
    """A case is a question in all variants."""
    longest = setup.pick(32, 8)
    found = questions(setup.count)

    def measure(question: Question) -> list[Row]:
        return answers(setup.language_model(), question, longest)

    return [Case(f"question {i}", partial(measure, question)) for i, question in enumerate(found)]


def answers(model: Model, question: Question, longest: int) -> list[Row]:
    """One row a variant.

    Args:
        longest: tokens of a span.
    """
    ends = model.eos_token_ids | line_ends(model.tokenizer)
    find = partial(extract, model, question.text, question.passage, max_span_tokens=longest, end_token_ids=ends)
    exact, by_mean = find(), find(length_penalty=1.0)
    prompt, spans = exact.prompt_token_ids, word_suffixes(model.tokenizer, question.passage, longest)

    def logprob(ids: Sequence[int]) -> float:
        """Of the ids and an end after them."""
        alone = [Suffix(0, tuple(ids), (*(None for _ in ids[1:]), 1))]
        return search(model.language_model, prompt, "?", alone, ends).spans[0].logprob

    said = model.generate(list(prompt), method="plain", max_new_tokens=longest + 1, eos_token_id=sorted(ends))
    free = [token for token in said.token_ids if token not in ends]
    ended = said.finish_reason == "stop" and bool(free)
    known = any(s.tokens[: len(free)] == tuple(free) and s.ends[len(free) - 1] is not None for s in spans if free)
    bound, inside = _masked(model, prompt, spans, ends, question.passage)
    found: dict[str, tuple[str, float | None, bool]] = {
        GREEDY: (_flat(model.tokenizer.decode(free)), logprob(free) if ended else None, ended and known),
        MASKED: (inside, logprob(bound), True),
        OURS: (_flat(exact.text), exact.spans[0].logprob, True),
        NORMALISED: (_flat(by_mean.text), by_mean.spans[0].logprob, True),
    }
    nodes = {OURS: exact.nodes, NORMALISED: by_mean.nodes}
    trie = len({suffix.tokens[:n] for suffix in spans for n in range(1, len(suffix.tokens) + 1)})
    return [
        {
            "variant": variant,
            "span": bool(text) and text in _flat(question.passage),
            "candidate": candidate,
            "logprob": None if score is None else round(score, 4),
            "f1": round(f1(text, question.answer), 4),
            "exact match": words(text) == words(question.answer),
            "nodes": nodes.get(variant),
            "all": trie,
        }
        for variant, (text, score, candidate) in found.items()
    ]


def _masked(
    model: Model, prompt: Sequence[int], spans: Sequence[Suffix], ends: frozenset[int], passage: str
) -> tuple[list[int], str]:
    """The most likely token at each step among those that continue a span, or end it where it may end."""
    session = model.language_model.open()
    extend(session, prompt[:-1])
    ids: list[int] = []
    going = list(spans)
    while True:
        row = session.score(TokenTree.chain([[*prompt, *ids][-1]])).logits[0]
        session.commit([0])
        depth = len(ids)
        allowed = {s.tokens[depth] for s in going if len(s.tokens) > depth} - ends
        finished = [s for s in going if depth and s.ends[depth - 1] is not None]
        if finished:
            allowed |= ends
        token = max(sorted(allowed), key=lambda t: row[t])
        if token in ends:
            break
        ids.append(token)
        going = [s for s in going if len(s.tokens) > depth and s.tokens[depth] == token]
    session.close()
    return ids, _flat(passage[finished[0].start : finished[0].ends[depth - 1]])


def _flat(text: str) -> str:
    return " ".join(text.split())


def summarise(rows: Sequence[Row]) -> Summary:
    """Differences paired by question."""
    by = by_variant(rows)
    best = [row["logprob"] for row in by[OURS]]
    beaten = sum(
        row["candidate"] and row["logprob"] is not None and row["logprob"] > top + TOLERANCE
        for variant in (GREEDY, MASKED)
        for row, top in zip(by[variant], best, strict=True)
    )
    scores = {variant: [row["f1"] for row in found] for variant, found in by.items()}
    figures = {
        "spans more probable than exact's": Figure(float(beaten), count=len(best)),
        "answers that are spans, greedy": share([row["span"] for row in by[GREEDY]]),
        "F1, exact less greedy": difference(scores[OURS], scores[GREEDY]),
        "F1, exact less masked": difference(scores[OURS], scores[MASKED]),
        "F1, normalised less exact": difference(scores[NORMALISED], scores[OURS]),
        "nodes evaluated / all spans": ratio([row["nodes"] for row in by[OURS]], [row["all"] for row in by[OURS]]),
    }
    drawn = []
    for variant, found in by.items():
        ended = [row["logprob"] for row in found if row["logprob"] is not None]
        means = [sum(row[name] for row in found) / len(found) for name in ("span", "f1", "exact match")]
        drawn.append((variant, *(f"{mean:.3f}" for mean in means), f"{sum(ended) / max(1, len(ended)):.2f}"))
    return Summary(figures, [Table("", ("answers", "spans", "F1", "exact match", "log-probability"), drawn)])


EXPERIMENT = Experiment(
    methods=("extract",),
    claim="Greedy decoding often leaves the passage or misses its most probable span; the exactly most probable span "
    "is a better zero-shot answer.",
    control="greedy decoding; greedy decoding of which every token is masked to spans; spans ranked by their mean "
    "log-probability",
    test="questions about docstrings of numpy and metadata of packages, spans of up to 32 tokens",
    cases=cases,
    summarise=summarise,
    requires=[Expect("spans more probable than exact's", at_most=0)],
    expects=[
        Expect("answers that are spans, greedy", at_most=0.8, cases=100),
        Expect("F1, exact less greedy", at_least=0.02, cases=100),
        Expect("F1, exact less masked", at_least=0, cases=100),
        Expect("nodes evaluated / all spans", at_most=0.1),
    ],
    count=200,
    minutes=30,
)
