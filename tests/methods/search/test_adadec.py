"""AdaDec against greedy decoding, against scores from full prefills, and how its threshold is learned."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.cli import app
from unspool.engine.method import SEARCH
from unspool.engine.search import Found, Output, PassEvent, SearchRequest
from unspool.errors import UnspoolError
from unspool.methods.search.adadec import AdaDecOptions, PauseEvent, adadec, best, decode
from unspool.methods.search.adadec import train as adadec_threshold
from unspool.methods.search.adadec.data import problems
from unspool.methods.search.adadec.train import Threshold, learn, teacher_forced
from unspool.training.artifact import file_of

PROMPT = [1, 0, 2]
EOS = 4


def toy(seed: int) -> ToyModel:
    return ToyModel.random(seed=seed, vocab_size=6, order=3, eos_token_id=EOS)


class Padded(ToyModel):
    widths = (1, 2, 4, 8, 16, 32)


def run(model: ToyModel, events: list[object] | None = None, length: int = 40, **options: object) -> Found:
    request = SearchRequest(
        model, PROMPT, length, frozenset({EOS}), on_event=(lambda event: None) if events is None else events.append
    )
    return adadec(request, AdaDecOptions(**options))  # type: ignore[arg-type]


def greedy(model: ToyModel, output: Output, steps: int, limit: int = 10**9) -> Output:
    """By the table alone; ends with end of text."""
    for _ in range(steps):
        if output[-1:] == (EOS,) or len(output) >= limit:
            break
        output = (*output, int(np.argmax(model.probabilities([*PROMPT, *output]))))
    return output


def logprob(model: ToyModel, output: Output, start: int = 0) -> float:
    text = [*PROMPT, *output]
    at = len(PROMPT)
    return sum(math.log(model.probabilities(text[: at + i])[output[i]]) for i in range(start, len(output)))


def entropy(model: ToyModel, output: Output) -> float:
    p = model.probabilities([*PROMPT, *output])
    return float(-(p * np.log(p)).sum())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "options", [{"threshold": math.inf}, {"threshold": 0.0, "lookahead": 0}, {"threshold": 0.0, "candidates": 1}]
)
def test_without_a_comparison_it_is_greedy_decoding(seed: int, options: dict[str, float]) -> None:
    model = toy(seed)
    found = run(model, **options)
    assert found.candidates[0].token_ids == greedy(model, (), 40)
    assert found.candidates[0].logprob == pytest.approx(logprob(model, found.candidates[0].token_ids))
    assert found.evaluated_tokens == len(found.candidates[0].token_ids)
    assert found.counts["changed"] == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", [ToyModel, Padded])
@pytest.mark.parametrize(("candidates", "lookahead", "threshold"), [(3, 5, 1.2), (2, 1, 0.0), (4, 3, 0.9), (6, 2, 1.0)])
def test_every_score_is_that_of_full_prefills(
    seed: int, kind: type[ToyModel], candidates: int, lookahead: int, threshold: float
) -> None:
    model = toy(seed)
    events: list[object] = []
    found = run(kind(model.table, EOS), events, threshold=threshold, candidates=candidates, lookahead=lookahead)
    pauses = {event.output: event for event in events if isinstance(event, PauseEvent)}
    output: Output = ()
    while output[-1:] != (EOS,) and len(output) < 40:
        p = model.probabilities([*PROMPT, *output])
        assert (output in pauses) == (entropy(model, output) >= threshold)
        token = int(p.argmax())
        if output in pauses:
            event = pauses[output]
            top = np.argsort(-p, kind="stable")[:candidates]
            assert event.candidates == tuple(top)
            assert event.entropy == pytest.approx(entropy(model, output))
            scores = []
            for c, m, score in zip(top, event.lengths, event.scores, strict=True):
                rolled = greedy(model, (*output, int(c)), lookahead)
                assert m == len(rolled) - len(output) - 1
                scores.append(logprob(model, rolled, len(output)) / (m + 1))
                assert score == pytest.approx(scores[-1], abs=1e-12)
            token = int(top[int(np.argmax(scores))])
        output = (*output, token)
    assert found.candidates[0].token_ids == output
    assert found.counts["pauses"] == len(pauses)
    assert found.candidates[0].finish_reason == ("stop" if output[-1] == EOS else "length")
    assert found.evaluated_tokens == sum(event.nodes for event in events if isinstance(event, PassEvent))


def test_these_models_pause_and_change_tokens() -> None:
    """Else the test above would compare nothing."""
    counts = [run(toy(seed), threshold=1.2).counts for seed in range(8)]
    assert sum(count["pauses"] for count in counts) >= 20
    assert sum(count["changed"] for count in counts) >= 5


def test_a_control_replaces_one_rule_only() -> None:
    """Pauses where it is told, and takes the candidate that it is told."""
    model = toy(1)
    request = SearchRequest(model, PROMPT, 40, frozenset({EOS}))
    same = decode(request, AdaDecOptions(0.0), lambda output, distribution: distribution.entropy >= 1.2, best)
    assert same == run(model, threshold=1.2)
    steps: list[Output] = []

    def second(output: Output, _: object) -> bool:
        steps.append(output)
        return len(output) == 1

    found = decode(request, AdaDecOptions(0.0, lookahead=0), second, lambda scores: len(scores) - 1)
    output = found.candidates[0].token_ids
    assert [len(output) for output in steps] == list(range(len(output)))
    first = greedy(model, (), 1)
    third = int(np.argsort(-model.probabilities([*PROMPT, *first]), kind="stable")[2])
    assert output == greedy(model, (*first, third), 38)
    assert (found.counts["pauses"], found.counts["changed"], found.counts["lookahead_tokens"]) == (1, 1, 0)


def test_an_ended_branch_is_frozen() -> None:
    """End of text as the second choice: its score is its own log-probability, whatever would follow it."""
    table = np.full((3, 2), 0.5)
    table[2] = [0.6, 0.4]  # after token 1; token 0 ends
    table[1] = [0.01, 0.99]
    model = ToyModel(table, eos_token_id=0)
    events: list[object] = []
    request = SearchRequest(model, [1], 1, frozenset({0}), on_event=events.append)
    adadec(request, AdaDecOptions(threshold=0.0, candidates=2, lookahead=5))
    (pause,) = [event for event in events if isinstance(event, PauseEvent)]
    assert pause.candidates == (0, 1) and pause.lengths == (0, 1)
    assert pause.scores == pytest.approx((math.log(0.6), (math.log(0.4) + math.log(0.6)) / 2))


def test_a_shorter_output_is_a_prefix_of_a_longer_one() -> None:
    for seed in range(4):
        longest = run(toy(seed), threshold=1.0).candidates[0].token_ids
        for length in (1, 2, 5):
            assert run(toy(seed), length=length, threshold=1.0).candidates[0].token_ids == longest[:length]


def test_the_lookahead_stays_in_the_context() -> None:
    model = ToyModel(toy(1).table, EOS, max_length=len(PROMPT) + 4)
    found = run(model, length=4, threshold=0.0)
    assert len(found.candidates[0].token_ids) <= 4


def test_what_a_lookahead_told_is_not_asked_again() -> None:
    found = [run(toy(seed), threshold=1.0) for seed in range(8)]
    asked = sum(len(one.candidates[0].token_ids) + one.counts["lookahead_tokens"] for one in found)
    recalled = sum(one.counts["recalled"] for one in found)
    assert recalled > 50
    # A branch is entered anew where the next pause is behind its end, so a few tokens are scored twice.
    assert sum(one.evaluated_tokens for one in found) < asked - recalled / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "threshold_file"),
        ({"threshold": 1.0, "threshold_file": "x"}, "cannot read"),
        ({"threshold": math.nan}, "number"),
        ({"threshold": 1.0, "candidates": 0}, "candidates must be at least 1"),
        ({"threshold": 1.0, "lookahead": -1}, "lookahead must be at least 0"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        AdaDecOptions(**options)  # type: ignore[arg-type]


def test_teacher_forcing_reads_entropy_and_rank_of_each_token() -> None:
    model = toy(5)
    ids = np.random.default_rng(0).integers(0, 6, 150).tolist()
    found = teacher_forced(model, ids, 3)
    assert len(found) == 147
    for i, (value, rank) in enumerate(found, 3):
        p = model.probabilities(ids[:i])
        assert value == pytest.approx(-(p * np.log(p)).sum())
        assert rank == int((p > p[ids[i]]).sum())


def synthetic(tau: float, slope: float, n: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Entropies, and ranks that are 0 with probability sigmoid(slope * (H - tau))."""
    rng = np.random.default_rng(1)
    entropies = rng.uniform(0, 4, n)
    right = rng.random(n) < 1 / (1 + np.exp(-slope * (entropies - tau)))
    return entropies, np.where(right, 0, rng.integers(1, 6, n))


