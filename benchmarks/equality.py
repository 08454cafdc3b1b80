"""Token identity of every method with plain decoding of the same backend, or of plain decoding with transformers.

Greedy, and sampled with the same noise. Two runs are compared up to their first difference; after it their prefixes
differ. A difference is a **tie** if rounding explains it and a **fault** if not:

- gap: plain decoding's score of its own token minus its score of the token that the other run took, both from the pass
  over one node. A score is the shaped logit, plus the position's Gumbel noise when sampling.
- noise of the backend: the text that plain decoding gave is scored again, as chains of 1, 2, 4, ..., 64 nodes a pass,
  each pass committed. It is the largest change, over positions, widths and prompts (the first 8 and those where a run
  differs), of the difference between the
  scores of plain's token and of the runner-up. No method has a part in it.
- tie: gap below the noise. A run that ends where the other goes on is a fault whatever the gap.

Exit code 1 if there is a fault.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
from numpy.typing import NDArray

from unspool import methods
from unspool.api import Model, load
from unspool.engine import noise
from unspool.engine.contracts import LanguageModel, Memory
from unspool.engine.loop import PREFILL_BLOCK
from unspool.engine.trace import StepEvent
from unspool.engine.tree import TokenTree
from unspool.errors import UnspoolError

WIDTHS = (1, 2, 4, 8, 16, 32, 64)
NOISE_CASES = 8


@dataclass(frozen=True)
class Case:
    """A prompt and what plain decoding made of it."""

    question_id: int
    prompt: list[int]
    seed: int
    token_ids: list[int]
    margins: list[float]


@dataclass
class Difference:
    """The first difference of a run from plain decoding.

    Attributes:
        index: of the output token, from 0.
        plain, other: the tokens; None where that run had ended.
        margin: of plain's choice over its runner-up, as the trace tells; None where plain had ended.
        gap: of plain's choice over ``other``; None where a run had ended.
        verdict: ``tie`` or ``fault``; empty until the noise is known.
    """

    question_id: int
    seed: int
    index: int
    plain: int | None
    other: int | None
    margin: float | None
    gap: float | None = None
    verdict: str = ""


Found = list[tuple[Case, Difference]]


def first_difference(case: Case, other: Sequence[int]) -> Difference | None:
    """Where ``other`` leaves plain decoding, or None."""
    plain = case.token_ids
    for index in range(max(len(plain), len(other))):
        a = plain[index] if index < len(plain) else None
        b = other[index] if index < len(other) else None
        if a != b:
            margin = case.margins[index] if a is not None else None
            return Difference(case.question_id, case.seed, index, a, b, margin)
    return None


Rescored = Iterator[NDArray[Any]]


def rescored(model: LanguageModel, case: Case, width: int) -> Rescored:
    """Raw logits that decided each output token, from passes of ``width`` nodes over plain's own text."""
    prompt, text = len(case.prompt), [*case.prompt, *case.token_ids]
    session = model.open()
    for at in range(0, prompt - 1, PREFILL_BLOCK):
        block = text[at : min(at + PREFILL_BLOCK, prompt - 1)]
        session.score(TokenTree.chain(block), rows=())
        session.commit(range(len(block)))
    for start in range(prompt - 1, len(text) - 1, width):
        end = min(start + width, len(text) - 1)
        while (at := session.length) < end:  # as decoding does, no pass is deeper than the session has room for
            block = text[at : min(at + session.room, end)]
            yield from session.score(TokenTree.chain(block)).logits
            session.commit(range(len(block)))
    session.close()


def rescored_at_once(model: LanguageModel, case: Case) -> Rescored:
    """The same from one pass over prompt and output, as a backend that does not prefill in blocks sees them."""
    text = [*case.prompt, *case.token_ids[:-1]]
    session = model.open()
    yield from session.score(TokenTree.chain(text), rows=range(len(case.prompt) - 1, len(text))).logits
    session.close()


