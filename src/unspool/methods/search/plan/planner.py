"""The search of PG-TD: simulations until a budget is spent (see ``plan``)."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from unspool.engine.frontier import BudgetSpentError, Frontier, roll_out
from unspool.engine.option import Options, option
from unspool.engine.search import Branch, Candidate, Distribution, Found, Output, SearchEvent, SearchRequest
from unspool.errors import UnspoolError
from unspool.methods.search.plan.cache import Alternatives, PlanCache, Program
from unspool.methods.search.plan.tree import Node, back_up, select

_SESSIONS = 4
StopReason = Literal["exhausted", "solved", "max_completions", "max_model_tokens", "max_stalled"]


@dataclass(frozen=True)
class PlanOptions(Options):
    """Defaults are those of the paper's code, which has no ``max_model_tokens``, no ``max_stalled`` and no
    ``stop_at_one``.

    Attributes:
        k: children of a node, at least 1.
        c, c_base: constants of P-UCB; at least 0, above 0.
        gamma: discount for each token between a prefix and its reward, in (0, 1].
        max_completions: most programs that the model completes, at least 1.
        max_model_tokens: most tokens that the model evaluates, more than ``max_new_tokens``; None: no limit. A
            completion that would need more is abandoned.
        stop_at_one: whether a reward of 1, the highest, ends the search.
        max_stalled: most simulations in a row that need no model.
        caches: whether caches are used; without them the same search costs more.
    """

    k: int = option(3, least=1)
    c: float = option(4.0, least=0, below=float("inf"))
    c_base: float = option(10.0, above=0, below=float("inf"))
    gamma: float = option(1.0, above=0, most=1)
    max_completions: int = option(768, least=1)
    max_model_tokens: int | None = None
    stop_at_one: bool = True
    max_stalled: int = option(1000, least=1)
    caches: bool = True


@dataclass(frozen=True)
class SimulationEvent(SearchEvent):
    """One simulation is finished.

    Attributes:
        index: from 0.
        output: the prefix that was expanded.
        program: its completion.
        reward: of the program.
        best: largest reward so far.
        completed: whether the model completed it; else it was known or already complete.
        evaluated_tokens: tokens that the model has evaluated so far.
    """

    index: int
    output: Output
    program: Output
    reward: float
    best: float
    completed: bool
    evaluated_tokens: int


class Planner:
    """One search.

    Attributes:
        root: root of the tree; exists once ``run`` is called.
    """

    root: Node

    def __init__(self, request: SearchRequest, options: PlanOptions) -> None:
        if request.reward is None:
            raise UnspoolError("plan needs a reward; give reward=, such as the examples in the prompt's docstring")
        budget = options.max_model_tokens
        if budget is not None and budget <= request.max_new_tokens:
            raise UnspoolError(
                f"max_model_tokens must be above max_new_tokens ({request.max_new_tokens}), so that one program fits, "
                f"not {budget}"
            )
        self._request = request
        self._options = options
        self._reward = request.reward
        self._cache = PlanCache()
        self._rewards: dict[Output, float] = {}
        self._programs: dict[Output, Program] = {}  # in the order they were found
        self._best = 0.0
        self._counts = dict.fromkeys(
            ("simulations", "completions", "known_programs", "known_nodes", "known_rewards", "rewards"), 0
        )

    def run(self) -> Found:
        """Search until a budget is spent or nothing is left; candidates are all programs, best first."""
        request, options = self._request, self._options
        frontier = Frontier(
            request.model,
            request.prompt,
            sessions=_SESSIONS,
            budget=options.max_model_tokens,
            on_event=request.on_event,
        )
        with closing(frontier):
            self.root = Node((), 0.0, self._alternatives(frontier, ()))
            stalled = 0
            while (reason := self._stop(stalled)) is None:
                try:
                    needed = self._simulate(frontier)
                except BudgetSpentError:
                    reason = "max_model_tokens"
                    break
                stalled = 0 if needed else stalled + 1
            candidates = [
                Candidate(program.output, program.logprob, self._rewards[output], program.finish_reason)
                for output, program in self._programs.items()
            ]
            # Stable: the program found first wins a tie.
            candidates.sort(key=lambda candidate: -candidate.score)
            counts = {**self._counts, "best_reward": self._best, f"stopped_by_{reason}": 1}
            return Found(tuple(candidates), frontier.passes, frontier.evaluated_tokens, counts)

    def _stop(self, stalled: int) -> StopReason | None:
        options = self._options
        if options.stop_at_one and self._best >= 1:
            return "solved"
        if self.root.exhausted:
            return "exhausted"
        if self._counts["completions"] >= options.max_completions:
            return "max_completions"
        return "max_stalled" if stalled >= options.max_stalled else None

    def _simulate(self, frontier: Frontier) -> bool:
        """One simulation; returns whether it needed the model."""
        request, options = self._request, self._options
        before = frontier.evaluated_tokens
        path = select(self.root, options.c, options.c_base)
        node, edge = path[-1]
        branch = Branch((*node.output, edge.token), node.logprob + edge.logprob)
        output, logprob = branch.output, branch.logprob
        reason = request.finished(output)
        program = self._cache.program(output)
        completed = False
        if program is not None:
            self._counts["known_programs"] += 1
            self._counts["known_nodes"] += reason is None
        elif reason is not None:
            program = Program(output, logprob, reason)
        else:
            program = self._complete(frontier, branch)
            completed = True
        child = Node(output, logprob, self._alternatives(frontier, output) if reason is None else ())
        reward = self._rewarded(program)
        self._best = max(self._best, reward)
        back_up(path, child, reward, options.gamma)
        event = SimulationEvent(
            self._counts["simulations"],
            output,
            program.output,
            reward,
            self._best,
            completed,
            frontier.evaluated_tokens,
        )
        self._counts["simulations"] += 1
        self._counts["completions"] += completed
        request.on_event(event)
        return frontier.evaluated_tokens > before

    def _complete(self, frontier: Frontier, branch: Branch) -> Program:
        start, seen = len(branch.output), dict[Output, Alternatives]()

        def note(output: Output, distribution: Distribution) -> None:
            seen[output] = distribution.top(self._options.k)

        steps = self._request.max_new_tokens - start
        roll_out(frontier, [branch], steps, self._request.ended, note)
        reason = self._request.finished(branch.output)
        assert reason is not None, "a roll-out ends for a reason"
        program = Program(branch.output, branch.logprob, reason)
        if self._options.caches:
            self._cache.record(program, start, seen)
        return program

    def _alternatives(self, frontier: Frontier, output: Output) -> Alternatives:
        known = self._cache.alternatives(output)
        if known is not None:
            return known
        (distribution,) = frontier.read([output])
        return distribution.top(self._options.k)

    def _rewarded(self, program: Program) -> float:
        known = self._rewards.get(program.output)
        if known is not None and self._options.caches:
            self._counts["known_rewards"] += 1
            return known
        reward = float(self._reward(program.output))
        if not 0 <= reward <= 1:
            raise UnspoolError(f"a reward must lie in [0, 1], not {reward}; fix the reward function")
        self._counts["rewards"] += 1
        self._rewards[program.output] = reward
        self._programs.setdefault(program.output, program)
        return reward
