"""What ADED and STAND claim, measured: what a table learns from text, what a search adds, what drawing adds.

ADED, greedy; every table starts empty, or with a corpus, and stays from prompt to prompt:
- nodes: tokens a pass by the size of the tree, and what drafting costs.
- no update: the table does not learn from the text. The early and the late half of the answers tell what that costs.
- best first: the same table expanded by the product of its chances, to as many nodes, in place of the search.
- pairs: the table knows one token of context instead of two.
- longest first: the tree is cut as in the paper's code, which drops the longest drafts first.
- corpus, other corpus: with ``--corpus`` and ``--other-corpus``, files of the right and of the wrong kind.

STAND, sampled; several samples of each prompt share a memory, and the next prompt starts with an empty one:
- tokens a pass of the first and the last sample: must rise for STAND and stay as they are for Token Recycling.
- drawn against likeliest: the same memory and tree, drafted by Gumbel top-k or by rank, under both rules of sampling.
- all nodes: learns from rejected nodes too. 1-grams: falls back to them.

Greedy and same-noise texts must be plain decoding's, to the last token. ``--learn-template`` decodes the prompts
plainly, replays them with STAND's broad tree, and prints the template that this gives; use other prompts than those of
a benchmark.
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common

from unspool import methods, suites
from unspool.bench.about import about
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Decision, Drafter, Step
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.engine.tree import TokenTree
from unspool.methods.drafters.aded import Aded, AdedOptions
from unspool.methods.drafters.aded.search import Draft
from unspool.methods.drafters.aded.table import TrigramTable
from unspool.methods.drafters.plain import Plain
from unspool.methods.drafters.stand import Stand, StandOptions
from unspool.methods.drafters.stand.memory import KEPT, ORDERS, NGramMemory
from unspool.methods.drafters.stand.template import broad_template, learn_template
from unspool.methods.drafters.token_recycling import TokenRecycling, TokenRecyclingOptions
from unspool.methods.drafters.token_recycling.matrix import RecyclingMatrix
from unspool.methods.shaping import _built_in as shaping

SIZES = (4, 8, 16, 64)
USUAL = 12  # nodes of the variants that differ in something else


class BestFirst(Aded):
    """Expands the table by the product of the chances of a path."""

    def drafts(self, context: Context) -> list[Draft]:
        drafts: list[Draft] = []
        heap: list[tuple[float, tuple[int, ...], float]] = [(-1.0, (), 0.0)]
        while heap and len(drafts) <= self.options.nodes:
            negative, path, value = heapq.heappop(heap)
            drafts.append(Draft(path, -negative, value))
            if len(path) < 4:
                found = self.memory.successors(*[*context.tokens[-2:], *path][-2:])
                total = sum(value for _, value in found)
                for token, value in found:
                    heapq.heappush(heap, (negative * value / total, (*path, token), value))
        return drafts[1:]


class LongestFirst(Aded):
    """Drops whole drafts, those of most distinct tokens first, until the tokens of all fit."""

    def drafts(self, context: Context) -> list[Draft]:
        found = super().drafts(context)
        drafts = {draft.path for draft in found}

        def ends(path: tuple[int, ...]) -> bool:
            """Whether it is a prefix with its likeliest successor, or one without any."""
            text = (*context.tokens[-2:], *path)
            best = self.memory.successors(*text[-3:-1])[0][0]
            return (len(path) > 1 and path[-1] == best) or not self.memory.successors(*text[-2:])

        leaves = sorted(filter(ends, drafts), key=lambda path: (-len(set(path)), path))
        total = sum(len(set(path)) for path in leaves)
        while leaves and total > self.options.nodes:
            total -= len(set(leaves.pop(0)))
        kept = {path[:end] for path in leaves for end in range(1, len(path) + 1)}
        return [draft for draft in found if draft.path in kept]


class PairTable(TrigramTable):
    """Keyed by one token."""

    @staticmethod
    def pair(first: Any, second: Any) -> Any:
        return second


class Likeliest(Stand):
    """Drafts by rank, as at temperature 0."""

    def propose(self, context: Context, budget: int) -> TokenTree:
        greedy = Context(context.tokens, context.prompt_length, context.seed, 0.0)
        return super().propose(greedy, budget)


class AllNodes(Stand):
    """Learns from rejected nodes too."""

    def observe(self, step: Step) -> None:
        before = list(step.context.tokens[: len(step.context.tokens) - len(step.emitted)])
        for node in range(len(step.tree)):
            text = tuple([*before, *step.tree.path_tokens(node)][-self.memory.orders[0] :])
            self.memory.update(text, {token: math.exp(p) for token, p in step.alternatives(node, KEPT)})


@dataclass
class Variant:
    """A way to draft, with the memory that it keeps and what its passes gave."""

    name: str
    make: Callable[[Any], Drafter]
    memory: Any = None
    acceptance: str | None = None
    passes: dict[Any, int] = field(default_factory=lambda: defaultdict(int))
    tokens: dict[Any, int] = field(default_factory=lambda: defaultdict(int))
    nodes: int = 0
    drafting_ms: float = 0.0
    identical: int = 0

    def run(self, model: Model, ids: list[int], options: GenerationOptions, sample: int | None = None) -> list[int]:
        """Decode one prompt. Passes are counted by sample, or by the half of the answer that they are in."""
        rule = methods.acceptance_rule(self.acceptance, options.greedy, model.resources({}))
        shapers = shaping.build(options)
        request = Request(ids, self.make(self.memory), rule, options, shapers, model.eos_token_ids)
        text: list[int] = []
        for event in decode(model.language_model, [request]):
            if isinstance(event, StepEvent):
                key = ("early", "late")[2 * len(text) >= options.max_new_tokens] if sample is None else sample
                self.passes[key] += 1
                self.tokens[key] += len(event.emitted)
                self.nodes += len(event.tokens) - 1
                self.drafting_ms += event.draft_ms + event.observe_ms
                text += event.emitted
        return text

    def mean(self, *keys: Any) -> float | None:
        """Tokens a pass, of all passes or of some."""
        chosen = [key for key in keys or tuple(self.passes) if self.passes[key]]
        return sum(self.tokens[key] for key in chosen) / sum(self.passes[key] for key in chosen) if chosen else None

    def row(self, keys: Sequence[Any], runs: int, proven: bool) -> list[str]:
        total = sum(self.passes.values())
        return [
            self.name,
            common.number(self.mean()),
            *(common.number(self.mean(key)) for key in keys),
            common.number(self.nodes / total, 1),
            common.number(self.drafting_ms / total),
            f"{self.identical} of {runs}" if proven else "–",
        ]


def aded_variants(vocab_size: int, corpus: TrigramTable | None, other: TrigramTable | None) -> list[Variant]:
    def variant(name: str, table: Any, kind: type[Aded] = Aded, **options: Any) -> Variant:
        chosen = AdedOptions(**{"nodes": USUAL, **options})
        return Variant(name, lambda memory: kind(chosen, memory, vocab_size), table)

    return [
        *(variant(f"{nodes} nodes", TrigramTable(), nodes=nodes) for nodes in SIZES),
        variant(f"{USUAL} nodes", TrigramTable()),
        variant(f"{USUAL} nodes, best first", TrigramTable(), BestFirst),
        variant(f"{USUAL} nodes, longest first", TrigramTable(), LongestFirst),
        variant(f"{USUAL} nodes, pairs", PairTable()),
        *(
            variant(f"{USUAL} nodes, {name}{', no update' * (not step)}", _copy(table), increment=step)
            for name, table in (("corpus", corpus), ("other corpus", other))
            if table is not None
            for step in (0.04, 0.0)
        ),
    ]


def _copy(table: TrigramTable) -> TrigramTable:
    """A table of the same corpus, which is never written, and nothing learned."""
    twin = TrigramTable()
    twin._set_corpus(table._pairs, table._starts, table._ids, table._values)
    return twin


def stand_variants(vocab_size: int) -> list[Variant]:
    def variant(name: str, kind: type[Stand] = Stand, nodes: int = USUAL, acceptance: str = "same_noise") -> Variant:
        orders = (*ORDERS, 1) if "1-grams" in name else ORDERS
        chosen = StandOptions(nodes=nodes)
        return Variant(name, lambda memory: kind(chosen, memory, vocab_size), NGramMemory(orders), acceptance)

    recycling = TokenRecyclingOptions(nodes=USUAL)
    return [
        Variant("token recycling", lambda memory: TokenRecycling(recycling, memory), RecyclingMatrix(), "same_noise"),
        *(variant(f"{nodes} nodes", nodes=nodes) for nodes in (4, USUAL, 80)),
        variant(f"{USUAL} nodes, likeliest", Likeliest),
        variant(f"{USUAL} nodes, all nodes", AllNodes),
        variant(f"{USUAL} nodes, with 1-grams"),
        variant(f"{USUAL} nodes, lossless", acceptance="lossless"),
        variant(f"{USUAL} nodes, likeliest, lossless", Likeliest, acceptance="lossless"),
    ]


def measure_aded(model: Model, prompts: list[list[int]], arguments: argparse.Namespace) -> list[list[str]]:
    tables = [path and TrigramTable.from_corpus(documents(path, model)) for path in (arguments.corpus, arguments.other)]
    contestants = [Variant("plain", lambda _: Plain()), *aded_variants(model.language_model.vocab_size, *tables)]
    options = GenerationOptions(max_new_tokens=arguments.max_new_tokens)
    for i, ids in enumerate(prompts, 1):
        texts = [variant.run(model, ids, options) for variant in contestants]
        for variant, text in zip(contestants, texts, strict=True):
            variant.identical += text == texts[0]
        common.say(f"aded: prompt {i} of {len(prompts)}")
    return [variant.row(("early", "late"), len(prompts), True) for variant in contestants]


def measure_stand(model: Model, prompts: list[list[int]], arguments: argparse.Namespace) -> list[list[str]]:
    contestants = [Variant("plain", lambda _: Plain()), *stand_variants(model.language_model.vocab_size)]
    last = arguments.samples
    for i, ids in enumerate(prompts, 1):
        for variant in contestants[1:]:
            variant.memory.reset()
        for sample in range(1, last + 1):
            options = GenerationOptions(
                max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature, seed=sample
            )
            texts = [variant.run(model, ids, options, sample) for variant in contestants]
            for variant, text in zip(contestants, texts, strict=True):
                variant.identical += text == texts[0]
        common.say(f"stand: prompt {i} of {len(prompts)}")
    runs = len(prompts) * last
    return [variant.row((1, last), runs, variant.acceptance != "lossless") for variant in contestants]


def documents(path: Path, model: Model) -> Iterator[list[int]]:
    """The files below a directory, or one file, as token ids."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            yield model.tokenizer.encode(file.read_text(encoding="utf-8", errors="replace"))


