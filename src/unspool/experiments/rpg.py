"""RPG: does lowering the probability of the next copy of a structure end loops of code?

Counted in the output: ``lines`` and ``structure``, the shares of its lines whose text or structure occurred before;
``parses``, whether prompt and output compile, without the last line where the length limit cut it; ``ended``, whether
the output reached the end of the text; ``right``, for the tables alone, whether the program passes its test. Four
tables are too few for a verdict on harm, so they are shown and not judged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from llguidance import LLTokenizer

from unspool.decoding.model import Model
from unspool.experiments._code_loops import LOOPS, TABLES, Task, compiles, repeated, right
from unspool.experiments._drafting import by_variant
from unspool.experiments._rpg_controls import Anywhere, AsCoded, Noted
from unspool.methods.shaping import rpg
from unspool.reproduce.experiment import Case, Expect, Experiment, Row, Summary, Table
from unspool.reproduce.setup import Setup
from unspool.reproduce.statistics import difference, ratio
from unspool.sandbox import run as sandbox

OFF, NO_REPEAT, OURS, RANDOM = "off", "no_repeat_ngram_size 8", "rpg", "random places"
USUAL: dict[str, dict[str, Any]] = {
    OFF: {},
    "repetition_penalty 1.1": {"repetition_penalty": 1.1},
    NO_REPEAT: {"no_repeat_ngram_size": 8},
}
VARIANTS = (*USUAL, OURS, "rpg, as coded", RANDOM)


def cases(setup: Setup) -> list[Case]:
    """A case is a program in all variants: the random places are as many as rpg's on the same program."""
    sandbox.require()

    def measure(task: Task) -> list[Row]:
        model = setup.language_model()
        size = model.language_model.vocab_size
        vocabulary = LLTokenizer(model.tokenizer.to_json(size), n_vocab=size)
        places: dict[int, tuple[float, float]] = {}
        made = []
        for variant in VARIANTS:
            row, steps = _decode(model, vocabulary, task, variant, places, setup.pick(128, 12))
            if variant == OURS:
                drawn = random.Random(task.name).sample(range(row["tokens"]), len(steps))
                places = dict(zip(drawn, steps, strict=True))
            made.append(row)
        return made

    tables = TABLES[: setup.pick(None, 1)]
    return [Case(task.name, partial(measure, task)) for task in (*tables, *LOOPS[: setup.count])]


def _decode(
    model: Model,
    vocabulary: Any,
    task: Task,
    variant: str,
    places: dict[int, tuple[float, float]],
    max_new_tokens: int,
) -> tuple[Row, list[tuple[float, float]]]:
    """The row, and what the shaper changed at each step that it changed.

    Args:
        places: what the variant of random places changes, by step.
    """
    ids = model.tokenizer.encode(task.prompt)
    eos = frozenset(model.eos_token_ids)
    noted = None
    if variant in USUAL:
        options = USUAL[variant]
    elif variant == RANDOM:
        options = {"shapers": [Anywhere(places, len(ids), eos)]}
    else:
        shaper = rpg.build(rpg.RPGOptions(), vocabulary, eos)
        noted = Noted(shaper if variant == OURS else AsCoded(shaper._options, shaper._piece, eos), len(ids), eos)
        options = {"shapers": [noted]}
    result = model.generate(ids, method="plain", max_new_tokens=max_new_tokens, **options)
    ended = result.finish_reason == "stop"
    lines, structure = repeated(task.prompt, result.text)
    whole = task.prompt + (result.text if ended else result.text.rpartition("\n")[0])
    steps = [step for at, step in sorted(noted.steps.items()) if at < len(result.token_ids)] if noted else []
    return {
        "variant": variant,
        "set": "tables" if task.test else "loops",
        "lines": round(lines, 4),
        "structure": round(structure, 4),
        "parses": compiles(whole),
        "ended": ended,
        "right": right(task, result.text) if task.test else None,
        "tokens": len(result.token_ids),
        "shaped": len(steps),
    }, steps


def summarise(rows: Sequence[Row]) -> Summary:
    """Differences paired by program, over the loops."""
    sets = {name: by_variant([row for row in rows if row["set"] == name]) for name in ("loops", "tables")}
    loops, tables = sets["loops"], sets["tables"]

    def values(name: str, variant: str, by: dict[str, list[Row]] = loops) -> list[float]:
        return [float(row[name]) for row in by[variant]]

    figures = {
        "structure repeated, rpg / off": ratio(values("structure", OURS), values("structure", OFF)),
        f"structure repeated, rpg less {NO_REPEAT}": difference(
            values("structure", OURS), values("structure", NO_REPEAT)
        ),
        f"structure repeated, rpg less {RANDOM}": difference(values("structure", OURS), values("structure", RANDOM)),
        "ended, rpg less off": difference(values("ended", OURS), values("ended", OFF)),
        "tables right, rpg less off": difference(values("right", OURS, tables), values("right", OFF, tables)),
    }
    return Summary(figures, [_table(name, by) for name, by in sets.items()])


def _table(title: str, by: dict[str, list[Row]]) -> Table:
    columns = ("lines", "structure", "parses", "ended", "right", "tokens")
    drawn = []
    for variant, rows in by.items():
        means = [sum(float(row[name] or 0) for row in rows) / len(rows) for name in columns]
        cells = [f"{mean:.2f}" for mean in means[:-1]]
        cells[-1] = cells[-1] if title == "tables" else "–"
        drawn.append((variant, *cells, f"{means[-1]:.0f}"))
    return Table(title, ("", *columns), drawn)


EXPERIMENT = Experiment(
    methods=("rpg",),
    claim="Code loops repeat structure rather than text; lowering the probability of the token that begins the next "
    "copy, the more the more copies there were, ends them where penalties on repeated text do not.",
    control="no penalty; repetition_penalty 1.1; no_repeat_ngram_size 8; the rule as the authors coded it; the same "
    "changes of probabilities at random places of the same text",
    test="programs that begin with 4 to 8 near-copies, greedy, 128 tokens",
    cases=cases,
    summarise=summarise,
    expects=[
        Expect("structure repeated, rpg / off", at_most=0.5, cases=12),
        Expect(f"structure repeated, rpg less {NO_REPEAT}", at_most=0, cases=12),
        Expect(f"structure repeated, rpg less {RANDOM}", at_most=0, cases=12),
        Expect("ended, rpg less off", at_least=0.05, cases=12),
    ],
    count=24,
    minutes=25,
)
