"""Checks common to shapers and constraints, through the public interface, with every drafter."""

from __future__ import annotations

from typing import Any

import numpy as np

from unspool import methods
from unspool.conformance.check import Row, built_in, options_of, require
from unspool.conformance.small_model import EOS, CountedModel, load
from unspool.decoding.model import Model
from unspool.decoding.results import Result
from unspool.engine.method import CONSTRAINT, DRAFTER, SHAPER

SETTINGS: dict[str, dict[str, Any]] = {
    "temperature 0": {},
    "temperature 0.8": {"temperature": 0.8, "seed": 4},
}
LENGTH = 24


def named(row: Row) -> dict[str, Any]:
    """The argument of ``generate`` that names the method with its options."""
    spec = methods.choose(row.name, row.kind, options_of(row)).spec
    return {"shapers": [spec]} if row.kind is SHAPER else {"constraint": spec}


def generate(model: Model, row: Row, setting: str, which: int = 0, method: str = methods.PLAIN) -> Result:
    """The text after a prompt of the row's case."""
    prompt = row.case.prompts[which]
    request = named(row) | SETTINGS[setting]
    found: Result = model.generate(prompt, method=method, max_new_tokens=LENGTH, logprobs=True, **request)
    return found


def seen(result: Result) -> tuple[list[int], str, str]:
    """What a user sees."""
    return result.token_ids, result.text, result.finish_reason


def it_does_something(row: Row) -> None:
    """With the options of its case, it changes the text after at least one of the case's prompts."""
    free, steered = [], []
    for setting, values in SETTINGS.items():
        request = {"method": methods.PLAIN, "max_new_tokens": LENGTH, **values}
        free += [seen(load().generate(prompt, **request)) for prompt in row.case.prompts]
        steered += [seen(generate(load(), row, setting, which)) for which in (0, 1)]
    require(
        steered != free,
        "the texts are those without it, so that the other checks would show nothing; give its row a case, such as "
        "case=Case(options={...}, prompts=(..., ...)), in the tokens of unspool.conformance.small_model.PIECES",
    )


def every_drafter_gives_the_plain_text(row: Row) -> None:
    """With every drafter the text equals plain decoding's under it, after any earlier requests."""
    drafters = [other.name for other in built_in(DRAFTER) if not other.needs.assistant]
    for setting in SETTINGS:
        plain, other = (generate(load(), row, setting, which) for which in (0, 1))
        for method in drafters:
            model, where = load(), f"{setting}, drafted by {method}"
            require(seen(generate(model, row, setting, 0, method)) == seen(plain), f"{where}: the text differs")
            second = generate(model, row, setting, 1, method)
            require(seen(second) == seen(other), f"{where}: an earlier request changes the text")
            again = generate(model, row, setting, 0, method)
            require(seen(again) == seen(plain), f"{where}: what was learned changes the text")
            # Up to rounding: the small model's logits are float64.
            near = np.allclose(again.logprobs or (), plain.logprobs or (), rtol=0, atol=1e-9)
            require(near, f"{where}: the log-probabilities of the text differ")


def figures_add_up(row: Row) -> None:
    """Tokens and passes equal the model's counts, and a text ends for the reported reason."""
    for setting in SETTINGS:
        for seed in range(4):
            language_model, where = CountedModel(seed), f"{setting}, model {seed}"
            result = generate(load(0, language_model), row, setting, method=methods.WIDE)
            figures = result.statistics
            counted = (len(result.token_ids), language_model.passes)
            require((figures.tokens, figures.passes) == counted, f"{where}: tokens and passes are {counted}")
            require(0 < figures.passes <= figures.tokens <= LENGTH, f"{where}: {figures.tokens} of {LENGTH} tokens")
            require(EOS not in result.token_ids[:-1], f"{where}: the text continues after its end token")
            # Where nothing but an end token may follow, a text under a constraint ends without one.
            complete = row.kind is CONSTRAINT and result.finish_reason == "stop"
            expected = "stop" if result.token_ids[-1] == EOS or complete else "length"
            require(result.finish_reason == expected, f"{where}: it ended with {result.finish_reason!r}")
            require(expected == "stop" or figures.tokens == LENGTH, f"{where}: it ended before its length limit")
            if expected == "stop":
                require(row.case.complete(result.text) is not False, f"{where}: {result.text!r} is not complete")


CHECKS = (it_does_something, every_drafter_gives_the_plain_text, figures_add_up)