class Recorder(Plain):
    """Plain decoding that notes what the target wanted at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: list[tuple[tuple[int, float], ...]] = []

    def observe(self, step: Step) -> None:
        self.wanted.append(step.alternatives(0, KEPT))


@dataclass
class Replayed:
    """A pass over a tree that no model scored: what it accepts is known from the text; a ``Step`` for STAND."""

    tree: TokenTree
    decision: Decision
    context: Context
    wanted: Callable[[int], tuple[tuple[int, float], ...]]

    @property
    def parents(self) -> tuple[int, ...]:
        return self.tree.parents

    @property
    def accepted(self) -> tuple[int, ...]:
        return self.decision.path

    def alternatives(self, node: int, k: int) -> tuple[tuple[int, float], ...]:
        return self.wanted(node)


def replay(drafter: Stand, ids: list[int], text: list[int], recorder: Recorder, options: Any) -> Iterator[Replayed]:
    """The passes that ``drafter`` would have had. Trees may be larger than the loop allows."""
    tokens = list(ids)
    context = Context(tokens, len(ids), options.seed, options.temperature)
    while (done := len(tokens) - len(ids)) < len(text):
        tree, path = drafter.propose(context, 626), [0]
        for token in text[done:-1]:
            child = next((child for child in tree.children[path[-1]] if tree.tokens[child] == token), None)
            if child is None:
                break
            path.append(child)
        tokens += text[done : done + len(path)]
        wanted = [*recorder.wanted, ()]
        step = Replayed(
            tree,
            Decision(tuple(path), tokens[-1]),
            context,
            lambda node, tree=tree, done=done, wanted=wanted: wanted[done + int(tree.depths[node])],
        )
        drafter.observe(step)  # type: ignore[arg-type]
        yield step


def learn(model: Model, prompts: list[list[int]], arguments: argparse.Namespace) -> str:
    """A template from greedy and sampled answers, half of each; the memory stays from answer to answer."""
    drafter = Stand(StandOptions(), NGramMemory(), model.language_model.vocab_size, broad_template())
    steps: list[Replayed] = []
    for i, ids in enumerate(prompts, 1):
        for seed in range(arguments.samples):
            temperature = arguments.temperature if seed % 2 else 0.0
            options = GenerationOptions(max_new_tokens=arguments.max_new_tokens, temperature=temperature, seed=seed)
            recorder = Recorder()
            text = Variant("plain", lambda _, recorder=recorder: recorder).run(model, ids, options)
            steps += replay(drafter, ids, text, recorder, options)
        common.say(f"template: prompt {i} of {len(prompts)}")
    return " ".join("".join(map(str, path)) for path in learn_template(steps))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-0.5b", help="as `unspool generate -m`")
    parser.add_argument("--prompts", default="mixed", help="a suite, or a file of prompts; mixed by default")
    parser.add_argument("--limit", type=int, help="most prompts of a category")
    parser.add_argument("--only", choices=("aded", "stand"), help="one of the two")
    parser.add_argument("--learn-template", action="store_true", help="print a template for STAND and do nothing else")
    parser.add_argument("--samples", type=int, default=8, help="of each prompt, for STAND; 8 by default")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the samples; 0.7 by default")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="128 by default")
    parser.add_argument("--corpus", type=Path, help="directory or file of text of the prompts' kind, for ADED")
    parser.add_argument("--other-corpus", dest="other", type=Path, help="directory or file of text of another kind")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    setting = about()
    suite = suites.load(arguments.prompts, arguments.limit)
    model = load(arguments.model, report=common.say)
    prompts = [model.encode(prompt.text) for prompt in suite.prompts]
    if arguments.learn_template:
        print(learn(model, prompts, arguments))
        return 0
    chosen = f"Model {model.name}, {model.language_model.settings['weights']}; {len(prompts)} prompts of {suite.name}, "
    chosen += f"max_new_tokens {arguments.max_new_tokens}; tokens a pass include the bonus token; drafting is in ms."
    parts, results, failed = [f"# ADED and STAND\n\n{common.describe(setting)}\n\n{chosen}"], {**setting}, False
    shared = ["nodes/pass", "drafting/pass", "identical"]
    sampled = f"{arguments.samples} samples a prompt at temperature {arguments.temperature}"
    for name, measure, halves, kind in (
        ("aded", measure_aded, ["early half", "late half"], "greedy"),
        ("stand", measure_stand, ["first sample", "last sample"], sampled),
    ):
        if arguments.only in (None, name):
            rows = measure(model, prompts, arguments)
            columns = ["variant", "tokens/pass", *halves, *shared]
            parts.append(f"## {name}, {kind}\n\n{common.table(columns, rows)}")
            results[name] = [dict(zip(columns, row, strict=True)) for row in rows]
            failed = failed or any(len({*row[-1].split(" of ")}) > 1 for row in rows)
    common.publish("\n\n".join(parts), {**results, "chosen": chosen}, arguments.markdown, arguments.json)
    return 1 if failed else 0


if __name__ == "__main__":
    common.run(main)
