"""Methods with one fault each, of every kind that others can add. ``unspool check`` must refuse every one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tests.conformance.contracts import Half, Mean, Repeat
from tests.conformance.faults import LastTokenFromTarget
from unspool.engine.assistant import Assistant, Draws
from unspool.engine.contracts import Context, Decision, Step
from unspool.engine.method import (
    ACCEPTANCE,
    BATCH,
    CHANNEL,
    COMPRESSOR,
    CONSTRAINT,
    DRAFTER,
    PROBE,
    SCHEDULE,
    SEARCH,
    SHAPER,
    STOP,
    TRANSFORM,
    UNMASK,
    Case,
    Kind,
    Method,
    Needs,
    NoOptions,
)
from unspool.engine.probe import Reading, States
from unspool.engine.progress import Progress
from unspool.engine.search import Found, SearchRequest
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.methods.drafters.plain import Plain
from unspool.methods.sampling import cars
from unspool.methods.sampling._aligned import AlignedShaper
from unspool.methods.search import beam


def row(kind: Kind[Any], build: Callable[..., Any], guarantee: Any = "lossy", **fields: Any) -> Method[Any, Any]:
    return Method(kind, guarantee, "Has a fault.", "none", NoOptions, build, **fields)


class Untruthful:
    """Draws from a draft model and says that it drew from a flat distribution."""

    def __init__(self, assistant: Any, vocab_size: int) -> None:
        self.assistant, self.size = Assistant(assistant, vocab_size), vocab_size

    def start(self, context: Context) -> None: ...

    def observe(self, step: Step) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        builder = TreeBuilder(context.tokens[-1])
        if context.uses_draft_probs and budget > 1:
            self.assistant.follow(context.tokens)
            draws = Draws(context, self.size)
            tokens, _ = draws.siblings(self.assistant.step(context.tokens[-1]), 0, 2)
            draft = builder.drawn_from(draws.distribution(np.full(self.size, -np.log(self.size))))
            for token in tokens.tolist()[: budget - 1]:
                builder.add(0, int(token), "faulty", draft=draft)
        return builder.build()


class TooLarge(Untruthful):
    """Drafts one token more than it may."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        return TokenTree.chain([context.tokens[-1]] * (budget + 1))


class TakesDrafts:
    """Accepts the first draft, whatever the model says."""

    uses_draft_probs = False

    def decide(self, target: Any, rng: Any) -> Decision:
        path = (0, 1) if len(target.tree) > 1 else (0,)
        return Decision(path, target.choose(path[-1]))


class NoPath(TakesDrafts):
    """Accepts nodes that are no path."""

    def decide(self, target: Any, rng: Any) -> Decision:
        return Decision(tuple(range(len(target.tree))), target.choose(0))


class FirstOnly:
    """Serves one row until it ends, and lets the others wait."""

    window, shortest_first = 4, False

    def choose(self, rows: Sequence[Any]) -> list[int]:
        return [rows[0].index]


class InPlace:
    """Changes what belongs to the session."""

    def __call__(self, tokens: Any, logits: Any) -> Any:
        logits[int(tokens[-1])] -= 2
        return logits