def test_learning_finds_where_right_and_wrong_are_even() -> None:
    entropies, ranks = synthetic(tau=1.5, slope=-3.0)
    learned = learn(entropies, ranks, 7)
    assert learned.threshold == pytest.approx(1.5, abs=0.15)
    assert learned.slope == pytest.approx(-3.0, abs=0.2)
    # The cut of the probability and the threshold are the same point of the curve.
    p = 1 / (1 + math.exp(-(learned.intercept + learned.slope * learned.threshold)))
    assert p == pytest.approx(learned.theta)
    assert learned.pause_rate == np.mean(entropies >= learned.threshold)
    assert learned.right == np.mean(ranks[entropies < learned.threshold] == 0)
    assert learned.right_paused == np.mean(ranks[entropies >= learned.threshold] == 0)
    assert learned.in_top_3_paused == np.mean(ranks[entropies >= learned.threshold] < 3)
    assert (learned.tokens, learned.problems) == (20000, 7)


def test_the_regression_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    entropies, ranks = synthetic(tau=1.0, slope=-2.0, n=3000)
    reference = linear_model.LogisticRegression(C=1e9, tol=1e-10).fit(entropies[:, None], ranks == 0)
    intercept, slope = adadec_threshold._fit(entropies, ranks == 0)
    assert (intercept, slope) == pytest.approx((reference.intercept_[0], reference.coef_[0, 0]), rel=1e-5)


