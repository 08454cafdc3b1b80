"""How good is greedy decoding for answers that are copied? ``extract`` against it on the documentation of packages.

Passages are docstrings of numpy and the metadata of installed packages, questions are made by rule (the type of a
parameter, what is returned, licence, author, ...), so that the right span is known. Of each answer: its
log-probability as the model's own text with an end behind it, whether it is a span of the passage, token F1 and exact
match as in SQuAD.

- greedy: plain decoding until an end token. masked: the same, but only tokens that continue a span may follow.
- exact: ``extract``. normalised: ``extract`` by the mean log-probability of a token.

Nothing that is a span can have a higher log-probability than exact; where something has, the script says so and exits
with 1. Spans of greedy and masked are scored in passes of other shapes, hence a tolerance.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
from extract_questions import cases, f1, words

from unspool.bench.about import about
from unspool.decoding.extract import line_ends, word_suffixes
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.autoregressive import extend
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError
from unspool.methods.search.extract import search
from unspool.methods.search.extract.span import ExtractOptions, Suffix

TOLERANCE = 1e-2


@dataclass
class Answer:
    text: str
    logprob: float | None
    span: bool


class Scorer:
    """The model with one set of ends for everything."""

    def __init__(self, model: Model, length: int) -> None:
        self.model = model
        self.length = length
        self.ends = model.eos_token_ids | line_ends(model.tokenizer)

    def logprob(self, prompt: Sequence[int], ids: Sequence[int]) -> float:
        """Of the ids and an end behind them."""
        alone = [Suffix(0, tuple(ids), (*(None for _ in ids[1:]), 1))]
        return search(self.model.language_model, prompt, "?", alone, self.ends).spans[0].logprob

    def greedy(self, prompt: Sequence[int], spans: Sequence[Suffix], passage: str) -> tuple[Answer, bool]:
        """The answer, and whether it is one of the candidates token by token."""
        result = self.model.generate(
            list(prompt), method="plain", max_new_tokens=self.length + 1, eos_token_id=sorted(self.ends)
        )
        ids = [token for token in result.token_ids if token not in self.ends]
        text = " ".join(self.model.tokenizer.decode(ids).split())
        ended = result.finish_reason == "stop" and bool(ids)
        known = any(s.tokens[: len(ids)] == tuple(ids) and s.ends[len(ids) - 1] is not None for s in spans if ids)
        answer = Answer(text, self.logprob(prompt, ids) if ended else None, bool(text) and text in flat(passage))
        return answer, ended and known

    def masked(self, prompt: Sequence[int], spans: Sequence[Suffix], passage: str) -> Answer:
        """The likeliest token at each step among those that continue a span, or end it where it may end."""
        session = self.model.language_model.open()
        extend(session, prompt[:-1])
        ids: list[int] = []
        open_spans = list(spans)
        while True:
            row = session.score(TokenTree.chain([[*prompt, *ids][-1]])).logits[0]
            session.commit([0])
            depth = len(ids)
            allowed = {s.tokens[depth] for s in open_spans if len(s.tokens) > depth} - self.ends
            finished = [s for s in open_spans if depth and s.ends[depth - 1] is not None]
            if finished:
                allowed |= self.ends
            token = max(sorted(allowed), key=lambda t: row[t])
            if token in self.ends:
                break
            ids.append(token)
            open_spans = [s for s in open_spans if len(s.tokens) > depth and s.tokens[depth] == token]
        session.close()
        text = passage[finished[0].start : finished[0].ends[depth - 1]]
        return Answer(flat(text), self.logprob(prompt, ids), True)


def flat(text: str) -> str:
    return " ".join(text.split())


def summary(rows: Sequence[dict[str, Any]], name: str) -> list[str]:
    """One line of the table."""
    answers = [row[name] for row in rows]
    logprobs = [a["logprob"] for a in answers if a["logprob"] is not None]
    return [
        name,
        f"{np.mean([a['span'] for a in answers]):.0%}",
        common.number(float(np.mean(logprobs)) if logprobs else None),
        f"{100 * np.mean([a['f1'] for a in answers]):.1f}",
        f"{np.mean([a['exact_match'] for a in answers]):.0%}",
        f"{np.mean([a['text'] == row['exact']['text'] for a, row in zip(answers, rows, strict=True)]):.0%}",
    ]


def gain(rows: Sequence[dict[str, Any]], name: str) -> str:
    """How much more probable exact is than the spans of another."""
    pairs = [(row["exact"]["logprob"], row[name]["logprob"]) for row in rows if row[name]["span"]]
    gains = [mine - theirs for mine, theirs in pairs if theirs is not None]
    better = [g for g in gains if g > TOLERANCE]
    mean = f", by {np.mean(better):.2f} nats on average" if better else ""
    return f"Exact is more probable than {name} in {len(better)} of {len(gains)} cases where that is a span{mean}."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="smollm2-135m", help="as `unspool generate -m`")
    parser.add_argument("--limit", type=int, default=40, help="questions, 40 by default")
    parser.add_argument("--longest", type=int, default=600, help="characters of a passage, 600 by default")
    parser.add_argument("--max-span-tokens", type=int, default=32, help="longest span, 32 by default")
    parser.add_argument("--seed", type=int, default=0, help="which questions, 0 by default")
    parser.add_argument("--full", action="store_true", help="read every span as well, to compare answers and cost")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    ExtractOptions(max_span_tokens=arguments.max_span_tokens)
    chosen = cases(arguments.longest, arguments.limit, arguments.seed)
    if not chosen:
        raise UnspoolError("there are no questions; raise --limit or --longest")
    setting = about()
    model = load(arguments.model, report=common.say)
    scorer = Scorer(model, arguments.max_span_tokens)
    rows: list[dict[str, Any]] = []
    wrong = 0
    for i, case in enumerate(chosen, 1):
        options = {"max_span_tokens": arguments.max_span_tokens, "end_token_ids": scorer.ends}
        found = model.extract(case.question, case.passage, **options)
        by_mean = model.extract(case.question, case.passage, length_penalty=1.0, **options)
        prompt, spans = found.prompt_token_ids, word_suffixes(model.tokenizer, case.passage, arguments.max_span_tokens)
        greedy, known = scorer.greedy(prompt, spans, case.passage)
        answers = {
            "greedy": greedy,
            "masked": scorer.masked(prompt, spans, case.passage),
            "exact": Answer(flat(found.text), found.spans[0].logprob, True),
            "normalised": Answer(flat(by_mean.text), by_mean.spans[0].logprob, True),
        }
        row: dict[str, Any] = {**vars(case), "tokens": len(prompt)}
        row["spans"] = sum(end is not None for suffix in spans for end in suffix.ends)
        row["cost"] = {
            "best first": [found.passes, found.nodes],
            "best first, normalised": [by_mean.passes, by_mean.nodes],
        }
        if arguments.full:
            whole = model.extract(case.question, case.passage, best_first=False, **options)
            row["cost"]["all spans"] = [whole.passes, whole.nodes]
            wrong += abs(whole.spans[0].logprob - found.spans[0].logprob) > TOLERANCE
        for name, answer in answers.items():
            measured = {"f1": f1(answer.text, case.answer), "exact_match": words(answer.text) == words(case.answer)}
            row[name] = vars(answer) | measured
            if answer.logprob is not None and (name != "greedy" or known):
                wrong += answer.logprob > found.spans[0].logprob + TOLERANCE
        rows.append(row)
        common.say(f"question {i} of {len(chosen)}")
    cost = {name: np.mean([row["cost"][name] for row in rows], axis=0) for name in rows[0]["cost"]}
    mean_spans = np.mean([row["spans"] for row in rows])
    columns = ["answers", "spans", "log-prob.", "F1", "exact match", "as exact"]
    parts = [
        "# Extraction",
        common.describe(setting),
        f"{model.language_model.settings['weights']} {model.name}, {len(rows)} questions, seed {arguments.seed}, spans "
        f"of up to {arguments.max_span_tokens} tokens, {mean_spans:.0f} spans a passage in both tokenisations. "
        f"Log-probabilities are means over answers that ended. Spans more probable than exact: {wrong}.",
        common.table(columns, [summary(rows, name) for name in ("greedy", "masked", "exact", "normalised")]),
        gain(rows, "greedy") + " " + gain(rows, "masked"),
        common.table(["cost", "passes", "nodes"], [[name, *(f"{x:.1f}" for x in mean)] for name, mean in cost.items()]),
    ]
    results = {
        **setting,
        "model": model.name,
        "options": {"seed": arguments.seed, "limit": arguments.limit},
        "rows": rows,
    }
    results["violations"] = wrong
    common.publish("\n\n".join(parts), results, arguments.markdown, arguments.json)
    return 1 if wrong else 0


if __name__ == "__main__":
    common.run(main)
