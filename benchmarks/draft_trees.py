"""Which tree should a draft model draw? RSD and DySpec against a chain and independent draws, at equal nodes.

- Theory: the exact probability that one of k drafts is accepted, drawn independently and without replacement, for a
  draft that is far from its target and for one that is close. The gain lives where the two disagree.
- Trees: tokens that a pass of the target emits, with the standard error over passes, and passes of the draft model for
  it. At temperature 0 every text must be plain decoding's; there is no tree of independent draws then, for they would
  all be the same token.
- DySpec's hypothesis: the share of accepted tokens among the draws that were tested, by the probability R that the
  draft gave the token among those not drawn before. It should rise with R.

Prompts: unspool's own, or a file as `unspool bench` reads it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import numpy as np

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.bench.about import about
from unspool.conformance.enumeration import Node, build, independent, no_replacement, outcomes, trees
from unspool.conformance.pairs import normalised
from unspool.decoding.load import load
from unspool.decoding.model import Model
from unspool.engine.assistant import Assistant, Draws
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Context, Drafter, LanguageModel, Scores, Session, Step
from unspool.engine.options import GenerationOptions
from unspool.engine.taps import Taps
from unspool.engine.trace import StepEvent
from unspool.engine.tree import DraftDistribution, TokenTree
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.drafters.draft_model import DraftModel, DraftModelOptions
from unspool.methods.drafters.dyspec import DySpec, DySpecOptions
from unspool.methods.drafters.plain import Plain
from unspool.methods.drafters.rsd import RSD, RSDOptions
from unspool.methods.shaping import _built_in as shaping
from unspool.proof.prompts import PROMPTS
from unspool.suites.prompts import read_prompts

# Target and draft, at a total variation of 0.75 and 0.07.
PAIRS = {
    "far": ((0.142, 0.083, 0.451, 0.134, 0.190), (0.024, 0.833, 0.131, 0.008, 0.004)),
    "close": ((0.238, 0.145, 0.313, 0.239, 0.065), (0.239, 0.186, 0.243, 0.257, 0.075)),
}
BUCKETS = 10


def accepted_of(k: int, rows: tuple[tuple[float, ...], ...], replacement: bool) -> float:
    """Exact probability that one of ``k`` drafts is accepted."""
    target, draft = (ToyModel(np.tile(normalised(np.array(row)), (len(row) + 1, 1))) for row in rows)
    siblings = independent if replacement else no_replacement
    return sum(
        weight * probability
        for tree, weight in trees(draft, (0,), ((),) * k, siblings)
        for decision, probability in outcomes(Lossless(), target, (0,), tree)
        if len(decision.path) > 1
    )


class IndependentTree:
    """A tree of constant branching whose siblings are drawn with replacement, so that some are drawn twice."""

    name = "independent"

    def __init__(self, branching: tuple[int, ...], model: LanguageModel, vocab_size: int) -> None:
        self._branching = branching
        self._assistant = Assistant(model, vocab_size)
        self._vocab_size = vocab_size

    def start(self, context: Context) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        nodes: list[Node] = [(context.tokens[-1], -1, None)]
        level = [0]
        self._assistant.follow(context.tokens)
        draws = Draws(context, self._vocab_size)
        for depth, count in enumerate(self._branching):
            below = []
            for parent, logits in zip(level, self._assistant.score(build(nodes), level), strict=True):
                logprobs = draws.logprobs(logits)
                distribution = DraftDistribution(np.exp(logprobs), replacement=True)
                for _ in range(count):
                    below.append(len(nodes))
                    nodes.append((int(np.argmax(logprobs + draws.noise(depth))), parent, distribution))
            level = below
        return build(nodes)

    def observe(self, step: Step) -> None: ...


class Watched(DySpec):
    """Notes R and the outcome of every draw that was tested."""

    tested: list[tuple[float, bool]]

    def observe(self, step: Step) -> None:
        tree = step.tree
        for node in step.decision.path:
            mass = 1.0
            for child in tree.children[node]:
                q = float(tree.distributions[tree.drafts[child]].q[tree.tokens[child]])
                kept = child in step.decision.path
                self.tested.append((min(1.0, q / mass) if mass > 0 else 1.0, kept))
                mass -= q
                if kept:
                    break


class Counted:
    """A draft model that counts: passes for drafts, and passes that only read what the target has written."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self.drafting = self.reading = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def open(self, taps: Taps | None = None) -> Session:
        return _CountedSession(self, self._model.open(taps))  # type: ignore[return-value]


