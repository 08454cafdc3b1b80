"""Checks of a drafter: the text equals plain decoding's for any drafts, and it reports its draws truthfully.

They run the real loop on a toy model whose output distribution is known exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unspool import methods
from unspool.backends.toy import ToyModel
from unspool.conformance.check import Row, options_of, require
from unspool.conformance.enumerated import Make, every_tree
from unspool.conformance.enumeration import Text, Walks, joint, total_variation
from unspool.conformance.small_model import CURVE, TOKENIZER
from unspool.conformance.stubs import EmptyDrafter
from unspool.engine.autoregressive import Request, decode
from unspool.engine.batch import BatchPlan
from unspool.engine.contracts import AcceptanceRule, Closing, Context, Drafter
from unspool.engine.cost import PassCosts
from unspool.engine.method import ACCEPTANCE
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import EndEvent, StepEvent
from unspool.engine.tree import TokenTree
from unspool.methods import Resources
from unspool.methods.acceptance.lossless import Lossless
from unspool.methods.shaping import _built_in as shaping

EOS = 3
PROMPT = [0, 1, 2, 0, 1]
TOLERANCE = 1e-12
"""Total variation that rounding may leave in an enumerated distribution."""
SETTINGS: dict[str, dict[str, Any]] = {
    "temperature 0": {},
    "temperature 0.8": {"temperature": 0.8, "seed": 4},
    "shaped": {"temperature": 1.1, "seed": 9, "top_k": 4, "top_p": 0.95, "repetition_penalty": 1.2},
    "without repeats": {"no_repeat_ngram_size": 3, "sequence_bias": {(1, 2): 2.0}, "bad_words_ids": [[4, 4]]},
    "truncated": {"temperature": 0.7, "seed": 2, "min_p": 0.1, "typical_p": 0.9},
}


def model(eos: bool = False) -> ToyModel:
    """Six tokens and a peaked table: greedy and cold text repeats itself, so that look-up drafters find something."""
    return ToyModel.random(vocab_size=6, order=2, seed=11, eos_token_id=EOS if eos else None)


def resources(toy: ToyModel) -> Resources:
    """A draft model, a cost curve and a tokenizer beside the model."""
    draft = toy.related(0.7, seed=2)
    return Resources(toy, costs=lambda: PassCosts(CURVE), assistant=draft, tokenizer=TOKENIZER)


def made(row: Row, around: Resources) -> Drafter:
    """A drafter of the row's own."""
    methods.check(row, around)
    drafter: Drafter = row.build(around, methods.make_options(row, options_of(row)))
    return drafter


def run(
    toy: ToyModel,
    prompts: Sequence[list[int]],
    drafters: Sequence[Drafter],
    options: GenerationOptions,
    rule: AcceptanceRule | None = None,
    eos: bool = False,
    plan: BatchPlan | None = None,
) -> tuple[list[list[int]], list[str], list[StepEvent]]:
    """Decode a batch: text and reason of the end by row, and all steps.

    Args:
        rule: None for the one that suits the temperature.
    """
    rule = rule or methods.acceptance_rule(None, options.greedy, resources(toy))
    ends = frozenset({EOS}) if eos else frozenset()
    requests = [
        Request(prompt, drafter, rule, options, shaping.build(options), ends)
        for prompt, drafter in zip(prompts, drafters, strict=True)
    ]
    texts: list[list[int]] = [[] for _ in prompts]
    reasons = [""] * len(prompts)
    steps = []
    for event in decode(toy, requests, plan):
        if isinstance(event, StepEvent):
            texts[event.row] += event.emitted
            steps.append(event)
        elif isinstance(event, EndEvent):
            reasons[event.row] = event.reason
    return texts, reasons, steps


def plain(toy: ToyModel, prompt: list[int], options: GenerationOptions, eos: bool = False) -> list[int]:
    """Plain decoding's text."""
    return run(toy, [prompt], [EmptyDrafter()], options, eos=eos)[0][0]


def same(text: Sequence[int], expected: Sequence[int], when: str) -> None:
    """Require plain decoding's text."""
    if list(text) != list(expected):
        at = next((i for i, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b), len(expected))
        require(False, f"{when}: token {at} differs from plain decoding: {list(text)}, not {list(expected)}")


def text_is_plain_decodings(row: Row) -> None:
    """Greedy and sampled, with penalties, biases and truncation, the text equals plain decoding's."""
    toy = model()
    for setting, values in SETTINGS.items():
        options = GenerationOptions(max_new_tokens=60, **values)
        (text,), (reason,), _ = run(toy, [PROMPT], [made(row, resources(toy))], options)
        same(text, plain(toy, PROMPT, options), setting)
        require(reason == "length", f"{setting}: the text ended with reason {reason!r}, not 'length'")


def end_of_text_ends_inside_a_draft(row: Row) -> None:
    """An end of text inside a draft ends the text there."""
    toy = model(eos=True)
    for seed in range(3):
        options = GenerationOptions(max_new_tokens=40, temperature=1.0, seed=seed)
        (text,), (reason,), _ = run(toy, [PROMPT], [made(row, resources(toy))], options, eos=True)
        same(text, plain(toy, PROMPT, options, eos=True), f"seed {seed}")
        expected = "stop" if text[-1] == EOS else "length"
        require(reason == expected, f"seed {seed}: the text ended with reason {reason!r}, not {expected!r}")