@pytest.mark.parametrize(
    ("entropies", "ranks", "message"),
    [
        (np.ones(50), np.zeros(50, int), "too few"),
        (np.linspace(0, 1, 400), np.arange(400) < 200, "not more certain"),
        (np.linspace(0, 1, 400), np.arange(400) >= 200, "overlap"),
    ],
)
def test_what_cannot_be_learned_from(entropies: np.ndarray, ranks: np.ndarray, message: str) -> None:
    noise = 0.0 if message == "overlap" else np.random.default_rng(0).normal(0, 0.5, len(entropies))
    with pytest.raises(UnspoolError, match=message):
        learn(entropies + noise, np.asarray(ranks, dtype=int), 1)


LEARNED = Threshold(1.25, 0.5, 2.0, -1.6, 0.9, 0.06, 0.9, 0.4, 0.7, 1000, 20)


def test_thresholds_belong_to_a_model_and_its_weights(tmp_path: Path) -> None:
    class Named:
        key, name, language_model = "a", "model a", toy(1)

    made = LEARNED.artifact(Named())  # type: ignore[arg-type]
    made.save(file_of(tmp_path, "adadec"))
    assert made.trained_with["tokens"] == 1000
    options = AdaDecOptions(threshold_file=str(tmp_path))
    request = SearchRequest(toy(1), PROMPT, 20, frozenset({EOS}))
    by_file = methods.build(options, SEARCH, methods.Resources(toy(1), keys=lambda: ["a toy float64"]))(request)
    assert by_file == adadec(request, AdaDecOptions(threshold=1.25))
    for key in ("b toy float64", "a toy int8"):
        with pytest.raises(UnspoolError, match="was trained for model a, not for these"):
            methods.build(options, SEARCH, methods.Resources(toy(1), keys=lambda key=key: [key]))


SOURCE = '''
class A:
    def method(self, x):
        """Adds one.

        More.
        """
        y = x + 1
        return y

def bare(x):
    return x

def only_text():
    """Nothing follows."""

async def waits():
    """Is passed over."""
    return 1

def f(a,
      b):
    "Short."
    return a  # end
'''


def test_problems_are_signature_and_docstring_and_body(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("def f(:")
    found = dict(problems([tmp_path], 10))
    assert found == {
        'def method(self, x):\n    """Adds one.\n\n    More.\n    """\n': "    y = x + 1\n    return y\n",
        'def f(a,\n      b):\n    "Short."\n': "    return a  # end\n",
    }
    assert len(problems([tmp_path], 1)) == 1
    with pytest.raises(UnspoolError, match="no function"):
        problems([tmp_path / "broken.py"], 3)
    with pytest.raises(UnspoolError, match="does not exist"):
        problems([tmp_path / "none"], 3)


def test_the_command_refuses_before_a_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unspool.cli.train.loaded", lambda *_, **__: pytest.fail("loaded"))
    for arguments, message in (
        (["train", "adadec", "-o", str(tmp_path / "no" / "x")], "there is no directory"),
        (["train", f"adadec:files={tmp_path / 'no.py'}", "-o", str(tmp_path / "x")], "does not exist"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, UnspoolError) and message in str(result.exception)
