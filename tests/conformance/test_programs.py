"""Every registered sampler, search and program, through the public interface on a model that counts its calls."""

from __future__ import annotations

import importlib
import inspect
import math
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.cases import Outcome, case, rows
from tests.conformance.small_model import EOS, CountedModel, load
from tests.specs import spec
from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.decoding.model import Model
from unspool.decoding.sample import Samples
from unspool.decoding.search import SearchResult
from unspool.engine.method import DRAFTER, EDIT, SAMPLER, SEARCH, SPAN
from unspool.engine.search import PassEvent, SearchEvent
from unspool.errors import UnknownNameError, UnsupportedError
from unspool.methods import Method
from unspool.methods.sampling._trie import AlignedTrie

DRAFTERS = [name for name, row in methods.methods().items() if row.kind is DRAFTER and not row.needs.assistant]

parametrize_samplers = pytest.mark.parametrize("row", rows(SAMPLER))
parametrize_searches = pytest.mark.parametrize("row", rows(SEARCH))
parametrize_programs = pytest.mark.parametrize("row", rows(SPAN, EDIT))


def sample(model: Model, row: Method, which: int = 0, count: int = 4, **options: Any) -> Samples:
    given, options = case(row), {"max_new_tokens": 12, "method": "plain"} | options
    return model.sample(given.prompts[which], count, sampler=row.name, **{**given.options, **options})


def search(model: Model, row: Method, which: int = 0, **options: Any) -> SearchResult:
    given, options = case(row), {"max_new_tokens": 10} | options
    own = {**given.options, **options.pop("method_options", {})}
    return model.search(given.prompts[which], method=spec(row.name, own), reward=given.reward, **options)


def program(model: Model, row: Method, which: int) -> Outcome:
    run = case(row).run
    if run is None:
        pytest.fail(f"the case of the program {row.name} needs run")
    return run(model, which)


def texts(samples: Samples) -> list[list[int]]:
    return [result.token_ids for result in samples.results]


def value(model: Model, row: Method, which: int) -> object:
    """All that a call gives, but for times."""
    if row.kind is SAMPLER:
        drawn = sample(model, row, which)
        counts = (drawn.attempts, drawn.rejected, drawn.cut, drawn.passes)
        return texts(drawn), [result.parsed for result in drawn.results], counts, drawn.trie.bound
    if row.kind is SEARCH:
        found = search(model, row, which)
        return found.candidates, found.statistics.passes, found.statistics.evaluated, found.statistics.counts
    outcome = program(model, row, which)
    return outcome.value, outcome.claimed


@pytest.mark.parametrize("row", rows(SAMPLER, SEARCH, SPAN, EDIT))
def test_the_same_call_gives_the_same_whatever_came_before(row: Method) -> None:
    first, second = (value(load(), row, which) for which in (0, 1))
    assert first != second
    model = load()
    assert [value(model, row, which) for which in (0, 1, 1, 0)] == [first, second, second, first]


@pytest.mark.parametrize("row", rows(SAMPLER, SEARCH))
def test_an_unknown_option_is_refused_before_any_work(row: Method) -> None:
    language_model = CountedModel()
    for name in row.options.__dataclass_fields__:
        wrong = {f"{name}_": 1}
        with pytest.raises(UnknownNameError, match=f"did you mean '{name}'"):
            if row.kind is SAMPLER:
                sample(load(0, language_model), row, **wrong)
            else:
                search(load(0, language_model), row, method_options=wrong)
    assert not language_model.passes and not language_model.filled


@parametrize_samplers
def test_samples_are_of_the_language_and_figures_add_up(row: Method) -> None:
    for seed in range(3):
        for limit in (3, 12):
            language_model, ends = CountedModel(seed), [0]
            drawn = sample(
                load(0, language_model),
                row,
                seed=seed,
                max_new_tokens=limit,
                max_attempts=40,
                progress=lambda what, done, of, ends=ends, counted=language_model: ends.append(counted.passes),
            )
            for result in drawn.results:
                assert case(row).complete(result.text) is True, result.text
                assert (result.finish_reason, result.token_ids.index(EOS)) == ("stop", len(result.token_ids) - 1)
                assert len(result.token_ids) <= limit
            assert drawn.attempts == len(drawn.results) + drawn.rejected + drawn.cut
            assert len(drawn.results) == 4 or drawn.attempts == 40
            # Without drafts a pass is a token.
            whole = sum(after - before == limit for before, after in pairwise(ends))
            assert drawn.cut <= whole and len(ends) == drawn.attempts + 1
            assert drawn.passes == language_model.passes > 0