def length_limit_holds_inside_a_draft(row: Row) -> None:
    """A length limit inside a draft is kept exactly."""
    toy, prompt = model(), [0, 1, 2, 0, 1, 2]
    expected = plain(toy, prompt, GenerationOptions(max_new_tokens=20))
    for limit in (1, 2, 4, 7):
        options = GenerationOptions(max_new_tokens=limit)
        (text,), _, _ = run(toy, [prompt], [made(row, resources(toy))], options)
        same(text, expected[:limit], f"at most {limit} new tokens")


def drafts_stay_within_the_budget(row: Row) -> None:
    """A tree begins with the newest token and has at most as many nodes as the budget allows."""
    toy = model()
    around, text = resources(toy), [*PROMPT, *plain(toy, PROMPT, GenerationOptions(max_new_tokens=60))]
    run(toy, [PROMPT], [made(row, around)], GenerationOptions(max_new_tokens=60))  # what it learns is learned now
    for budget in (1, 2, 3, 8):
        drafter, context = made(row, around), Context(text, len(text), 0, 0.0)
        try:
            drafter.start(context)
            tree = drafter.propose(context, budget)
        finally:
            if isinstance(drafter, Closing):
                drafter.close()
        require(len(tree) <= budget, f"a budget of {budget} nodes gave a tree of {len(tree)}")
        require(tree.tokens[0] == text[-1], "the root of the tree is not the newest token")


def rows_of_a_batch_equal_the_rows_alone(row: Row) -> None:
    """In a batch whose rows end at different steps, each row gets the text that it gets alone."""
    toy = model(eos=True)
    prompts = [PROMPT, [5], [2, 4, 2, 4, 2, 4, 2], [1, 1]]
    options = GenerationOptions(max_new_tokens=25, temperature=0.9, seed=7)
    around = resources(toy)
    together, _, _ = run(toy, prompts, [made(row, around) for _ in prompts], options, eos=True)
    for number, (prompt, text) in enumerate(zip(prompts, together, strict=True)):
        same(text, plain(toy, prompt, options, eos=True), f"row {number} of a batch")


def seeds_replay(row: Row) -> None:
    """The same seed gives the same text, another seed another text."""
    toy = model()

    def text(seed: int, acceptance: str) -> list[int]:
        options = GenerationOptions(max_new_tokens=30, temperature=1.0, seed=seed)
        rule = methods.acceptance_rule(acceptance, False, resources(toy))
        return run(toy, [PROMPT], [made(row, resources(toy))], options, rule)[0][0]

    for acceptance in (methods.default_acceptance(False), methods.TESTED):
        require(text(1, acceptance) == text(1, acceptance), f"{acceptance}: the same seed gave another text")
        require(text(1, acceptance) != text(2, acceptance), f"{acceptance}: another seed gave the same text")


def memory_changes_no_text(row: Row) -> None:
    """Learning from another request, or resetting the memory, does not change the text."""
    toy, around = model(), resources(model())
    options = GenerationOptions(max_new_tokens=40, temperature=0.7, seed=3)
    expected = plain(toy, PROMPT, options)
    run(toy, [[5, 5, 4, 5, 5]], [made(row, around)], GenerationOptions(max_new_tokens=40, seed=8))
    same(run(toy, [PROMPT], [made(row, around)], options)[0][0], expected, "after another request")
    for memory in around.memories.values():
        memory.reset()
    same(run(toy, [PROMPT], [made(row, around)], options)[0][0], expected, "after its memory was reset")


THREE = ToyModel.random(vocab_size=3, order=2, seed=3)
THREES = (0, 1, 2, 0, 1)


def distance(make: Make, at: int, budget: int, rule: Walks | None = None) -> float:
    """Total variation between three tokens of plain sampling and of round ``at``, given the text before it.

    Every tree that the drafter can draw is enumerated on a vocabulary of 3, with every outcome of the rule.

    Args:
        rule: None for the one that tests draws.
    """
    return _distance(*every_tree(make, THREE, THREES, at, budget), rule or Lossless())


def _distance(text: Text, drafts: list[tuple[TokenTree, float]], rule: Walks) -> float:
    total = sum(weight for _, weight in drafts)
    require(abs(total - 1) < TOLERANCE, f"the probabilities of all drafts sum to {total:.6g}, not 1")
    return total_variation(joint(rule, THREE, text, iter(drafts), 3), THREE.distribution(3, text))


def draws_are_reported_truthfully(row: Row) -> None:
    """If the rule uses draft probabilities, every drawn token has the distribution that it was drawn from."""

    def make() -> Drafter:
        around = resources(THREE)
        options = GenerationOptions(max_new_tokens=12, temperature=1.0, seed=1)
        rule = methods.build(methods.TESTED, ACCEPTANCE, around)
        run(THREE, [[1, 2, 0, 0, 1]], [made(row, around)], options, rule)
        return made(row, around)

    for at, budget in ((0, 4), (1, 3), (3, 3)):
        text, drafts = every_tree(make, THREE, THREES, at, budget)
        drawn = any(tree.distributions for tree, _ in drafts)
        require(row.draws or not drawn, "it draws drafts; write draws=True in its row")
        found = _distance(text, drafts, Lossless())
        require(
            found < TOLERANCE,
            f"round {at}: the distribution of the text is off by {found:.2g} (total variation); a token was not drawn "
            "as its distribution says, siblings are not in the order in which they were drawn, or drawn ones were "
            "left out",
        )


CHECKS = (
    text_is_plain_decodings,
    end_of_text_ends_inside_a_draft,
    length_limit_holds_inside_a_draft,
    drafts_stay_within_the_budget,
    rows_of_a_batch_equal_the_rows_alone,
    seeds_replay,
    memory_changes_no_text,
    draws_are_reported_truthfully,
)