class _CountedSession:
    def __init__(self, counts: Counted, session: Session) -> None:
        self._counts = counts
        self._session = session
        self._prompt = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def score(self, tree: TokenTree, rows: Iterable[int] | None = None) -> Scores:
        if rows is None or list(rows):
            self._counts.drafting += 1
            self._prompt = False
        elif not self._prompt:
            self._counts.reading += 1
        return self._session.score(tree, rows)  # type: ignore[arg-type]


Make = Callable[[LanguageModel, int], Drafter]


@dataclass
class Variant:
    """A way to draft, and what it did."""

    budget: int
    name: str
    make: Make
    emitted: list[int] = field(default_factory=list)  # tokens of each pass of the target
    nodes: list[int] = field(default_factory=list)  # drafted, of each tree
    passes: int = 0  # of the target, the last one of each text too
    drafting: int = 0
    reading: int = 0
    identical: int = 0

    def row(self, greedy: bool, prompts: int) -> list[str]:
        count = len(self.emitted)
        error = np.std(self.emitted, ddof=1) / np.sqrt(count) if count > 1 else 0.0
        return [
            self.name,
            str(self.budget),
            common.number(float(np.mean(self.nodes)), 1),
            f"{np.mean(self.emitted):.3f} ± {error:.3f}",
            str(count),
            common.number(self.drafting / self.passes),
            common.number(self.reading / self.passes),
            f"{self.identical} of {prompts}" if greedy else "–",
        ]


COLUMNS = [
    "tree",
    "budget",
    "nodes",
    "tokens/pass",
    "passes",
    "draft passes/pass",
    "to catch up",
    "identical",
]


def rsd(options: RSDOptions) -> Make:
    return lambda model, size: RSD(options, model, size)


def dyspec(nodes: int, threshold: float | None, tested: list[tuple[float, bool]] | None = None) -> Make:
    def make(model: LanguageModel, size: int) -> DySpec:
        options = DySpecOptions(nodes, threshold=threshold)
        if tested is None:
            return DySpec(options, model, size)
        watched = Watched(options, model, size)
        watched.tested = tested
        return watched

    return make


def variants(tests_draws: bool, tested: list[tuple[float, bool]]) -> list[Variant]:
    """Trees of 6 and of 14 nodes; the larger heap notes its draws."""
    made = []
    shapes = {6: (((2, 2), (2, 1, 1)), ((3, 2), (2, 3))), 14: (((2, 2, 2), (2,) + (1,) * 6), ((7, 2), (2, 7)))}
    for budget, (branchings, beams) in shapes.items():
        found: dict[str, Make] = {
            "chain": lambda model, size, n=budget: DraftModel(DraftModelOptions(n), model, size),  # type: ignore[misc]
        }
        for branching in branchings:
            said = "×".join(map(str, branching))
            if tests_draws:
                found[f"independent {said}"] = lambda model, size, b=branching: IndependentTree(b, model, size)  # type: ignore[misc]
            found[f"RSD-C {said}"] = rsd(RSDOptions("constant", branching=branching))
        for width, length in beams:
            found[f"RSD-S {width} beams, {length} levels"] = rsd(RSDOptions("beam", width, length))
        found["DySpec, heap"] = dyspec(budget, None, tested if tests_draws and budget == max(shapes) else None)
        found[f"DySpec, threshold 1/{budget}"] = dyspec(budget, 1 / budget)
        made += [Variant(budget, name, make) for name, make in found.items()]
    return made


def run(
    model: Model, drafter: Drafter, acceptance: str | None, ids: list[int], options: GenerationOptions
) -> list[StepEvent]:
    rule = methods.acceptance_rule(acceptance, options.greedy, model.resources())
    request = Request(ids, drafter, rule, options, shaping.build(options), model.eos_token_ids)
    return [event for event in decode(model.language_model, [request]) if isinstance(event, StepEvent)]


def text(steps: list[StepEvent]) -> list[int]:
    return [token for step in steps for token in step.emitted]


