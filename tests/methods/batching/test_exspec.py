"""EXSPEC's scheduler: groups of equal length, the padded way out, ageing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.methods.batching.reading import passes
from unspool.backends.toy import ToyModel
from unspool.engine.autoregressive import Request, decode
from unspool.engine.batch import OpenRow
from unspool.engine.options import GenerationOptions
from unspool.engine.statistics import grouping_rate
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.batching.exspec import ExSpec, ExSpecOptions
from unspool.methods.drafters.plain import Plain


def rows(lengths: Sequence[int], waited: dict[int, int] | None = None) -> list[OpenRow]:
    return [OpenRow(index, length, (waited or {}).get(index, 0)) for index, length in enumerate(lengths)]


def plan(size: int, window: int = 20, patience: int = 16) -> ExSpec:
    return ExSpec(ExSpecOptions(size, window, max_waiting_passes=patience))


@pytest.mark.parametrize(
    ("lengths", "size", "expected"),
    [
        ([7, 5, 5, 7, 5], 2, [0, 3]),  # both lengths fill a pass: that of the first row
        ([9, 5, 7, 5, 7, 5], 3, [1, 3, 5]),
        ([9, 5, 7, 5, 7, 5], 2, [1, 3]),  # no more than a pass holds
        ([9, 5, 7, 5, 7, 6], 3, [0, 1, 2]),  # no length has enough: the first rows, padded
        ([9, 5], 3, [0, 1]),
        ([4], 1, [0]),
    ],
)
def test_the_first_length_with_enough_rows_else_the_first_rows(
    lengths: list[int], size: int, expected: list[int]
) -> None:
    assert plan(size).choose(rows(lengths)) == expected


@pytest.mark.parametrize(
    ("waited", "expected"),
    [
        ({0: 3}, [1, 3, 5]),
        ({0: 4}, [0, 1, 2]),  # the group of 5 would be full, and 0 has waited too long
        ({4: 4}, [4, 0, 1]),
        ({4: 6, 2: 4}, [4, 2, 0]),  # the longest waiting first
        ({5: 4}, [5, 1, 3]),  # its own group fills the pass
        ({5: 4, 0: 5}, [0, 5, 1]),
    ],
)
def test_a_row_that_waited_too_long_goes_first(waited: dict[int, int], expected: list[int]) -> None:
    assert plan(3, patience=4).choose(rows([9, 5, 7, 5, 7, 5], waited)) == expected


def test_no_row_waits_longer_than_patience_and_window() -> None:
    """Rows that never end, most of which stay together: the odd ones would starve."""
    size, window, patience, most = 3, 9, 5, 0
    rng = np.random.default_rng(0)
    scheduler = plan(size, window, patience)
    lengths, waited = [10] * 6 + [11, 12, 13], [0] * window
    for _ in range(2000):
        chosen = scheduler.choose([OpenRow(i, lengths[i], waited[i]) for i in range(window)])
        step = int(rng.integers(1, 4))
        for i in range(window):
            # Equal rows grow alike, so that their group stays full; now and then one falls out of it.
            lengths[i] += (step + int(rng.random() < 0.05)) if i in chosen else 0
            waited[i] = 0 if i in chosen else waited[i] + 1
        most = max(most, *waited)
    assert patience <= most <= patience + window


def test_equal_prompts_are_grouped_and_odd_ones_are_not() -> None:
    def rate(lengths: Sequence[int], size: int, window: int, shortest_first: bool = False) -> float | None:
        options = GenerationOptions(max_new_tokens=6)
        made = [Request([1] * length, Plain(), ExactMatch(), options) for length in lengths]
        scheduler = ExSpec(ExSpecOptions(size, window, shortest_first, max_waiting_passes=100))
        events = list(decode(ToyModel.random(vocab_size=4), made, scheduler))
        assert max(map(len, passes(events))) == size
        return grouping_rate(events)

    assert rate([5, 9] * 4, 2, 8) == 1
    assert rate([5, 9] * 4, 2, 3) == 1
    assert rate([5, 15, 25, 35], 2, 3) == 0
    # In the order given only the window meets; sorted, equals stand side by side.
    mixed = [5, 15, 25, 35] * 2
    assert rate(mixed, 2, 3) == 0 and rate(mixed, 2, 3, shortest_first=True) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 32}, r"above batch_size \(32\), not 32; .* eqspec"),
        ({"max_waiting_passes": 0}, "max_waiting_passes must be at least 1"),
    ],
)
def test_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        ExSpecOptions(**options)  # type: ignore[arg-type]
