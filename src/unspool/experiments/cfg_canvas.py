"""A context-free grammar on a canvas: is every text valid, how does accuracy change, and how many passes are added?

Two tasks of the long canvas. JSON, judged by Python's ``json``; and functions with two holes, each two tokens longer
than what was there, as in no function that the model was trained on, judged by ``ast``. The grammars say what JSON and
a function of simple statements are, and nothing of the question. The control without a grammar may draw four times: its
first valid text counts. An answer with holes of another length has no right answer to compare with, so right answers
are those of JSON.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from unspool.decoding.canvas import DiffusionModel
from unspool.experiments import _canvas as canvas
from unspool.experiments import _canvas_compare as compare
from unspool.recipes.tiny_diffusion.tasks import Example, Symbols, held_out
from unspool.reproduce.experiment import Case, Expect, Experiment, Figure, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, ratio

JSON = r"""
start: object
object: "{" (pair ("," pair)*)? "}"
pair: STRING ":" value
value: object | array | NUMBER | STRING
array: "[" (value ("," value)*)? "]"
STRING: /"[a-z]+"/
NUMBER: /0|[1-9][0-9]*/
"""
PYTHON = r"""
start: "def " NAME "(" NAME "," NAME "):" line+
line: "\n    " (NAME "=" sum | "return " sum)
sum: term (("+" | "-" | "*") term)*
term: NAME | NUMBER
NAME: /[a-z][a-z0-9]*/
NUMBER: /0|[1-9][0-9]*/
"""
POLICIES = ("top_k:tokens_per_step=8,order=random", "threshold:threshold=0.5")
GRAMMAR, FREE, DRAWS = "grammar", "free", "four draws"
TEMPERATURE = 0.5
"""Of the four draws; the others are greedy."""


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def with_holes(answer: Symbols) -> list[str | int]:
    """The sums of the first two statements of a function, three symbols each, become holes of five.

    At least eight slots follow, as many as make whole blocks of eight.
    """
    first, second, *_ = (i + 1 for i, symbol in enumerate(answer) if symbol == "=")
    before, between, after = ("".join(p) for p in (answer[:first], answer[first + 3 : second], answer[second + 3 :]))
    return [before, 5, between, 5, after, 8 + -(len(answer) + 4) % 8]


@dataclass(frozen=True)
class Text:
    """A kind of text.

    Attributes:
        task: whose questions are asked.
        given: what is on the canvas, from the right answer; None: nothing.
    """

    name: str
    task: str
    grammar: str
    valid: Callable[[str], bool]
    given: Callable[[Symbols], list[str | int]] | None = None


TEXTS = (Text("JSON", "json", JSON, is_json), Text("holes", "program", PYTHON, is_python, with_holes))


def cases(setup: Setup) -> list[Case]:
    def measure(text: Text, policy: str, variant: str) -> list[Row]:
        model = setup.diffusion_model()
        every, (task,) = canvas.tasks_of(model, [text.task])
        valid, right, passes = "", "", []
        for example in held_out(task, setup.count):
            result, cost = _decoded(model, every.prompt_ids(example.prompt), example, text, policy, variant)
            valid += "01"[text.valid(result.text)]
            right += "01"[task.right(example, every.answer_of(result.token_ids))]
            passes.append(str(cost))
        found = {"valid": valid, "right": right, "passes": " ".join(passes)}
        return [{"text": text.name, "policy": policy, "variant": variant, **found}]

    return [
        Case(f"{text.name}, {policy}, {variant}", partial(measure, text, policy, variant))
        for text in TEXTS
        for policy in setup.pick(POLICIES, POLICIES[1:])
        for variant in (FREE, GRAMMAR, DRAWS)
    ]


def _decoded(
    model: DiffusionModel, prompt: Sequence[int], example: Example, text: Text, policy: str, variant: str
) -> tuple[Any, int]:
    """The result, and the passes of all draws."""
    options: dict[str, Any] = {"method": policy, "canvas": text.given(example.answer) if text.given else None}
    if variant != DRAWS:
        result = model.generate(prompt, **options, grammar=text.grammar if variant == GRAMMAR else None)
        return result, result.statistics.passes
    passes = 0
    for seed in range(4):
        result = model.generate(prompt, **options, temperature=TEMPERATURE, seed=seed)
        passes += result.statistics.passes
        if text.valid(result.text):
            break
    return result, passes


def summarise(rows: Sequence[Row]) -> Summary:
    """Every figure is paired by question; a question's value is the mean over policies."""

    def values(row: Row, name: str) -> list[float]:
        return [float(value) for value in (row[name].split() if name == "passes" else row[name])]

    def of(text: str, variant: str, name: str) -> list[float]:
        own = [values(row, name) for row in rows if (row["text"], row["variant"]) == (text, variant)]
        return [fmean(policies) for policies in zip(*own, strict=True)]

    bound = [value for row in rows if row["variant"] == GRAMMAR for value in values(row, "valid")]
    figures = {"valid with the grammar": Figure(fmean(bound), count=len(bound))}
    for text in TEXTS:
        ours, free, draws = (of(text.name, variant, "valid") for variant in (GRAMMAR, FREE, DRAWS))
        figures[f"valid, {text.name}, {GRAMMAR} less {FREE}"] = difference(ours, free)
        figures[f"valid, {text.name}, {GRAMMAR} less {DRAWS}"] = difference(ours, draws)
        passes = (of(text.name, variant, "passes") for variant in (GRAMMAR, FREE))
        figures[f"passes, {text.name}, {GRAMMAR} / {FREE}"] = ratio(*passes)
    for variant in (FREE, DRAWS):
        figures[f"right, JSON, {GRAMMAR} less {variant}"] = difference(
            of("JSON", GRAMMAR, "right"), of("JSON", variant, "right")
        )
    table = [
        (
            f"{row['text']}, {row['policy']}, {row['variant']}",
            *(f"{100 * fmean(values(row, what)):.1f}" for what in ("valid", "right")),
            f"{fmean(values(row, 'passes')):.1f}",
        )
        for row in rows
    ]
    return Summary(figures, [Table("", ("text, policy, variant", "valid, %", "right, %", "passes"), table)])


EXPERIMENT = Experiment(
    paper="Constrained Decoding of Diffusion LLMs with Context-Free Grammars (2025)",
    claim="A token is committed only if the canvas can still be completed: every text is valid, more answers are "
    "right, and decoding costs less than twice as much.",
    control="no grammar, greedy; and up to four draws without one, of which the first valid text counts",
    test="JSON, and functions with holes of a length that the model never saw, under two policies; cost in passes",
    cases=cases,
    summarise=summarise,
    requires=[Expect("valid with the grammar", at_least=1)],
    expects=[
        Expect("valid, JSON, grammar less free", at_least=0.02, cases=compare.CASES),
        Expect("valid, JSON, grammar less four draws", at_least=0.01, cases=compare.CASES),
        Expect("valid, holes, grammar less four draws", at_least=0.1, cases=compare.CASES),
        Expect("right, JSON, grammar less free", at_least=0.01, cases=compare.CASES),
        Expect("passes, JSON, grammar / free", at_most=2, cases=compare.CASES),
        Expect("passes, holes, grammar / free", at_most=2, cases=compare.CASES),
    ],
    model=canvas.LONG_MODEL,
    quick_model=canvas.LONG_MODEL,
    count=200,
    minutes=10,
)
