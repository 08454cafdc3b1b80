"""Process replay: what every method decodes, recorded before a change and compared after it, token for token.

A change of structure must not change a token. This records the token ids, the finish reasons and a digest of the trace
(times left out) of 20 prompts under every drafter, acceptance rule, batch plan, shaper, constraint, sampler, search,
program and canvas method, greedy and sampled, on the conformance suite's small model, on SmolLM2 and on tiny-diffusion.

    python -m tests.process_replay record before.json     # on the commit before
    python -m tests.process_replay compare before.json    # after it; lists what differs and exits 1

``--models small,canvas`` leaves SmolLM2 out (a minute instead of ten). The cost curve is
fixed, so that ``auto`` does not depend on measured times. A method that did not exist before is listed, not compared.
Recordings belong to one machine: another processor may round the logits of a real model otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.specs import spec
from unspool import methods
from unspool.conformance import edit, small_model, span
from unspool.conformance.check import options_of
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.cost import CostCurve, PassCosts
from unspool.engine.trace import EndEvent, to_json
from unspool.methods.constraints.monitor.jedi import shared_answers
from unspool.methods.search.plan.reward import PublicTests
from unspool.recipes.tiny_diffusion.short_tasks import SHORT

TIMES = ("ms", "draft_ms", "score_ms", "accept_ms", "observe_ms", "settings")
SETTINGS: dict[str, dict[str, Any]] = {"greedy": {}, "sampled": {"temperature": 0.8, "seed": 3}}
SMALL_PROMPTS = tuple(
    f"{a}{b}{c}"
    for a in ("a=(1,)\n", "x=ab\nx=ab", "count,", "in.co")
    for b in ("x(", "1,1,", "b")
    for c in ("", "\na")
)[:20]
TEXTS = (
    "The capital of France is",
    "Write a haiku about the sea.",
    "def fibonacci(n):\n",
    "List three prime numbers.",
    "Once upon a time there was a fox. The fox said: once upon a time there was",
    "Translate into German: good morning.",
    "1, 2, 3, 4, 5,",
    '{"name": "Ada", "age":',
    "What is 17 + 25? Think step by step.",
    "Repeat after me: red green blue red green blue",
    "import os\nimport sys\n\n\ndef main():\n",
    "Explain why the sky is blue in one sentence.",
    "Summarise: The meeting was moved from Monday to Tuesday because the room was taken on Monday.",
    "Who wrote Hamlet?",
    "A, B, C, D,",
    "for i in range(10):\n    print(i)\nfor j in range(10):\n",
    "Name a fruit, a colour and a city.",
    "Fix the typo: I like aples.",
    "Question: is water wet? Answer:",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
FUNCTION = 'def add(a, b):\n    """Return the sum.\n\n    >>> add(1, 2)\n    3\n    """\n'

Run = Callable[[], Any]


class FixedCosts(PassCosts):
    """A cost curve that measured times do not correct, so that ``auto`` chooses the same trees again."""

    def observe(self, n: int, length: int, ms: float) -> None:
        pass


def names(kind: str) -> list[str]:
    return [name for name, row in methods.methods().items() if row.kind.name == kind]


def assisted(name: str) -> bool:
    return methods.methods()[name].needs.assistant


def plain_data(value: Any) -> Any:
    """Equal data for equal outcomes: dataclasses as dictionaries, without times."""
    if isinstance(value, EndEvent):
        value = to_json(value)  # without the error that it has not
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): plain_data(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_data(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def outcome(result: Any, trace: bool = True) -> dict[str, Any]:
    """What is compared of a result."""
    seen = {"ids": list(result.token_ids), "reason": result.finish_reason, "text": result.text}
    if trace:
        events = json.dumps(plain_data(result.trace), sort_keys=True)
        seen["trace"] = hashlib.sha256(events.encode()).hexdigest()[:16]
    return seen


def small() -> Model:
    """The conformance suite's model, with a draft model beside it."""
    model = small_model.load()
    model._costs = FixedCosts(small_model.CURVE)
    model.assistant = small_model.load(1)
    return model