class Remembers:
    """Depends on the texts that it was asked about before."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, tokens: Any, logits: Any) -> Any:
        self.seen.add(int(tokens[-1]))
        shaped = logits.copy()
        shaped[list(self.seen)] -= 2
        return shaped


class Alternates:
    """Forbids one half of the tokens and then the other; the first question about a draft shifts it for good."""

    def __init__(self) -> None:
        self.length, self.asked = 0, False

    def allowed(self, path: Sequence[int]) -> Any:
        mask = np.arange(26) % 2 == (self.length + self.asked + len(path)) % 2
        self.asked |= len(path) > 0
        return mask

    def forced(self) -> Sequence[int]:
        return ()

    def advance(self, tokens: Sequence[int]) -> None:
        self.length += len(tokens)


class Free(AlignedShaper):
    """Lets every token through and rejects none."""

    def __call__(self, tokens: Any, logits: Any) -> Any:
        return logits

    def is_allowed(self, text: Sequence[int]) -> bool:
        return True


def halves_logprobs(request: SearchRequest) -> Found:
    """States a log-probability that the texts do not have."""
    found = beam.METHOD.build(None, beam.METHOD.options())(request)  # type: ignore[arg-type]
    return replace(found, candidates=tuple(replace(c, logprob=c.logprob / 2) for c in found.candidates))


def halves_passes(request: SearchRequest) -> Found:
    """Counts half of its passes."""
    found = beam.METHOD.build(None, beam.METHOD.options())(request)  # type: ignore[arg-type]
    return replace(found, passes=found.passes // 2)


def always(one: Any) -> Any:
    """The same object for every sequence."""
    return lambda prompt: one


_calls = count()


class Restless:
    """Decides by the number of its calls, over all canvases."""

    def check(self, slots: int) -> None: ...

    def start_block(self, view: Any) -> None: ...

    def select(self, view: Any) -> Any:
        return np.random.default_rng(next(_calls)).random(len(view.masked)) < 0.5

    def __call__(self, view: Any) -> Any:
        return view.logits + np.random.default_rng(next(_calls)).normal(size=view.logits.shape)

    def next_block(self, start: int, sight: Any) -> int:
        return 1 + next(_calls) % 5

    def stop(self, sight: Any) -> bool:
        return next(_calls) % 7 == 3


class SwallowsDamage:
    """A memory that loads whatever it is given."""

    def __init__(self) -> None:
        self.learned = 1

    def save(self, path: Path) -> None:
        path.write_text(str(self.learned), "utf-8")

    def load(self, path: Path) -> None:
        with suppress(OSError, ValueError):
            self.learned = int(path.read_text("utf-8"))

    def reset(self) -> None:
        self.learned = 0


def swallowing(resources: Any, _: Any) -> Plain:
    resources.memory("swallows_damage", SwallowsDamage)
    return Plain()


class SeesDrafts(Mean):
    """Reads how many tokens the pass emitted."""

    def read(self, states: States) -> Reading:
        return Reading(tuple(float(len(states.tokens)) for _ in states.tokens))


class Uncorrected(Repeat):
    """Says that two copies of a symbol correct a wrong one."""

    def __init__(self) -> None:
        super().__init__(2)
        self.corrects = frozenset({"substitution"})


class InTheSource(Half):
    """Leaves a note in the model that it reads."""

    def run(self, source: Path, output: Path, progress: Progress) -> Path:
        (source / "note").write_text("x")
        return super().run(source, output, progress)


FAULTS: Mapping[str, tuple[Method[Any, Any], str]] = {
    "untruthful": (
        row(
            DRAFTER,
            lambda r, _: Untruthful(r.assistant, r.model.vocab_size),
            "same distribution",
            needs=Needs(assistant=True),
            draws=True,
        ),
        "draws_are_reported_truthfully",
    ),
    "too_large": (row(DRAFTER, lambda r, _: TooLarge(r.assistant, 6), "identical"), "drafts_stay_within_the_budget"),
    "swallows_damage": (
        row(DRAFTER, swallowing, "identical", memory="a number"),
        "memories_are_saved_whole_or_refused",
    ),
    "no_memory": (
        row(DRAFTER, lambda r, _: Plain(), "identical", memory="a table"),
        "memories_are_saved_whole_or_refused",
    ),
    "takes_drafts": (row(ACCEPTANCE, lambda r, _: TakesDrafts(), "identical"), "text_is_plain_decodings"),
    "no_path": (row(ACCEPTANCE, lambda r, _: NoPath(), "lossy"), "decisions_are_paths_of_the_tree"),
    "last_from_target": (
        row(ACCEPTANCE, lambda r, _: LastTokenFromTarget(), "same distribution", at_temperature="above zero"),
        "distribution_is_plain_samplings",
    ),
    "first_only": (row(BATCH, lambda r, _: FirstOnly(), "identical"), "no_row_waits_for_ever"),
    "in_place": (row(SHAPER, lambda r, _: InPlace()), "logits_are_a_function_of_the_text"),
    "remembers": (row(SHAPER, lambda r, _: Remembers()), "logits_are_a_function_of_the_text"),
    "does_nothing": (row(SHAPER, lambda r, _: lambda tokens, logits: logits), "it_does_something"),
    "alternates": (row(CONSTRAINT, lambda r, _: lambda prompt: Alternates(), "valid"), "questions_leave_no_trace"),
    "shared": (
        row(CONSTRAINT, lambda r, _: always(Alternates()), "valid"),
        "masks_of_a_tree_are_those_of_committed_paths",
    ),
    "ends_early": (
        row(
            CONSTRAINT,
            lambda r, _: lambda prompt: Alternates(),
            "valid",
            case=Case(complete=lambda output: len(output) > 1),
        ),
        "texts_end_only_where_they_are_complete",
    ),
    "sees_drafts": (
        row(PROBE, lambda r, _: SeesDrafts(np.ones(7)), "identical", needs=Needs(taps=Mean.taps)),
        "readings_belong_to_the_text",
    ),
    "uncorrected": (row(CHANNEL, lambda r, _: Uncorrected(), "exact"), "single_errors_of_short_data_are_corrected"),
    "in_the_source": (row(COMPRESSOR, lambda r, _: InTheSource()), "makes_a_model_and_leaves_the_source"),
    "free": (replace(cars.METHOD, build=lambda r, _: partial(Free, "cars")), "samples_are_of_the_language"),
    "overstated": (row(SEARCH, lambda r, _: halves_logprobs), "candidates_are_whole_texts_best_first"),
    "uncounted": (row(SEARCH, lambda r, _: halves_passes), "figures_are_those_that_the_model_counts"),
    "restless_policy": (row(UNMASK, lambda r, _: Restless()), "canvases_are_filled"),
    "restless_transform": (row(TRANSFORM, lambda r, _: Restless()), "canvases_are_filled"),
    "restless_schedule": (row(SCHEDULE, lambda r, _: Restless()), "canvases_are_filled"),
    "restless_stop": (row(STOP, lambda r, _: Restless()), "canvases_are_filled"),
    "two_lines": (replace(row(SHAPER, lambda r, _: Remembers()), summary="One.\nTwo."), "row_is_whole"),
}
"""Methods by name, and the check that names the fault."""
METHODS = {name: method for name, (method, _) in FAULTS.items()}
globals().update(METHODS)
