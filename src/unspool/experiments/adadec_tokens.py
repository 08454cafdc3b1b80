"""AdaDec by token: does high entropy mark wrong first choices, and does the look-ahead choose the right one more often?

Bodies of functions of installed packages are read token by token; the true next token is known. Where the entropy
reaches the threshold, adadec's candidates are compared as in decoding, and the look-ahead's choice is compared with the
true token. ``elsewhere``: the same at as many other steps of the same function, drawn at random. A choice counts as
right only if it is the true token, so another name that would do as well counts as wrong in all variants alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from unspool.decoding.model import Model
from unspool.engine.frontier import Frontier
from unspool.engine.search import Distribution, Output, SearchRequest
from unspool.experiments.adadec import THRESHOLD
from unspool.methods.search import adadec
from unspool.methods.search.adadec import AdaDecOptions
from unspool.methods.search.adadec.data import problems
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, ratio, share

PACKAGES = ("jinja2", "jsonschema", "lark", "rich", "typer")
OPTIONS = AdaDecOptions(THRESHOLD)


def cases(setup: Setup) -> list[Case]:
    """A case is a function."""
    found = problems([_directory(name) for name in PACKAGES], setup.count)
    longest = setup.pick(96, 12)

    def measure(number: int, prompt: str, body: str) -> list[Row]:
        return read(setup.language_model(), prompt, body, longest, random.Random(number))

    return [Case(f"function {i}", partial(measure, i, *one)) for i, one in enumerate(found)]


def _directory(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def read(model: Model, prompt: str, body: str, longest: int, chance: random.Random) -> list[Row]:
    """One row of the function, and one of each step at which the candidates were compared.

    Args:
        longest: most tokens of the body.
    """
    before = model.encode(prompt, False)
    truth = tuple(model.tokenizer.encode(prompt + body)[len(before) :])[:longest]
    request = SearchRequest(model.language_model, before, longest, eos=model.eos_token_ids)
    steps: list[tuple[Output, Distribution]] = []
    rows: list[Row] = []
    keep = OPTIONS.candidates
    with closing(Frontier(model.language_model, before, sessions=keep, remembered=2 * keep * OPTIONS.lookahead)) as f:
        for at in range(len(truth)):
            (distribution,) = f.read([truth[:at]])
            steps.append((truth[:at], distribution))
        unsure = [at for at, (_, d) in enumerate(steps) if d.entropy >= THRESHOLD]
        sure = [at for at in range(len(steps)) if at not in unsure]
        for at in sorted([*unsure, *chance.sample(sure, min(len(sure), len(unsure)))]):
            output, distribution = steps[at]
            pause = adadec._pause(request, OPTIONS, f, output, distribution, adadec.best)
            rows.append(
                {
                    "paused": at in unsure,
                    "first": pause.candidates[0] == truth[at],
                    "chosen": pause.candidates[pause.chosen] == truth[at],
                    "random": round((truth[at] in pause.candidates) / len(pause.candidates), 4),
                }
            )
    right = [distribution.best == truth[at] for at, (_, distribution) in enumerate(steps)]
    return [{"tokens": len(sure), "right": sum(right[at] for at in sure)}, *rows]


def summarise(rows: Sequence[Row]) -> Summary:
    """Shares of right choices, paired by step."""
    functions = [row for row in rows if "tokens" in row]
    steps = {paused: [row for row in rows if row.get("paused") is paused] for paused in (True, False)}

    def values(name: str, paused: bool = True) -> list[float]:
        return [float(row[name]) for row in steps[paused]]

    sure = ratio([row["right"] for row in functions], [row["tokens"] for row in functions])
    figures = {
        "first choice right below the threshold": sure,
        "first choice right at pauses": share([row["first"] for row in steps[True]]),
        "right at pauses, look-ahead less first choice": difference(values("chosen"), values("first")),
        "right at pauses, look-ahead less a random candidate": difference(values("chosen"), values("random")),
        "right elsewhere, look-ahead less first choice": difference(values("chosen", False), values("first", False)),
    }
    drawn = [
        (
            "pauses" if paused else "elsewhere",
            str(len(found)),
            *(f"{sum(row[name] for row in found) / max(1, len(found)):.3f}" for name in ("first", "chosen", "random")),
        )
        for paused, found in steps.items()
    ]
    return Summary(figures, [Table("", ("steps", "number", "first choice", "look-ahead", "random candidate"), drawn)])


EXPERIMENT = Experiment(
    methods=("adadec",),
    claim="Most wrong greedy choices in code are at steps of high entropy, and a look-ahead of five tokens chooses the "
    "right one of the three most likely tokens more often than greedy decoding does there.",
    control="the first choice; a candidate drawn at random; the same look-ahead at random steps of low entropy",
    test="bodies of functions of installed packages, teacher-forced, at most 96 tokens each",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect("first choice right below the threshold", at_least=0.8),
        Expect("first choice right at pauses", at_most=0.5, cases=200),
        Expect("right at pauses, look-ahead less first choice", at_least=0.02, cases=200),
        Expect("right at pauses, look-ahead less a random candidate", at_least=0.05, cases=200),
    ],
    count=100,
    minutes=15,
)
