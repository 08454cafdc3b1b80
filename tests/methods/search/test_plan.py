"""PG-TD: its rule by hand, its invariants on the toy model, its caches, its budgets, and the reward from examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unspool.backends.toy import ToyModel
from unspool.engine.search import Output, PassEvent, SearchRequest
from unspool.errors import UnspoolError
from unspool.methods.search.plan import plan
from unspool.methods.search.plan.cache import PlanCache, Program
from unspool.methods.search.plan.planner import Planner, PlanOptions, SimulationEvent
from unspool.methods.search.plan.reward import PublicTests
from unspool.methods.search.plan.tree import Node, back_up, select

PROMPT = [1, 0, 2]
EOS = 4
HORIZON = 8


def toy(seed: int) -> ToyModel:
    return ToyModel.random(seed=seed, vocab_size=5, order=3, eos_token_id=EOS)


def reward(output: Output) -> float:
    """Wants many different pairs, which greedy decoding does not give."""
    return min(1.0, len({output[i : i + 2] for i in range(len(output) - 1)}) / 7)


def request(model: ToyModel, events: list[Any] | None = None, **fields: Any) -> SearchRequest:
    fields = {"reward": reward, "on_event": (lambda event: None) if events is None else events.append} | fields
    return SearchRequest(model, PROMPT, HORIZON, frozenset({EOS}), **fields)


def greedy(model: ToyModel, output: Output = ()) -> Output:
    while output[-1:] != (EOS,) and len(output) < HORIZON:
        output = (*output, int(np.argmax(model.probabilities([*PROMPT, *output]))))
    return output


def simulations(events: list[Any]) -> list[SimulationEvent]:
    return [event for event in events if isinstance(event, SimulationEvent)]


def dump(node: Node) -> Any:
    return (
        node.output,
        node.visits,
        node.exhausted,
        [(edge.token, edge.prior, edge.count, edge.value, edge.child and dump(edge.child)) for edge in node.edges],
    )


def test_the_rule_by_hand() -> None:
    root = Node((), 0.0, ((7, math.log(0.4)), (8, math.log(0.3)), (9, math.log(0.1))))
    assert [edge.prior for edge in root.edges] == pytest.approx([0.5, 0.375, 0.125])
    (step,) = select(root, c=4, c_base=10)  # ln N = 0: all are equal, the likeliest comes first
    assert step == (root, root.edges[0])
    back_up([step], Node((7,), math.log(0.4), ((1, -0.1), (2, -3.0))), 0.43, gamma=1)
    assert (root.visits, root.edges[0].count, root.edges[0].value, root.edges[0].child.visits) == (2, 1, 0.43, 2)
    # beta sqrt(ln N) = (ln(13/10) + 4) sqrt(ln 2) = 3.549: Q + 3.549 * 0.5 / 2 = Q + 0.887 against 1.331 and 0.444
    (step,) = select(root, c=4, c_base=10)
    assert step == (root, root.edges[1])
    root.edges[0].value = 0.45
    assert select(root, c=4, c_base=10)[0] == (root, root.edges[0])
    assert select(root, c=0, c_base=1e9)[0] == (root, root.edges[0])  # no bonus: the best value


def test_returns_are_discounted_and_their_maximum_counts() -> None:
    root = Node((), 0.0, ((0, -1.0), (1, -2.0)))
    back_up([(root, root.edges[0])], Node((0,), 0.0, ((0, -1.0), (1, -1.5))), 0.8, gamma=0.5)
    assert root.edges[0].value == 0.4  # of the completion behind the child
    child = root.edges[0].child
    back_up([(root, root.edges[0]), (child, child.edges[0])], Node((0, 0), 0.0, ()), 1.0, gamma=0.5)
    assert (child.edges[0].value, root.edges[0].value) == (1.0, 0.5)  # a terminal step has the reward itself
    back_up([(root, root.edges[0]), (child, child.edges[1])], Node((0, 1), 0.0, ()), 0.1, gamma=0.5)
    assert (root.edges[0].count, root.edges[0].value) == (3, 0.5)
    assert child.exhausted and not root.exhausted
    assert select(root, c=4, c_base=10) == [(root, root.edges[1])]  # though the other has the better value


@pytest.mark.parametrize("seed", range(6))
def test_the_first_program_is_greedy_decoding_and_rewards_only_rise(seed: int) -> None:
    model, events = toy(seed), []
    found = plan(request(model, events), PlanOptions(max_completions=30))
    done = simulations(events)
    assert done[0].program == greedy(model)
    best = [event.best for event in done]
    assert best == sorted(best) and best[0] == reward(greedy(model))
    for event in done:
        assert event.program == greedy(model, event.output)
        assert event.reward == reward(event.program)
    winner = found.candidates[0]
    assert winner.score == best[-1] == found.counts["best_reward"]
    first = next(event.program for event in done if event.reward == best[-1])
    assert winner.token_ids == first
    text = (*PROMPT, *first)
    logprob = sum(math.log(model.probabilities(text[:i])[text[i]]) for i in range(len(PROMPT), len(text)))
    assert winner.logprob == pytest.approx(logprob)
    assert len({candidate.token_ids for candidate in found.candidates}) == len(found.candidates)
    assert {candidate.token_ids for candidate in found.candidates} == {event.program for event in done}


def test_search_finds_what_greedy_decoding_does_not() -> None:
    gains = [
        plan(request(toy(seed)), PlanOptions(max_completions=40)).candidates[0].score - reward(greedy(toy(seed)))
        for seed in range(6)
    ]
    assert max(gains) > 0.2


@pytest.mark.parametrize("seed", range(6))
def test_caches_change_cost_only(seed: int) -> None:
    trees, found, passes = [], [], []
    for caches in (True, False):
        events: list[Any] = []
        # Simulations are what both have in common: completions are not, where known programs are reused.
        stop = Stop(25)
        planner = Planner(
            request(toy(seed), events, on_event=stop.count(events)), PlanOptions(caches=caches, stop_at_one=False)
        )
        with pytest.raises(Stop):
            planner.run()
        trees.append(dump(planner.root))
        found.append([(event.output, event.program, event.reward) for event in simulations(events)])
        passes.append(sum(event.nodes for event in events if isinstance(event, PassEvent)))
    assert trees[0] == trees[1]
    assert found[0] == found[1]
    assert passes[0] < passes[1]


class Stop(Exception):  # noqa: N818
    def __init__(self, simulations: int) -> None:
        self.left = simulations

    def count(self, events: list[Any]) -> Any:
        def on_event(event: Any) -> None:
            events.append(event)
            self.left -= isinstance(event, SimulationEvent)
            if not self.left:
                raise self

        return on_event


def test_a_program_completes_the_prefixes_from_which_it_was_made() -> None:
    cache, program = PlanCache(), Program((0, 1, 2), -1.0, "length")
    cache.record(program, 2, {(0, 1): ((2, -0.1),)})
    assert cache.program((0,)) is None and cache.program((0, 2)) is None and cache.program((1, 1, 1)) is None
    assert cache.program((0, 1)) == cache.program((0, 1, 2)) == program
    assert cache.alternatives((0, 1)) == ((2, -0.1),) and cache.alternatives((0, 1, 2)) is None


def test_counts_say_where_simulations_came_from() -> None:
    events: list[Any] = []
    counts = plan(request(toy(2), events), PlanOptions(max_completions=20, stop_at_one=False)).counts
    done = simulations(events)
    assert counts["completions"] == sum(event.completed for event in done) == 20
    assert counts["simulations"] == len(done)
    assert counts["known_rewards"] + counts["rewards"] == len(done)
    assert counts["rewards"] == len({event.program for event in done})
    known, evaluated = 0, 1  # the root
    for event in done:
        known += event.evaluated_tokens == evaluated and not event.completed and event.output != event.program
        evaluated = event.evaluated_tokens
    assert counts["known_nodes"] == known
    assert 0 < counts["known_nodes"] <= counts["known_programs"]


@pytest.mark.parametrize("budget", [HORIZON + 1, 30, 77])
@pytest.mark.parametrize("caches", [True, False])
def test_the_budget_of_tokens_is_kept(budget: int, caches: bool) -> None:
    events: list[Any] = []
    options = PlanOptions(max_model_tokens=budget, caches=caches, stop_at_one=False)
    found = plan(request(toy(3), events), options)
    assert found.evaluated_tokens <= budget
    assert found.evaluated_tokens == sum(event.nodes for event in events if isinstance(event, PassEvent))
    assert found.counts["stopped_by_max_model_tokens"] == 1
    assert simulations(events)[0].program == greedy(toy(3))


def test_one_completion_of_one_child_is_greedy_decoding() -> None:
    found = plan(request(toy(4)), PlanOptions(k=1, max_completions=1))
    assert [candidate.token_ids for candidate in found.candidates] == [greedy(toy(4))]
    assert found.evaluated_tokens == len(greedy(toy(4)))


def test_a_search_ends_when_nothing_is_left() -> None:
    model = ToyModel.random(seed=1, vocab_size=3, order=2)
    found = plan(SearchRequest(model, [0], 3, reward=lambda output: 0.5), PlanOptions(k=2))
    assert found.counts["stopped_by_exhausted"] == 1
    assert found.counts["rewards"] == 8 == len(found.candidates)
    assert found.counts["simulations"] == 2 + 4 + 8


def test_a_reward_of_one_ends_it() -> None:
    found = plan(request(toy(1), reward=lambda output: 1.0), PlanOptions())
    assert (found.counts["simulations"], found.counts["stopped_by_solved"]) == (1, 1)
    assert found.evaluated_tokens == len(greedy(toy(1)))
    on = plan(request(toy(1), reward=lambda output: 1.0), PlanOptions(stop_at_one=False, max_completions=5))
    assert on.counts["completions"] == 5


def test_the_first_program_that_reaches_one_is_the_last() -> None:
    """However many came before it; a reward just below 1 ends nothing."""
    events: list[Any] = []
    found = plan(request(toy(2), events), PlanOptions())
    rewards = [event.reward for event in simulations(events)]
    assert found.counts["stopped_by_solved"] == 1 and len(rewards) > 1
    assert rewards[-1] == 1 and max(rewards[:-1]) < 1
    almost = plan(request(toy(2), reward=lambda output: 0.999), PlanOptions(max_completions=5))
    assert almost.counts["stopped_by_max_completions"] == 1


def test_a_search_that_needs_no_model_is_ended() -> None:
    found = plan(request(toy(5)), PlanOptions(max_stalled=1))
    assert found.counts["stopped_by_max_stalled"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"max_completions": 0}, "max_completions"),
        ({"c": -1.0}, "c must be"),
        ({"c_base": 0.0}, "c_base"),
        ({"gamma": 1.5}, "gamma"),
        ({"max_model_tokens": HORIZON}, "max_model_tokens must be above"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        plan(request(toy(1)), PlanOptions(**options))


@pytest.mark.parametrize("value", [1.1, -0.1, math.nan])
def test_bad_rewards(value: float) -> None:
    with pytest.raises(UnspoolError, match=r"\[0, 1\]"):
        plan(request(toy(1), reward=lambda output: value), PlanOptions())
    with pytest.raises(UnspoolError, match="needs a reward"):
        plan(request(toy(1), reward=None), PlanOptions())


DOCTESTS = '''import math

def helper(x):
    return x

def f(a, b=0):
    """Adds.

    >>> c = 2
    >>> f(c, 1)
    3
    >>> f(1, 2) == 3
    >>> f("broken
    >>> f([])
    >>> f(1.5)
    <not a literal>
    """
'''
LINES = '''def f(a):
    """
    f([1, 2]) == 3, and
    f([4]) => 4
    f("a") returns "b".
    f(zero) = 5
    """
'''


def test_examples_of_a_docstring() -> None:
    tests = PublicTests(DOCTESTS)
    assert tests.checks == [
        "c = 2\nassert f(c, 1) == 3",
        "c = 2\nassert f(1, 2) == 3",
        "c = 2\nassert f([]) == None",
    ]
    assert tests("    return a + b if a else None\n") == 1
    assert tests("    return 3\n") == pytest.approx(2 / 3)
    assert tests("    return (\n") == 0
    assert tests("    raise SystemExit(0)\n") == 0
    assert PublicTests(LINES).checks == ["assert f([4]) == 4", "assert f(\"a\") == 'b'"]


@pytest.mark.parametrize("prompt", ["x = 1\n", "def f(:", 'def f():\n    """Nothing."""\n', "def f():\n"])
def test_prompts_without_examples(prompt: str) -> None:
    with pytest.raises(UnspoolError, match=r"fix it|no example"):
        PublicTests(prompt)
