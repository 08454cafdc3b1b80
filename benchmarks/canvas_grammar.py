"""A grammar on a canvas: is every text valid, what becomes of right answers, and what does a step cost?

    python benchmarks/canvas_grammar.py -m tiny-diffusion-long --markdown canvas-grammar.md

Tasks of the long canvas, with and without a grammar, under several policies: JSON, judged by Python's ``json``;
functions, judged by ``ast``; and functions with two holes, each two tokens longer than what stood there, as in no
function that the model was trained on. The grammars say what JSON and a function of simple statements are, and nothing
of the question. Questions are held out and the same everywhere.

- valid: texts that parse; right: answers that are right, too, which no answer with holes of another length is.
- passes: for each text; a token that the grammar refuses waits for another one.
- ms/pass: of the whole, model and grammar, one canvas alone; grammar: its part of that, by difference.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import common
import torch
from rich.progress import track

from unspool.bench.about import about
from unspool.decoding.canvas import DiffusionModel
from unspool.decoding.load import load
from unspool.errors import UnspoolError
from unspool.models.diffusion import find, task_set
from unspool.recipes.tiny_diffusion.long_tasks import LONG
from unspool.recipes.tiny_diffusion.tasks import Symbols, Task, held_out

JSON = r"""
start: object
object: "{" (pair ("," pair)*)? "}"
pair: STRING ":" value
value: object | array | NUMBER | STRING
array: "[" (value ("," value)*)? "]"
STRING: /"[a-z]+"/
NUMBER: /0|[1-9][0-9]*/
"""
PYTHON = r"""
start: "def " NAME "(" NAME "," NAME "):" line+
line: "\n    " (NAME "=" sum | "return " sum)
sum: term (("+" | "-" | "*") term)*
term: NAME | NUMBER
NAME: /[a-z][a-z0-9]*/
NUMBER: /0|[1-9][0-9]*/
"""
POLICIES = (
    "top_k:tokens_per_step=1",
    "top_k:tokens_per_step=8",
    "top_k:tokens_per_step=8,order=random",
    "threshold:threshold=0.5",
    "factor:factor=1.0",
    "entropy_threshold:threshold=0.5",
    "eb_sampler:gamma=0.5",
    "localleap:threshold=0.9,relaxed_threshold=0.5",
    "credit+threshold:threshold=0.5",
    "adablock+threshold:threshold=0.5",
    "static_stop:passes=4+top_k",
    "prophet:high=7.5+top_k",
    "fixed_blocks:block_length=8+learn2pd:threshold=0.9",
)


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


@dataclass(frozen=True)
class Case:
    """``canvas``: what stands on it, from the right answer; None: nothing."""

    name: str
    task: str
    grammar: str
    judge: Callable[[str], bool]
    canvas: Callable[[Symbols], list[str | int]] | None = None


def with_holes(answer: Symbols) -> list[str | int]:
    """The sums of the first two statements of a function, three symbols each, become holes of five.

    At least eight slots stand behind it, as many as make whole blocks of eight.
    """
    first, second, *_ = (i + 1 for i, symbol in enumerate(answer) if symbol == "=")
    texts = ("".join(part) for part in (answer[:first], answer[first + 3 : second], answer[second + 3 :]))
    before, between, behind = texts
    return [before, 5, between, 5, behind, 8 + -(len(answer) + 4) % 8]


CASES = (
    Case("JSON", "json", JSON, is_json),
    Case("Python", "program_free", PYTHON, is_python),
    Case("Python, holes", "program", PYTHON, is_python, with_holes),
)


@dataclass(frozen=True)
class Line:
    """One policy on one task, with or without the grammar; ``ms`` is of a pass."""

    case: str
    policy: str
    grammar: bool
    valid: float
    right: float
    passes: float
    ms: float


def measure(model: DiffusionModel, case: Case, policy: int, grammar: bool, questions: int) -> Line:
    """Decode every question alone, so that a pass is that of one canvas."""
    method = POLICIES[policy]
    task: Task = next(task for task in LONG.tasks if task.name == case.task)
    valid, right, passes, seconds = [], [], 0, 0.0
    for example in held_out(task, questions):
        start = time.perf_counter()
        result = model.generate(
            LONG.prompt_ids(example.prompt),
            method=method,
            grammar=case.grammar if grammar else None,
            canvas=case.canvas(example.answer) if case.canvas else None,
        )
        seconds += time.perf_counter() - start
        passes += result.statistics.passes
        valid.append(case.judge(result.text))
        right.append(task.right(example, LONG.answer_of(result.token_ids)))
    return Line(
        case.name,
        method,
        grammar,
        fmean(valid),
        fmean(right),
        passes / questions,
        1000 * seconds / passes,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="tiny-diffusion-long", help="trained on the long tasks")
    parser.add_argument("--questions", type=int, default=40, help="of each task; 40 by default")
    parser.add_argument("--threads", type=int, default=1, help="of torch; 1 by default")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    args = parser.parse_args()
    common.check_outputs(args.json, args.markdown)
    if task_set(find(args.model)) != "long":
        raise UnspoolError(f"{args.model} was not trained on the long tasks; name a model of --tasks long")
    torch.set_num_threads(args.threads)
    model = load(args.model)
    made_on = about()
    lines: list[Line] = []
    for case in CASES:
        for policy in track(range(len(POLICIES)), case.name):
            lines += [measure(model, case, policy, grammar, args.questions) for grammar in (False, True)]
    rows = []
    for free, bound in zip(lines[::2], lines[1::2], strict=True):
        if bound.valid < 1:
            common.say(f"{bound.case}, {bound.policy}: {bound.valid:.1%} valid under the grammar; please report this")
        rows.append(
            [
                free.case,
                free.policy,
                *(f"{100 * line.valid:.0f}" for line in (free, bound)),
                *(f"{100 * line.right:.0f}" for line in (free, bound)),
                *(common.number(line.passes, 1) for line in (free, bound)),
                common.number(bound.ms, 1),
                common.number(bound.ms - free.ms, 1),
            ]
        )
    header = ["task", "policy", "valid, %", "with grammar", "right, %", "with grammar", "passes", "with grammar"]
    header += ["ms/pass", "grammar"]
    chosen = f"Model {args.model}, {args.questions} questions of each task, {args.threads} thread of torch."
    markdown = "\n\n".join(("# A grammar on a canvas", chosen, common.table(header, rows), common.describe(made_on)))
    common.publish(markdown, {"about": made_on, "lines": [asdict(line) for line in lines]}, args.markdown, args.json)
    return 0 if all(line.valid == 1 for line in lines if line.grammar) else 1


if __name__ == "__main__":
    common.run(main)