def changes(
    model: LanguageModel, case: Case, temperature: float, differences: Sequence[Difference], at_once: bool
) -> list[float]:
    """Change of plain's lead over the runner-up, per position and width; also fills in the gap of each difference."""

    def score(row: NDArray[Any], index: int) -> NDArray[np.float64]:
        scores = row.astype(np.float64)
        if temperature:
            position = len(case.prompt) + index
            scores = scores / temperature - np.log(noise.exponential(case.seed, position, len(scores)))
        return scores

    runners: list[int] = []
    leads: list[float] = []
    wanted = {d.index: d for d in differences if d.plain is not None and d.other is not None}
    for index, row in enumerate(rescored(model, case, 1)):
        scores, token = score(row, index), case.token_ids[index]
        others = scores.copy()
        others[token] = -np.inf
        runners.append(int(np.argmax(others)))
        leads.append(float(scores[token] - scores[runners[-1]]))
        for difference in differences:
            if difference.index in wanted and difference.index == index and difference.other is not None:
                difference.gap = float(scores[token] - scores[difference.other])
    passes: list[Rescored] = [rescored(model, case, width) for width in WIDTHS[1:]]
    if at_once:
        passes.append(rescored_at_once(model, case))
    found = []
    for rows in passes:
        for index, row in enumerate(rows):
            scores = score(row, index)
            lead = scores[case.token_ids[index]] - scores[runners[index]]
            found.append(abs(float(lead) - leads[index]))
    return found


Decode = Callable[[list[int], int], list[int]]


def decoder(model: Model, method: str, temperature: float, max_new_tokens: int) -> Decode:
    """Decodes (prompt, seed) by a method whose memories start empty and stay from prompt to prompt."""
    memories: dict[str, Memory] = {}

    def decode(prompt: list[int], seed: int) -> list[int]:
        result = model.generate(
            prompt,
            method=method,
            temperature=temperature,
            seed=seed,
            max_new_tokens=max_new_tokens,
            memories=memories,
        )
        return list(result.token_ids)

    return decode


def judge(model: Model, max_new_tokens: int) -> Decode:
    """transformers' own greedy ``generate`` on the torch model that the backend holds."""
    import torch
    from transformers import GenerationConfig

    from unspool.backends.transformers import TransformersModel

    if not isinstance(model.language_model, TransformersModel):
        raise UnspoolError("--judge transformers compares the torch backend; add --backend transformers")
    network = model.language_model.model
    # The model's own generation configuration would fill in penalties.
    network.generation_config = GenerationConfig()
    eos = sorted(model.eos_token_ids)

    def decode(prompt: list[int], _seed: int) -> list[int]:
        ids = torch.tensor([prompt])
        out = network.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos,
            pad_token_id=eos[0] if eos else 0,
        )
        return [int(token) for token in out[0, len(prompt) :]]

    return decode


def plain_cases(
    model: Model, prompts: Sequence[common.Prompt], temperature: float, seed: int, max_new_tokens: int
) -> list[Case]:
    """Plain decoding of all prompts; prompt ``i`` is sampled with seed ``seed + i``."""
    cases = []
    for i, prompt in enumerate(prompts):
        ids = model.encode(prompt.text)
        result = model.generate(
            ids, method="plain", temperature=temperature, seed=seed + i, max_new_tokens=max_new_tokens
        )
        steps = [event for event in result.trace if isinstance(event, StepEvent)]
        margins = [margin for step in steps for margin in step.margins]
        cases.append(Case(prompt.question_id, ids, seed + i, result.token_ids, margins))
        common.say(f"plain, temperature {temperature:g}: {i + 1} of {len(prompts)}")
    return cases


def examine(
    model: Model, cases: Sequence[Case], temperature: float, others: Mapping[str, Decode], at_once: bool
) -> list[dict[str, Any]]:
    """One row per run that is compared with plain decoding."""
    found: dict[str, Found] = {}
    compared: dict[str, int] = {}
    for name, decode in others.items():
        found[name], compared[name] = [], 0
        for i, case in enumerate(cases, 1):
            difference = first_difference(case, decode(case.prompt, case.seed))
            # The token that differs was compared too.
            compared[name] += len(case.token_ids) if difference is None else difference.index + 1
            if difference is not None:
                found[name].append((case, difference))
            common.say(f"{name}, temperature {temperature:g}: {i} of {len(cases)}, {len(found[name])} differ")
    values: list[float] = []
    for i, case in enumerate(cases, 1):
        own = [difference for pairs in found.values() for other, difference in pairs if other is case]
        if not own and i > NOISE_CASES:
            continue
        values += changes(model.language_model, case, temperature, own, at_once)
        common.say(f"noise, temperature {temperature:g}: {i} of {len(cases)}, so far {max(values, default=0):.3g}")
    limit = max(values, default=0.0)
    rows = []
    for name, pairs in found.items():
        for _, difference in pairs:
            difference.verdict = "tie" if difference.gap is not None and difference.gap < limit else "fault"
        verdicts = [difference.verdict for _, difference in pairs]
        rows.append(
            {
                "run": name,
                "temperature": temperature,
                "prompts": len(cases),
                "identical": len(cases) - len(pairs),
                "tokens_compared": compared[name],
                "ties": verdicts.count("tie"),
                "faults": verdicts.count("fault"),
                "noise": limit,
                "noise_median": float(np.median(values)) if values else 0.0,
                "differences": [asdict(difference) for _, difference in pairs],
            }
        )
    return rows