def measure(
    model: Model, prompts: list[list[int]], temperature: float, acceptance: str, max_new_tokens: int
) -> tuple[list[Variant], list[tuple[float, bool]]]:
    assert model.assistant is not None
    greedy = temperature == 0
    tested: list[tuple[float, bool]] = []
    contestants = variants(acceptance == "lossless" and not greedy, tested)
    for i, ids in enumerate(prompts):
        options = GenerationOptions(max_new_tokens=max_new_tokens, temperature=temperature, seed=i)
        plain = text(run(model, Plain(), None, ids, options)) if greedy else []
        for variant in contestants:
            counted = Counted(model.assistant.language_model)
            drafter = variant.make(counted, model.language_model.vocab_size)  # type: ignore[arg-type]
            steps = run(model, drafter, None if greedy else acceptance, ids, options)
            # The last draft is cut by the limit on tokens, which says nothing about trees.
            kept = steps[:-1] or steps
            variant.emitted += [len(step.emitted) for step in kept]
            variant.nodes += [len(step.tokens) - 1 for step in kept]
            variant.passes += len(steps)
            variant.drafting += counted.drafting
            variant.reading += counted.reading
            variant.identical += text(steps) == plain
        common.say(f"temperature {temperature:g}: prompt {i + 1} of {len(prompts)}")
    return contestants, tested


def hypothesis(tested: list[tuple[float, bool]]) -> list[list[str]]:
    rows = []
    shares = np.array([share for share, _ in tested])
    kept = np.array([kept for _, kept in tested], dtype=float)
    places = np.minimum((shares * BUCKETS).astype(int), BUCKETS - 1)
    for bucket in range(BUCKETS):
        here = places == bucket
        if count := int(here.sum()):
            rate = float(kept[here].mean())
            error = np.sqrt(rate * (1 - rate) / count)
            span = f"{bucket / BUCKETS:.1f} to {(bucket + 1) / BUCKETS:.1f}"
            rows.append([span, str(count), common.number(float(shares[here].mean()), 3), f"{rate:.3f} ± {error:.3f}"])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default="qwen2.5-coder-1.5b", help="as `unspool generate -m`")
    parser.add_argument("--assistant-model", default="qwen2.5-coder-0.5b", help="as `unspool generate`")
    parser.add_argument("--prompts", type=Path, help="as `unspool bench`; unspool's own by default")
    parser.add_argument("--limit", type=int, help="only the first prompts")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="128 by default")
    parser.add_argument(
        "--temperatures", type=float, nargs="+", default=[1.0, 0.6, 0.0], help="1, 0.6 and 0 by default"
    )
    parser.add_argument(
        "--acceptance", choices=("lossless", "same_noise"), default="lossless", help="above temperature 0"
    )
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    common.check_outputs(arguments.json, arguments.markdown)
    read = (read_prompts(arguments.prompts) if arguments.prompts else list(PROMPTS))[: arguments.limit]
    setting = about()
    model = load(arguments.model, assistant_model=arguments.assistant_model, report=common.say)
    assert model.assistant is not None
    prompts = [model.encode(prompt.text) for prompt in read]
    columns = ["pair", "k", "independent", "without replacement"]
    theory = [
        [name, str(k), *(common.number(accepted_of(k, rows, replacement), 3) for replacement in (True, False))]
        for name, rows in PAIRS.items()
        for k in (1, 2, 3)
    ]
    chosen = (
        f"{model.assistant.language_model.settings['weights']} {model.assistant.name} drafts for "
        f"{model.language_model.settings['weights']} {model.name}; {len(prompts)} prompts, max_new_tokens "
        f"{arguments.max_new_tokens}; acceptance above temperature 0: {arguments.acceptance}. DySpec drafts at "
        f"{DySpecOptions().draft_temperature:g}, the others at the target's temperature."
    )
    parts = ["# Trees of a draft model", common.describe(setting), chosen]
    parts += ["## One of k drafts accepted, exactly", common.table(columns, theory)]
    results = {**setting, "chosen": chosen, "theory": [dict(zip(columns, row, strict=True)) for row in theory]}
    wrong = 0
    for temperature in arguments.temperatures:
        contestants, tested = measure(model, prompts, temperature, arguments.acceptance, arguments.max_new_tokens)
        rows = [variant.row(temperature == 0, len(prompts)) for variant in contestants]
        parts += [f"## Trees at temperature {temperature:g}", common.table(COLUMNS, rows)]
        results[f"trees at {temperature:g}"] = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        if tested:
            header = ["R", "tested", "mean R", "accepted"]
            buckets = hypothesis(tested)
            parts += [f"### Acceptance by draft probability, DySpec's heap of 14 nodes, temperature {temperature:g}"]
            parts += [common.table(header, buckets)]
            results[f"hypothesis at {temperature:g}"] = [dict(zip(header, row, strict=True)) for row in buckets]
        if temperature == 0:
            wrong += sum(variant.identical < len(prompts) for variant in contestants)
    common.publish("\n\n".join(parts), results, arguments.markdown, arguments.json)
    return 1 if wrong else 0


if __name__ == "__main__":
    common.run(main)
