"""Checks of a batch plan: it chooses among open rows, starves none, and changes no text."""

from __future__ import annotations

from unspool import methods
from unspool.conformance.check import Row, options_of, require
from unspool.conformance.drafter import model, plain, resources, run, same
from unspool.conformance.stubs import EmptyDrafter, RandomDrafter
from unspool.engine.batch import BatchPlan, OpenRow
from unspool.engine.options import GenerationOptions

MOST_PASSES = 400
"""A row that was in none of so many passes is left waiting."""

PROMPTS = [[0, 1, 2, 0, 1], [5], [2, 4, 2, 4, 2, 4, 2], [1, 1], [4], [0, 3, 0], [2, 2, 2, 5], [0, 1, 2, 0, 1]]


def made(row: Row) -> BatchPlan:
    """A plan of the row's own."""
    around = resources(model())
    methods.check(row, around)
    plan: BatchPlan = row.build(around, methods.make_options(row, options_of(row)))
    return plan


def open_rows_alone_are_chosen(row: Row) -> None:
    """It chooses at least one of the open rows, and none twice."""
    plan = made(row)
    require(plan.window is None or plan.window >= 1, f"window must be at least 1 or None, not {plan.window}")
    for lengths in ([4], [7, 5, 5, 7, 5], [9, 5, 7, 5, 7, 6], list(range(1, 41)), [3] * 40):
        for late in (0, 30):
            rows = [OpenRow(2 * i + 1, length, late * (i % 3 == 2)) for i, length in enumerate(lengths)]
            chosen = list(plan.choose(rows))
            require(chosen, f"it chose none of {len(rows)} open rows")
            require(len(set(chosen)) == len(chosen), f"it chose a row twice: {chosen}")
            require({*chosen} <= {r.index for r in rows}, f"it chose rows that are not open: {chosen}")


def no_row_waits_for_ever(row: Row) -> None:
    """Every open row keeps getting passes, however long the others are."""
    plan = made(row)
    count = min(plan.window or 24, 64)
    lengths, waited = [10] * (count - count // 3) + list(range(11, 11 + count // 3)), [0] * count
    for number in range(2 * MOST_PASSES):
        chosen = {*plan.choose([OpenRow(i, lengths[i], waited[i]) for i in range(count)])}
        for i in range(count):
            lengths[i] += (1 + number % 3) * (i in chosen)
            waited[i] = 0 if i in chosen else waited[i] + 1
        require(max(waited) < MOST_PASSES, f"a row was in none of {MOST_PASSES} passes")


def texts_are_those_of_the_rows_alone(row: Row) -> None:
    """Rows share passes, and each gets the text that it gets alone."""
    toy = model(eos=True)
    for temperature in (0.0, 0.9):
        options = GenerationOptions(max_new_tokens=20, temperature=temperature, seed=7)
        for name, drafter in (("no drafts", EmptyDrafter), ("random trees", lambda: RandomDrafter(6, seed=5))):
            found, _, _ = run(toy, PROMPTS, [drafter() for _ in PROMPTS], options, eos=True, plan=made(row))
            for prompt, text in zip(PROMPTS, found, strict=True):
                same(text, plain(toy, prompt, options, eos=True), f"{name}, temperature {temperature:g}")


CHECKS = (open_rows_alone_are_chosen, no_row_waits_for_ever, texts_are_those_of_the_rows_alone)