def report(rows: Sequence[Mapping[str, Any]], about: dict[str, Any], settings: str) -> str:
    """The Markdown that is committed beside the JSON."""
    body = [
        [
            f"{row['model']}, {row['run']}, {row['temperature']:g}",
            *(row[key] for key in ("prompts", "identical", "tokens_compared", "ties", "faults")),
            f"{row['noise']:.3g} ({row['noise_median']:.2g})",
        ]
        for row in rows
    ]
    head = ["model, run, temperature", "prompts", "identical", "tokens compared", "ties", "faults", "noise (median)"]
    definition = (
        "Compared with plain decoding of the same backend, up to the first difference. Noise: largest change of the "
        "lead of plain's token over the runner-up when plain's own text is scored at 2 to 64 nodes a pass instead of "
        "1. A difference is a tie if plain's lead over the token that the run took is below the noise, else a fault. "
        "Scores are logits ÷ temperature plus the position's Gumbel noise when sampling."
    )
    parts = ["# Token identity", common.describe(about), settings, definition, common.table(head, body)]
    details = [
        [
            f"{row['model']}, {row['run']}, {row['temperature']:g}",
            *(difference[key] for key in ("question_id", "seed", "index", "plain", "other")),
            *("–" if difference[key] is None else f"{difference[key]:.3g}" for key in ("margin", "gap")),
            difference["verdict"],
        ]
        for row in rows
        for difference in row["differences"]
    ]
    if details:
        columns = ["model, run, temperature", "question", "seed", "token", "plain", "run's", "margin", "gap", "verdict"]
        parts += ["## Differences", common.table(columns, details)]
    return "\n\n".join(parts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Spec-Bench's question.jsonl or a file of its form")
    parser.add_argument("--models", default="smollm2-135m,qwen2.5-coder-0.5b", help="comma-separated")
    parser.add_argument("--backend", default="openvino", help="openvino (default) or transformers")
    parser.add_argument("--weights", default="int8", help="for openvino; int8 by default")
    parser.add_argument("--methods", help="comma-separated; by default all drafters that promise identical tokens")
    parser.add_argument("--judge", choices=["transformers"], help="compare with this instead of with methods; greedy")
    parser.add_argument("--prompts", type=int, default=40, help="number, spread over the categories; 40 by default")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="128 by default")
    parser.add_argument("--temperatures", default="0,0.8", help="comma-separated; 0,0.8 by default")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of prompts; prompt i samples with seed + i")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    common.check_outputs(arguments.json, arguments.markdown)
    about = common.surroundings()
    prompts = common.interleave(common.read_prompts(arguments.data), arguments.seed)[: arguments.prompts]
    drafters = [m.name for m in methods.methods().values() if m.kind == "drafter" and m.guarantee == "identical"]
    names = arguments.methods.split(",") if arguments.methods else [name for name in drafters if name != "plain"]
    for name in names:
        methods.find(name, "drafter")
    temperatures = [0.0] if arguments.judge else [float(value) for value in arguments.temperatures.split(",")]
    limit = arguments.max_new_tokens
    options = {"weights": arguments.weights} if arguments.backend == "openvino" else {}
    rows: list[dict[str, Any]] = []
    for model_name in arguments.models.split(","):
        model = load(model_name, backend=arguments.backend, report=common.say, **options)
        for temperature in temperatures:
            others = (
                {"transformers.generate": judge(model, limit)}
                if arguments.judge
                else {name: decoder(model, name, temperature, limit) for name in names}
            )
            cases = plain_cases(model, prompts, temperature, arguments.seed, limit)
            examined = examine(model, cases, temperature, others, at_once=arguments.judge is not None)
            rows += [{"model": model.name, "settings": model.language_model.settings, **row} for row in examined]
    chosen = (
        f"Backend {arguments.backend}, weights {rows[0]['settings']['weights']}; {len(prompts)} prompts of "
        f"{arguments.data.name}, spread over its categories; max_new_tokens {limit}; seed {arguments.seed}."
    )
    common.publish(
        report(rows, about, chosen), {**about, "chosen": chosen, "rows": rows}, arguments.markdown, arguments.json
    )
    return 1 if any(row["faults"] for row in rows) else 0


if __name__ == "__main__":
    common.run(main)
