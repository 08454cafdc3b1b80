"""Checks of a sampler of a grammar, through the public interface on a model that counts its calls."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from unspool import methods
from unspool.conformance.check import Row, built_in, options_of, require
from unspool.conformance.small_model import EOS, CountedModel, load
from unspool.decoding.model import Model
from unspool.decoding.sample import Samples
from unspool.engine.method import DRAFTER
from unspool.methods.sampling._trie import AlignedTrie


def sample(model: Model, row: Row, which: int = 0, count: int = 4, **options: Any) -> Samples:
    """Samples after a prompt of the row's case."""
    given = {"max_new_tokens": 12, "method": methods.PLAIN, **options_of(row), **options}
    return model.sample(row.case.prompts[which], count, sampler=row.name, **given)


def texts(samples: Samples) -> list[list[int]]:
    """Ids of each sample."""
    return [result.token_ids for result in samples.results]


def value(model: Model, row: Row, which: int) -> object:
    """All that a call gives, but for times."""
    drawn = sample(model, row, which)
    counts = (drawn.attempts, drawn.rejected, drawn.cut, drawn.passes)
    return texts(drawn), [result.parsed for result in drawn.results], counts, drawn.trie.bound


def calls_do_not_depend_on_one_another(row: Row) -> None:
    """The same call gives the same samples after any earlier calls."""
    first, second = (value(load(), row, which) for which in (0, 1))
    require(first != second, "two different prompts gave the same samples")
    model = load()
    require([value(model, row, which) for which in (0, 1, 1, 0)] == [first, second, second, first], "calls differ")


def samples_are_of_the_language(row: Row) -> None:
    """Every sample is a complete text of the grammar, and the figures equal the model's counts."""
    for seed in range(3):
        for limit in (3, 12):
            language_model, ends = CountedModel(seed), [0]

            def counted(*_: Any, ends: list[int] = ends, model: CountedModel = language_model) -> None:
                ends.append(model.passes)

            model, limits = load(0, language_model), {"max_new_tokens": limit, "max_attempts": 40}
            drawn = sample(model, row, seed=seed, progress=counted, **limits)
            for result in drawn.results:
                require(row.case.complete(result.text) is not False, f"{result.text!r} is not of the grammar")
                ended = (result.finish_reason, result.token_ids.index(EOS)) == ("stop", len(result.token_ids) - 1)
                require(ended and len(result.token_ids) <= limit, f"{result.text!r} is no whole text")
            total = len(drawn.results) + drawn.rejected + drawn.cut
            require(drawn.attempts == total, f"{drawn.attempts} attempts are not the {total} samples, rejected and cut")
            require(len(drawn.results) == 4 or drawn.attempts == 40, "it stopped before its number of attempts")
            # Without drafts a pass is a token.
            cut = sum(after - before == limit for before, after in pairwise(ends))
            require(drawn.cut <= cut and len(ends) == drawn.attempts + 1, "the number of cut texts is wrong")
            require(drawn.passes == language_model.passes > 0, f"it made {language_model.passes} passes")


def drafts_change_no_sample(row: Row) -> None:
    """The samples are the same with every drafter."""
    plain = sample(load(), row)
    for drafter in built_in(DRAFTER):
        if not drafter.needs.assistant:
            drafted = sample(load(), row, method=drafter.name)
            same = (texts(drafted), drafted.attempts, drafted.cut) == (texts(plain), plain.attempts, plain.cut)
            require(same, f"drafts by {drafter.name} change the samples")


def seeds_differ(row: Row) -> None:
    """Another seed draws other samples."""
    require(texts(sample(load(), row, seed=1)) != texts(sample(load(), row, seed=2)), "two seeds drew the same")


def what_was_learned_is_kept_in_a_file(row: Row) -> None:
    """Samples after loading a saved trie equal those after learning it, and differ from those without it."""
    differs = False
    with TemporaryDirectory() as directory:
        for seed in range(1, 4):
            learned = sample(load(), row, count=12).trie
            learned.save(Path(directory) / "trie.json")
            kept = AlignedTrie.load(Path(directory) / "trie.json")
            require(len(kept) == len(learned) > 0, "nothing was learned, or not all of it was saved")
            following, resumed = (sample(load(), row, seed=seed, trie=trie) for trie in (learned, kept))
            same = (texts(resumed), resumed.attempts) == (texts(following), following.attempts)
            require(same, "what was loaded gives other samples than what was learned")
            require(np.isclose(resumed.trie.bound, following.trie.bound, rtol=1e-12), "the bounds differ")
            forgotten = sample(load(), row, seed=seed)
            differs |= (texts(forgotten), forgotten.attempts) != (texts(resumed), resumed.attempts)
    require(differs, "what was learned makes no difference")


CHECKS = (
    calls_do_not_depend_on_one_another,
    samples_are_of_the_language,
    drafts_change_no_sample,
    seeds_differ,
    what_was_learned_is_kept_in_a_file,
)