@pytest.mark.parametrize("method", DRAFTERS)
@parametrize_samplers
def test_drafts_change_no_sample(row: Method, method: str) -> None:
    plain, drafted = sample(load(), row), sample(load(), row, method=method)
    assert (texts(drafted), drafted.attempts, drafted.cut) == (texts(plain), plain.attempts, plain.cut)


@parametrize_samplers
def test_another_seed_draws_other_samples(row: Method) -> None:
    assert texts(sample(load(), row, seed=1)) != texts(sample(load(), row, seed=2))


@parametrize_samplers
def test_what_was_learned_is_kept_in_a_file(row: Method, tmp_path: Path) -> None:
    """What comes next is the same on a new model with the file, and another without it."""
    differs = False
    for seed in range(1, 4):
        learned = sample(load(), row, count=12).trie
        learned.save(tmp_path / "trie.json")
        kept = AlignedTrie.load(tmp_path / "trie.json")
        assert len(kept) == len(learned) > 0
        following, resumed = (sample(load(), row, seed=seed, trie=trie) for trie in (learned, kept))
        assert (texts(resumed), resumed.attempts) == (texts(following), following.attempts)
        assert resumed.trie.bound == pytest.approx(following.trie.bound, rel=1e-12)
        forgotten = sample(load(), row, seed=seed)
        differs |= (texts(forgotten), forgotten.attempts) != (texts(resumed), resumed.attempts)
    assert differs, "what was learned makes no difference"


@pytest.mark.parametrize("widths", [(), (1, 2, 4, 8, 16, 32)], ids=["sessions", "trees"])
@parametrize_searches
def test_figures_of_a_search_are_those_that_the_model_counts(row: Method, widths: tuple[int, ...]) -> None:
    reasons = set()
    for seed in range(10):
        for limit in (1, 2, 16):
            language_model, events = CountedModel(seed, widths), list[SearchEvent]()
            model = load(0, language_model)
            found = search(model, row, max_new_tokens=limit, on_event=events.append)
            figures, prompt = found.statistics, found.prompt_token_ids
            evaluated = language_model.nodes + language_model.filled - (len(prompt) - 1)
            assert (figures.passes, figures.evaluated) == (language_model.passes, evaluated)
            passes = [event for event in events if isinstance(event, PassEvent)]
            assert (len(passes), sum(event.nodes for event in passes)) == (figures.passes, figures.evaluated)
            assert 0 < figures.tokens == len(found.token_ids) <= figures.evaluated
            for candidate in found.candidates:
                ids = candidate.token_ids
                ended = ids[-1] == EOS
                reasons.add(candidate.finish_reason)
                assert candidate.finish_reason == ("stop" if ended else "length")
                assert len(ids) == limit or (ended and len(ids) < limit), "the limit of tokens"
                assert EOS not in ids[:-1] and candidate.text == model.tokenizer.decode(ids)
                assert candidate.logprob == pytest.approx(chance(language_model, prompt, ids), abs=1e-9)
            scores = [candidate.score for candidate in found.candidates]
            assert scores == sorted(scores, reverse=True), "best first"
            assert len({tuple(candidate.token_ids) for candidate in found.candidates}) == len(scores)
    assert reasons == {"stop", "length"}


def chance(model: ToyModel, prompt: list[int], ids: list[int]) -> float:
    """Log-probability, one row of the table a token."""
    text = [*prompt, *ids]
    return sum(math.log(model.probabilities(text[:i])[text[i]]) for i in range(len(prompt), len(text)))


@parametrize_programs
def test_figures_of_a_program_are_those_that_the_model_counts(row: Method) -> None:
    for which in (0, 1):
        outcome = program(load(), row, which)
        assert outcome.claimed == outcome.counted
        assert all(figure > 0 for figure in outcome.claimed)


@parametrize_programs
def test_a_program_takes_its_options_by_name_with_their_defaults(row: Method) -> None:
    verb = getattr(importlib.import_module(f"unspool.decoding.{row.name}"), row.name)
    parameters = inspect.signature(verb).parameters
    for option in fields(row.options):
        assert parameters[option.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[option.name].default == option.default


@pytest.mark.parametrize("row", [row for row in rows(SPAN, EDIT) if row.values[0].needs.abilities])
def test_a_model_that_lacks_an_ability_is_refused_before_any_work(row: Method) -> None:
    language_model = CountedModel()
    language_model.abilities = frozenset()
    with pytest.raises(UnsupportedError, match="the toy backend does not offer"):
        program(load(0, language_model), row, 0)
    assert not language_model.passes and not language_model.filled