def on_small() -> Iterator[tuple[str, Run]]:
    """Every slot of the autoregressive loop, each run on a model that has learned nothing."""

    def run(prompt: Any, **request: Any) -> Any:
        result = small().generate(prompt, max_new_tokens=24, logprobs=True, **request)
        return [outcome(one) for one in result] if isinstance(result, list) else outcome(result)

    rules: dict[str, dict[str, Any]] = {**SETTINGS, "lossless": {**SETTINGS["sampled"], "acceptance": "lossless"}}
    grammar = {"regex": methods.methods()["grammar"].case.options["regex"]}
    shaping = {"top_k": 5, "top_p": 0.9, "repetition_penalty": 1.2, "no_repeat_ngram_size": 4}
    for setting, rule in rules.items():
        for method in names("drafter"):
            for extra, more in {"": {}, "/grammar": grammar, "/shaped": shaping}.items():
                for number, prompt in enumerate(SMALL_PROMPTS):
                    key = f"small/{method}/{setting}{extra}/{number}"
                    yield key, lambda p=prompt, m=method, o=rule | more: run(p, method=m, **o)
            for plan in (None, *names("batch")):
                key = f"small/{method}/{setting}/{plan or 'all rows'}"
                yield key, lambda m=method, o=rule, b=plan: run(list(SMALL_PROMPTS[:6]), method=m, batch=b, **o)
        for kind, given in (("shaper", "shapers"), ("constraint", "constraint")):
            for name in names(kind):
                row = methods.methods()[name]
                chosen = spec(name, options_of(row))
                named: dict[str, Any] = {given: [chosen] if kind == "shaper" else chosen}
                for number, prompt in enumerate(row.case.prompts):
                    for method in ("plain", "auto"):
                        key = f"small/{kind}/{name}/{method}/{setting}/{number}"
                        yield key, lambda p=prompt, m=method, o=rule | named: run(p, method=m, **o)
    for name in names("sampler"):
        for number, prompt in enumerate(SMALL_PROMPTS[:4]):
            yield (
                f"small/{name}/{number}",
                lambda n=name, p=prompt: _samples(small(), p, n, options_of(methods.methods()[n])),
            )
    for name in names("search"):
        row = methods.methods()[name]
        reward = {"reward": row.case.reward} if row.needs.reward else {}
        for number, prompt in enumerate(SMALL_PROMPTS):
            yield (
                f"small/{name}/{number}",
                lambda n=name, p=prompt, c=row, r=reward: _search(
                    small(), p, method=spec(n, options_of(c)), max_new_tokens=16, **r
                ),
            )
    for kind, run_one in (("span", span.found), ("edit", edit.edited)):
        for name in names(kind):
            for which in (0, 1):
                yield (
                    f"small/{name}/{which}",
                    lambda f=run_one, n=name, w=which: plain_data(f(methods.methods()[n], small(), w)),
                )


def _samples(model: Model, prompt: str, name: str, options: Any, **request: Any) -> Any:
    found = model.sample(prompt, 4, sampler=name, max_new_tokens=16, seed=1, max_attempts=60, **options, **request)
    return [[outcome(one, False) for one in found.results], found.attempts, found.rejected, found.cut]


def _search(model: Model, prompt: str, **options: Any) -> Any:
    found = model.search(prompt, **options)
    return [[list(c.token_ids), c.finish_reason] for c in found.candidates] + [found.statistics.passes]


