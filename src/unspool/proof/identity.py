"""Token identity of runs with the same backend's plain decoding, greedy and sampled with the same noise.

A run is compared with plain decoding up to the first difference, after which the texts differ. The rest is compared
with plain passes over the run's own text, so it is proven too. A difference is a **tie** if rounding explains it, that
is, if the single-node pass's choice leads the run's token by less than the backend's noise; otherwise it is a
**fault**. A run that ends too early or too late is a fault, whatever the noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unspool.conformance.passes import at_once, one_by_one
from unspool.engine.contracts import LanguageModel
from unspool.proof.case import Case
from unspool.proof.result import Difference
from unspool.proof.rounding import FEW, NoiseMeter
from unspool.proof.scale import Row, runner_up

Runs = Mapping[str, Sequence[Sequence[int]]]


def first_difference(plain: Sequence[int], other: Sequence[int]) -> int | None:
    """Index of the first token that differs, or the shorter length if one output begins the other; None if equal."""
    if list(plain) == list(other):
        return None
    pairs = enumerate(zip(plain, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(plain), len(other)))


def judge(
    model: LanguageModel,
    cases: Sequence[Case],
    runs: Runs,
    *,
    temperature: float,
    max_new_tokens: int,
    eos: frozenset[int],
    meter: NoiseMeter | None = None,
) -> dict[str, list[list[Difference]]]:
    """Find where runs leave plain decoding, and whether noise explains it.

    Without a difference, no pass is needed. Otherwise noise is measured first: on a few cases and on those with
    differences.
    in which runs differ.

    Args:
        cases: plain decoding's outputs.
        runs: by contestant, its output for each case.
        temperature, max_new_tokens, eos: of all runs; ``eos`` are the ids that end a text.
        meter: noise meter to use; None: a new one.

    Returns:
        By contestant and case, the differences; empty if the run equals plain decoding's. Those after the first are
        between the run and plain passes over its own text; none follows a fault.
    """
    parted = {
        (name, case.number): at
        for name, outputs in runs.items()
        for case, ids in zip(cases, outputs, strict=True)
        if (at := first_difference(case.token_ids, ids)) is not None
    }
    if parted:
        meter = meter or NoiseMeter(model, temperature)
        numbers = {number for _, number in parted}
        for place, case in enumerate(cases):
            if place < FEW or case.number in numbers:
                meter.measure(case)
    # Cached: several methods often take the same side of a tie.
    known: dict[tuple[int, tuple[int, ...]], list[Difference]] = {}
    found: dict[str, list[list[Difference]]] = {}
    for name, outputs in runs.items():
        found[name] = []
        for case, ids in zip(cases, outputs, strict=True):
            key = (case.number, tuple(ids))
            if (name, case.number) in parted and key not in known:
                assert meter is not None
                known[key] = _follow(meter, case, ids, parted[name, case.number], max_new_tokens, eos)
            found[name].append(known.get(key, []))
    return found


def _follow(
    meter: NoiseMeter, case: Case, ids: Sequence[int], first: int, max_new_tokens: int, eos: frozenset[int]
) -> list[Difference]:
    """Differences from the first one on, up to and including the first fault."""
    found: list[Difference] = []
    plain = case.token_ids[first] if first < len(case.token_ids) else None
    other = ids[first] if first < len(ids) else None
    if plain is None or other is None:
        margin = None if plain is None else case.margins[first]
        return [Difference(case.number, case.seed, first, plain, other, margin, None, "fault")]
    # One more row, after the run's end, shows how a run that ended too early should have continued.
    early = len(ids) < max_new_tokens and ids[-1] not in eos
    for index, row in enumerate(one_by_one(meter.model, case.prompt, [*ids, *(ids[-1:] if early else ())])):
        if index < first:
            continue
        if index == max_new_tokens or (index and ids[index - 1] in eos):
            found.append(Difference(case.number, case.seed, index, None, ids[index], None, None, "fault"))
            break
        scores = meter.scale.scores(row, case.seed, len(case.prompt) + index)
        choice = plain if index == first else int(scores.argmax())
        taken = ids[index] if index < len(ids) else None
        if choice != taken:
            found.append(_difference(case, index, scores, choice, taken, meter.limit))
            if found[-1].verdict == "fault":
                break
    return found


def rescore(meter: NoiseMeter, case: Case) -> list[Difference]:
    """Where one pass over plain decoding's whole output chooses another token, up to and including the first fault.

    This proves the reference: a backend whose single-token cache is wrong would mislead all methods alike.
    """

    def differences(limit: float) -> list[Difference]:
        found: list[Difference] = []
        for index, row in enumerate(at_once(meter.model, case.prompt, case.token_ids)):
            scores = meter.scale.scores(row, case.seed, len(case.prompt) + index)
            choice, taken = int(scores.argmax()), case.token_ids[index]
            if choice != taken:
                found.append(_difference(case, index, scores, choice, taken, limit))
                if found[-1].verdict == "fault":
                    break
        return found

    found = differences(meter.limit)
    if found:
        # An apparent fault may be a tie under the noise of this text.
        meter.measure(case)
        found = differences(meter.limit)
    return found


def _difference(case: Case, index: int, scores: Row, choice: int, taken: int | None, limit: float) -> Difference:
    margin = float(scores[choice] - scores[runner_up(scores, choice)])
    gap = None if taken is None else float(scores[choice] - scores[taken])
    tie = gap is not None and gap < limit
    return Difference(case.number, case.seed, index, choice, taken, margin, gap, "tie" if tie else "fault")
