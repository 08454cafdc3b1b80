"""Samples of a grammar from the model's own distribution: ``asap`` and ``cars`` against masking and rejection.

    python benchmarks/aligned.py --exact smollm2-135m --real qwen2.5-coder-0.5b --markdown aligned.md

Exact part: the language is small enough to score every text of it, in all its spellings by tokens, in one pass. So the
distribution that is meant is known, and so is the one that a sampler draws from next, from its trie.

- KL: of the sampler's next draw from the distribution that is meant, in nats; 0 is exact. Mean over runs.
- TV: distance of many draws from it, beside what draws from the very distribution would show.

Real part: one prompt, JSON of a schema, so many draws by each sampler.

- log P: mean log-probability, under the model alone, of the texts (with their end token).
- passes: of the model, for each valid text; attempts likewise.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import common
import numpy as np
from jsonschema import Draft202012Validator
from numpy.typing import NDArray
from rich.progress import track

import unspool
from unspool import methods
from unspool.bench.about import about
from unspool.engine.autoregressive import extend
from unspool.engine.method import CONSTRAINT
from unspool.engine.numeric import softmax
from unspool.engine.tree import TokenTree
from unspool.methods.sampling._trie import AlignedTrie

PROMPT, REGEX = "Write five random binary digits, like 01001, and nothing else.", "[01]{5}"
REQUEST = 'Invent a person. Answer with one line of JSON like {"name": "Ada", "age": 36, "likes": ["tea"]} and no more.'
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "likes": {
            "type": "array",
            "items": {"enum": ["tea", "music", "chess", "running"]},
            "minItems": 1,
            "maxItems": 2,
        },
    },
    "required": ["name", "age", "likes"],
    "additionalProperties": False,
}
AFTER = (0, 1, 2, 5, 10, 20, 50, 100)

Path_ = tuple[int, ...]


@dataclass
class Language:
    """Every text of a small language.

    Attributes:
        p: [vocabulary] of the model, after each path that a text may begin with.
        legal: tokens that may follow each of them.
        exact: probability of each text, given the language.
        mass: of the language under the model.
    """

    p: dict[Path_, NDArray[np.float64]]
    legal: dict[Path_, list[int]]
    exact: dict[Path_, float]
    mass: float

    def next_draw(self, trie: AlignedTrie | None) -> dict[Path_, float]:
        """What masking draws from (without a trie), or ``asap`` with this one."""
        found: dict[Path_, float] = {}

        def follow(path: Path_, q: float) -> None:
            if path not in self.legal:
                found[path] = q
                return
            bounds = (trie.bounds(path) if trie else None) or {}
            weights = [self.p[path][token] * math.exp(bounds.get(token, 0.0)) for token in self.legal[path]]
            for token, weight in zip(self.legal[path], weights, strict=True):
                follow((*path, token), q * weight / sum(weights))

        follow((), 1.0)
        return found


def enumerate_language(model: unspool.Model, ids: Sequence[int]) -> Language:
    """Walk the grammar without the model, then score the whole tree of prefixes in one pass."""
    grammar = methods.build("grammar", CONSTRAINT, model.resources(), {"regex": REGEX})(list(ids))
    ends = model.eos_token_ids
    legal: dict[Path_, list[int]] = {}
    waiting: list[Path_] = [()]
    while waiting:
        path = waiting.pop()
        mask = grammar.allowed(path)
        assert mask is not None
        legal[path] = np.flatnonzero(mask).tolist()
        waiting += [(*path, token) for token in legal[path] if token not in ends]
    order = sorted(legal, key=len)
    place = {path: node for node, path in enumerate(order)}
    session = model.language_model.open()
    extend(session, ids[:-1])
    tokens = tuple(path[-1] if path else ids[-1] for path in order)
    parents = tuple(place[path[:-1]] if path else -1 for path in order)
    logits = session.score(TokenTree(tokens, parents)).logits
    p = {path: softmax(logits[node].astype(np.float64)) for path, node in place.items()}
    session.close()
    chance: dict[Path_, float] = {}

    def follow(path: Path_, q: float) -> None:
        if path in legal:
            for token in legal[path]:
                follow((*path, token), q * float(p[path][token]))
        else:
            chance[path] = q

    follow((), 1.0)
    mass = sum(chance.values())
    return Language(p, legal, {path: q / mass for path, q in chance.items()}, mass)


def divergence(p: dict[Path_, float], q: dict[Path_, float]) -> float:
    """KL(p || q) in nats."""
    return sum(value * float(np.log(value / q[path])) for path, value in p.items() if value)


def distance(seen: Counter[Path_], exact: dict[Path_, float]) -> float:
    """Total variation."""
    count = sum(seen.values())
    return 0.5 * sum(abs(seen[path] / count - exact.get(path, 0.0)) for path in seen.keys() | exact.keys())


def exact_part(model: unspool.Model, runs: int, draws: int) -> tuple[str, dict[str, Any]]:
    ids = model.encode(PROMPT)
    language = enumerate_language(model, ids)
    longest = max(map(len, language.exact))
    grammar = {"regex": REGEX, "max_new_tokens": longest}
    kl: dict[int, list[float]] = {n: [] for n in AFTER}
    for run in track(range(runs), "runs of asap"):
        trie, done = None, 0
        for n in AFTER:
            if n > done:
                trie = model.sample(ids, n - done, sampler="asap", trie=trie, seed=1000 * run + n, **grammar).trie
                done = n
            kl[n].append(divergence(language.next_draw(trie), language.exact))
    seen: Counter[Path_] = Counter()
    first: list[int] = []
    for run in track(range(draws // 10), "runs of cars"):
        samples = model.sample(ids, 10, sampler="cars", seed=run, max_attempts=100_000, **grammar)
        seen.update(tuple(result.token_ids) for result in samples.results)
        first.append(samples.attempts)
    rng = np.random.default_rng(0)
    texts, chances = list(language.exact), np.array(list(language.exact.values()))
    drawn = [Counter(dict(zip(texts, rng.multinomial(draws, chances), strict=True))) for _ in range(200)]
    noise = fmean(distance(counter, language.exact) for counter in drawn)
    masked = divergence(language.next_draw(None), language.exact)
    rows = [["masking, for ever", common.number(masked, 4)]]
    rows += [[f"asap after {n}", common.number(fmean(values), 4)] for n, values in kl.items()]
    facts = {
        "texts": len(language.exact),
        "mass": language.mass,
        "kl": {n: fmean(values) for n, values in kl.items()},
        "kl_masked": masked,
        "cars_tv": distance(seen, language.exact),
        "noise_tv": noise,
        "attempts_of_ten": fmean(first),
        "attempts_of_ten_by_rejection": 10 / language.mass,
    }
    markdown = (
        f"## Exact: {model.name}, `{REGEX}`\n\n"
        f"{facts['texts']} token sequences, which hold {language.mass:.2g} of the model's probability. {runs} runs.\n\n"
        + common.table(["sampler", "KL"], rows)
        + f"\n\ncars, {draws} draws, the first ten of every run: TV {facts['cars_tv']:.3f}; draws from the very "
        f"distribution: {noise:.3f}. Ten draws took {facts['attempts_of_ten']:.1f} attempts; plain rejection would "
        f"take {facts['attempts_of_ten_by_rejection']:.0f}."
    )
    return markdown, facts


def real_part(model: unspool.Model, draws: int, max_new_tokens: int) -> tuple[str, dict[str, Any]]:
    ids = model.encode(REQUEST)
    grammar: dict[str, Any] = {"json_schema": SCHEMA, "max_new_tokens": max_new_tokens}
    validator = Draft202012Validator(SCHEMA)
    rows, facts = [], {}
    for sampler in ("masking", "asap", "cars"):
        texts: list[Path_] = []
        if sampler == "masking":
            passes, attempts = 0, draws
            for seed in track(range(draws), sampler):
                result = model.generate(ids, temperature=1.0, seed=seed, **grammar)
                passes += result.statistics.passes
                if result.finish_reason == "stop":
                    texts.append(tuple(result.token_ids))
        else:
            samples = model.sample(ids, draws, sampler=sampler, max_attempts=20 * draws, **grammar)
            texts = [tuple(result.token_ids) for result in samples.results]
            passes, attempts = samples.passes, samples.attempts
        said = [model.tokenizer.decode(text[:-1]) for text in texts]
        valid = sum(validator.is_valid(json.loads(text)) for text in said)
        chance = {text: logprob(model, ids, text) for text in set(texts)}
        line = {
            "sampler": sampler,
            "texts": len(texts),
            "valid": valid,
            "different": len(set(texts)),
            "log P": fmean(chance[text] for text in texts),
            "attempts/text": attempts / len(texts),
            "passes/text": passes / len(texts),
        }
        facts[sampler] = line
        rows.append([value if isinstance(value, str | int) else common.number(value) for value in line.values()])
    markdown = (
        f"## JSON: {model.name}, {draws} draws of one prompt\n\n"
        + common.table(list(facts["cars"]), rows)
        + "\n\nDrafts by `auto` under all three, so that passes are fewer than tokens."
    )
    return markdown, facts


def logprob(model: unspool.Model, ids: Sequence[int], text: Path_) -> float:
    """Of a text behind a prompt, without grammar."""
    session = model.language_model.open()
    extend(session, ids[:-1])
    logits = session.score(TokenTree.chain([ids[-1], *text[:-1]])).logits
    total = sum(float(np.log(softmax(row.astype(np.float64))[token])) for row, token in zip(logits, text, strict=True))
    session.close()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", default="smollm2-135m", help="model of the exact part")
    parser.add_argument("--real", default="qwen2.5-coder-0.5b", help="model of the JSON part")
    parser.add_argument("--runs", type=int, default=20, help="of asap, exact part")
    parser.add_argument("--draws", type=int, default=400, help="of cars, exact part")
    parser.add_argument("--texts", type=int, default=200, help="of each sampler, JSON part")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="JSON part")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    common.check_outputs(args.markdown, args.json)
    made_on = about()
    exact, facts = exact_part(unspool.load(args.exact, report=common.say), args.runs, args.draws)
    real, figures = real_part(unspool.load(args.real, report=common.say), args.texts, args.max_new_tokens)
    markdown = "\n\n".join(("# Grammar-aligned sampling", exact, real, common.describe(made_on)))
    common.publish(markdown, {"about": made_on, "exact": facts, "real": figures}, args.markdown, args.json)


if __name__ == "__main__":
    common.run(main)
