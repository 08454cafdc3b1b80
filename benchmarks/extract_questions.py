"""Questions about the documentation of installed packages, made by rule, so that the right span is known."""

from __future__ import annotations

import inspect
import random
import re
import string
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata

MODULES = ("numpy", "numpy.linalg", "numpy.fft", "numpy.ma", "numpy.strings")
FIELDS = {
    "Version": "Which version of {} is this?",
    "Summary": "What is {}?",
    "Author": "Who wrote {}?",
    "License": "Under which licence is {}?",
    "License-Expression": "Under which licence is {}?",
    "Requires-Python": "Which versions of Python does {} need?",
}


@dataclass(frozen=True)
class Case:
    kind: str
    passage: str
    question: str
    answer: str


def from_metadata(longest: int) -> Iterator[Case]:
    """One passage a package: the short one-line fields that its metadata begin with."""
    for package in sorted(metadata.distributions(), key=lambda d: d.name.lower()):
        found = {key: package.metadata[key] for key in ("Name", *FIELDS) if key in package.metadata}
        found = {key: value for key, value in found.items() if "\n" not in value and len(value) < 150}
        passage = "\n".join(f"{key}: {value}" for key, value in found.items())
        for key, question in FIELDS.items():
            if key in found and len(passage) <= longest:
                yield Case(key, passage, question.format(found["Name"]), found[key])


def from_docstrings(longest: int) -> Iterator[Case]:
    """What the sections of a docstring in numpy's style say of parameters and of what is returned."""
    for module in MODULES:
        for name, function in sorted(vars(import_module(module)).items()):
            text = inspect.getdoc(function) if callable(function) and not name.startswith("_") else None
            head = re.split(r"\n+(?:See Also|Notes|References|Examples|Raises)\n-+\n", text or "")[0].strip()
            if not head or len(head) > longest:
                continue
            parameters, _, returned = head.partition("\nReturns\n-------\n")
            for parameter, kind in re.findall(r"^(\w+) : (.+)$", parameters, re.MULTILINE):
                answer = kind.partition(", optional")[0].strip()
                yield Case("parameter", head, f"What is the type of the parameter {parameter} of {name}?", answer)
            if kind := re.match(r"\w+ : (.+)\n", returned):
                yield Case("returns", head, f"What is the type of what {name} returns?", kind[1].strip())


def cases(longest: int, limit: int, seed: int) -> list[Case]:
    """As many of either source, drawn without replacement; one question a passage."""
    rng = random.Random(seed)
    chosen = []
    for source, count in ((from_docstrings, limit - limit // 2), (from_metadata, limit // 2)):
        passages: dict[str, list[Case]] = {}
        for case in source(longest):
            passages.setdefault(case.passage, []).append(case)
        chosen += [rng.choice(passages[p]) for p in rng.sample(sorted(passages), max(0, min(count, len(passages))))]
    return chosen


def words(text: str) -> list[str]:
    """As SQuAD compares them: lower case, no punctuation, no articles."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(text: str, answer: str) -> float:
    mine, right = words(text), words(answer)
    if not mine or not right:
        return float(mine == right)
    common_words = (Counter(mine) & Counter(right)).total()
    return 2 * common_words / (len(mine) + len(right))
