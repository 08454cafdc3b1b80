"""Whether the outputs of unspool's methods equal plain decoding's, and if not, whether rounding explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Protocol

from unspool.bench.process import ContestantError
from unspool.bench.result import Run
from unspool.bench.runner import Plan, Progress
from unspool.errors import UnspoolError
from unspool.methods import PLAIN


class Judge(Protocol):
    """A process that holds plain decoding's model (``process.Worker``)."""

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]: ...

    def close(self) -> None: ...


def judge(
    plan: Plan, runs: Sequence[Run], open_judge: Callable[[], Judge], progress: Progress
) -> dict[str, dict[str, int]]:
    """By contestant, the number of runs identical to plain's, of ties and of faults.

    Only methods of unspool with plain's weights are compared, run by run, so sampled texts share a seed. No judge is
    opened if all outputs are equal.

    Raises:
        UnspoolError: if the judge fails.
    """
    outputs: dict[str, dict[tuple[str, int], list[int]]] = {}
    for run in runs:
        outputs.setdefault(run.contestant, {})[run.prompt, run.repeat] = run.token_ids
    keys = list(outputs[PLAIN])
    weights = plan.contestants[0].weights
    names = [c.name for c in plan.contestants if c.weights == weights and c.name != PLAIN]
    identical = {name: sum(outputs[name][key] == outputs[PLAIN][key] for key in keys) for name in names}
    parted = [name for name in names if identical[name] < len(keys)]
    found: dict[str, list[str]] = {}
    if parted:
        progress.say("judging the differences from plain decoding")
        try:
            with closing(open_judge()) as worker:
                found = worker.ask(
                    "judge",
                    cases=[{"ids": plan.ids[prompt], "output": outputs[PLAIN][prompt, n]} for prompt, n in keys],
                    runs={name: [outputs[name][key] for key in keys] for name in parted},
                    temperature=plan.temperature,
                    seed=plan.seed,
                    max_new_tokens=plan.max_new_tokens,
                    eos=plan.eos,
                )
        except ContestantError as error:
            raise UnspoolError(f"the differences from plain decoding could not be judged: {error}") from error
    return {
        name: {
            "identical": identical[name],
            "ties": found.get(name, []).count("tie"),
            "faults": found.get(name, []).count("fault"),
        }
        for name in names
    }