def on_smollm2() -> Iterator[tuple[str, Run]]:
    """The same with real logits; what methods learn goes on from prompt to prompt."""
    model = load("smollm2-135m", threads=1, assistant_model="smollm2-135m@int4")
    model._costs = FixedCosts(CostCurve((1, 4, 8, 16, 32, 64), (256,), ((10.0, 11.0, 13.0, 18.0, 30.0, 55.0),)))

    def run(memories: Any, prompt: Any, **request: Any) -> Any:
        return outcome(model.generate(prompt, max_new_tokens=12, memories=memories, **request))

    for method in names("drafter"):
        prompts = TEXTS[:5] if assisted(method) else TEXTS
        for setting, rule in SETTINGS.items():
            memories: dict[str, Any] = {}
            for number, prompt in enumerate(prompts):
                key = f"smollm2/{method}/{setting}/{number}"
                yield key, lambda x=memories, p=prompt, m=method, o=rule: run(x, p, method=m, **o)
    for number, prompt in enumerate(TEXTS):
        for name, more in {
            "lossless": {**SETTINGS["sampled"], "acceptance": "lossless", "method": "stand"},
            "schema": {"json_schema": SCHEMA},
            "shaped": {**SETTINGS["sampled"], "top_p": 0.9, "repetition_penalty": 1.1},
            "stop": {"stop": ["\n", "the"]},
        }.items():
            request = {"method": "token_recycling", **more}
            yield f"smollm2/{name}/{number}", lambda p=prompt, o=request: run({}, p, **o)
    batch = {"method": "token_recycling", "max_new_tokens": 12, "memories": {}}
    for plan in (None, *names("batch")):
        yield (
            f"smollm2/batch/{plan}",
            lambda b=plan: [outcome(one) for one in model.generate(list(TEXTS[:4]), batch=b, **batch)],
        )
    given: dict[str, dict[str, Any]] = {
        "adadec": {"options": {"threshold": 1.0}},
        "plan": {"options": {"max_model_tokens": 200}, "reward": PublicTests(FUNCTION)},
    }
    for name in names("search"):
        options = given.get(name, {})
        chosen = spec(name, options.pop("options", {}))
        yield (
            f"smollm2/{name}",
            lambda n=chosen, o=options: _search(
                model, FUNCTION, method=n, max_new_tokens=32, stop_rule="function_body", chat=False, **o
            ),
        )
    for name in names("sampler"):
        yield f"smollm2/{name}", lambda n=name: _samples(model, "Roll a die.", n, {"regex": "[1-6]{1,2}"})


def on_canvas() -> Iterator[tuple[str, Run]]:
    """Every part of the denoise loop, with the parts that it is usually combined with."""
    model = load("tiny-diffusion")
    rng = np.random.default_rng(0)
    prompts = ["".join(task.sample(rng).prompt) for _ in range(4) for task in SHORT.tasks][:20]
    for kind in ("unmask", "transform", "schedule", "stop"):
        for name in names(kind):
            method = name if kind == "unmask" else f"{name}+top_k"
            for setting, rule in SETTINGS.items():
                for cache in ("none", "prefix"):
                    for number, prompt in enumerate(prompts):
                        yield (
                            f"canvas/{name}/{setting}/{cache}/{number}",
                            lambda p=prompt, m=method, o=rule, c=cache: outcome(
                                model.generate(p, method=m, cache=c, **o)
                            ),
                        )


MODELS = {"small": on_small, "canvas": on_canvas, "smollm2": on_smollm2}


def record(models: Sequence[str]) -> dict[str, Any]:
    """What each run gives. One that cannot be served gives its error, which must stay the same too."""
    seen: dict[str, Any] = {}
    with shared_answers():
        for name in models:
            start = time.monotonic()
            for key, run in MODELS[name]():
                try:
                    seen[key] = run()
                except Exception as error:
                    seen[key] = f"{type(error).__name__}: {error}"
                print(f"\r{len(seen)} runs, {time.monotonic() - start:.0f} s  ", end="", file=sys.stderr)
            print(f"\r{name}: {len(seen)} runs, {time.monotonic() - start:.0f} s", file=sys.stderr)
    return json.loads(json.dumps(seen))  # type: ignore[no-any-return]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--models", default=",".join(MODELS), help="small, canvas, smollm2; all by default")
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    seen = record(models)
    if arguments.verb == "record":
        arguments.file.write_text(json.dumps(seen, indent=0), encoding="utf-8")
        failed = [f"{key}: {value}" for key, value in seen.items() if isinstance(value, str)]
        print(f"{len(seen)} runs recorded, {len(failed)} of them errors", *failed[:20], sep="\n")
        return 0
    before = json.loads(arguments.file.read_text(encoding="utf-8"))
    before = {key: value for key, value in before.items() if key.split("/")[0] in models}
    differ = [key for key, value in before.items() if seen.get(key) != value]
    for key in differ[:20]:
        print(f"{key}\n  before {str(before[key])[:300]}\n  after  {str(seen.get(key))[:300]}")
    print(f"{len(before)} runs compared, {len(differ)} differ, {len(seen.keys() - before.keys())} are new")
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())
