"""Checks of an acceptance rule: decisions are paths of the tree, and text or distribution equal plain decoding's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from unspool import methods
from unspool.conformance.check import Row, options_of, require
from unspool.conformance.drafter import PROMPT, TOLERANCE, model, plain, resources, run, same
from unspool.conformance.enumeration import DRAWS, SHAPES, Walks, joint, total_variation, trees
from unspool.conformance.pairs import KINDS, pair
from unspool.conformance.stubs import EmptyDrafter, OracleDrafter, RandomDrafter
from unspool.engine.contracts import AcceptanceRule, Context, Drafter
from unspool.engine.method import DRAFTER
from unspool.engine.noise import rule_generator
from unspool.engine.options import GenerationOptions
from unspool.engine.progress import Progress, silent
from unspool.engine.target import ShapedTarget
from unspool.engine.tree import TokenTree
from unspool.errors import UnsupportedError
from unspool.methods.shaping import _built_in as shaping

TEMPERATURES = {"any": (0.0, 0.9), "zero": (0.0,), "above zero": (0.9,)}


def made(row: Row) -> AcceptanceRule:
    """A rule of the row's own."""
    around = resources(model())
    methods.check(row, around)
    rule: AcceptanceRule = row.build(around, methods.make_options(row, options_of(row)))
    return rule


def drafters() -> dict[str, Callable[[], Drafter]]:
    """Drafters of chosen tokens that are mostly wrong, of likely ones, and of none."""
    toy = model()
    return {
        "random trees": lambda: RandomDrafter(toy.vocab_size, seed=5),
        methods.WIDE: lambda: methods.build(methods.WIDE, DRAFTER, resources(toy)),
        "no drafts": EmptyDrafter,
    }


def requests(row: Row) -> Iterator[GenerationOptions]:
    """Of each temperature that the rule is for."""
    for temperature in TEMPERATURES[row.at_temperature]:
        for seed in range(2):
            yield GenerationOptions(max_new_tokens=30, temperature=temperature, seed=seed)


def decisions_are_paths_of_the_tree(row: Row) -> None:
    """A decision is a path from the root along children, and a token that the model can emit after it."""
    toy, rule = model(), made(row)
    for options in requests(row):
        tokens = [*PROMPT, options.seed]
        session = toy.open()
        session.score(TokenTree.chain(tokens[:-1]), rows=())
        session.commit(range(len(tokens) - 1))
        for number in range(12):
            drafter = RandomDrafter(toy.vocab_size, number)
            context = Context(tokens, len(tokens), number, options.temperature, rule.uses_draft_probs)
            drafter.start(context)
            tree = drafter.propose(context, 8)
            logits = session.score(tree).logits.copy()

            def decide(tree: TokenTree = tree, logits: object = logits, seed: int = number) -> object:
                target = ShapedTarget(tree, np.asarray(logits), tokens, shaping.build(options), options)  # noqa: B023
                return rule.decide(target, partial(rule_generator, seed, len(tokens)))  # noqa: B023

            decision = decide()
            path, token = decision.path, decision.token  # type: ignore[attr-defined]
            steps = list(zip((-1, *path), path, strict=False))
            require(path and all(tree.parents[node] == before for before, node in steps), f"{path} is no path")
            require(0 <= token < toy.vocab_size, f"{token} is no token of a vocabulary of {toy.vocab_size}")
            require(decide() == decision, "the same tree, text and seed gave another decision")


def right_drafts_are_accepted(row: Row) -> None:
    """Drafts that equal plain decoding's text take fewer passes than there are tokens."""
    toy = model()
    for options in requests(row):
        oracle = OracleDrafter([*PROMPT, *plain(toy, PROMPT, options)])
        (text,), _, steps = run(toy, [PROMPT], [oracle], options, made(row))
        require(len(steps) < len(text), f"{len(text)} tokens took {len(steps)} passes: no draft was accepted")


def seeds_replay_and_rows_are_the_rows_alone(row: Row) -> None:
    """A text depends on its prompt and its seed, not on other rows of a batch or on earlier requests."""
    toy, rule = model(), made(row)
    prompts = [PROMPT, [5], [2, 4, 2, 4, 2], [1, 1]]
    for name, drafter in drafters().items():
        for temperature in TEMPERATURES[row.at_temperature]:
            options = GenerationOptions(max_new_tokens=20, temperature=temperature, seed=1)
            alone = [run(toy, [prompt], [drafter()], options, rule)[0][0] for prompt in prompts]
            if name != methods.WIDE or not rule.uses_draft_probs:
                together, _, _ = run(toy, prompts, [drafter() for _ in prompts], options, rule)
                require(together == alone, f"{name}: rows of a batch differ from the rows alone")
            again = run(toy, [PROMPT], [drafter()], options, rule)[0][0]
            require(again == alone[0], f"{name}: the same seed gave another text")


def text_is_plain_decodings(row: Row) -> None:
    """If it guarantees ``identical``: the text equals plain decoding's for any drafts."""
    if row.guarantee != "identical":
        return
    toy = model()
    for name, drafter in drafters().items():
        for options in requests(row):
            (text,), _, _ = run(toy, [PROMPT], [drafter()], options, made(row))
            same(text, plain(toy, PROMPT, options), f"{name}, temperature {options.temperature:g}")


def distribution_is_plain_samplings(row: Row) -> None:
    """If it guarantees ``same distribution``: enumerated on a vocabulary of 3, it equals plain sampling."""
    if row.guarantee != "same distribution":
        return
    worst, compared, wrong = enumerate_rule(row.name, made(row))
    require(not wrong, f"{wrong} of {compared} enumerated distributions are wrong, the worst by {worst:.2g}")


def enumerate_rule(name: str, rule: AcceptanceRule, progress: Progress = silent) -> tuple[float, int, int]:
    """Compare the exact joint distribution of three tokens under the rule with the model's own, on tiny models.

    Every way to draft, on several trees, for near, far and degenerate pairs of target and draft.

    Returns:
        Largest total variation, number of comparisons, number of them above ``TOLERANCE``.

    Raises:
        UnsupportedError: if the rule's randomness cannot be enumerated.
    """
    if not isinstance(rule, Walks):
        raise UnsupportedError(
            f"{name} cannot be enumerated; give the rule a walk(target, chance), as in "
            "unspool.methods.acceptance.lossless"
        )
    worst, wrong, what = 0.0, 0, f"{name}, enumeration"
    combinations = [(kind, draws, shape) for kind in KINDS for draws in DRAWS.values() for shape in SHAPES.values()]
    for done, (kind, draws, shape) in enumerate(combinations):
        progress(what, done, len(combinations))
        target, draft = pair(kind, 3, seed=1)
        found = joint(rule, target, (1,), trees(draft, (1,), shape, draws), 3)
        distance = total_variation(found, target.distribution(3, (1,)))
        worst, wrong = max(worst, distance), wrong + (distance >= TOLERANCE)
    progress(what, len(combinations), len(combinations))
    return worst, len(combinations), wrong


CHECKS = (
    decisions_are_paths_of_the_tree,
    right_drafts_are_accepted,
    seeds_replay_and_rows_are_the_rows_alone,
    text_is_plain_decodings,
    distribution_is_plain_samplings,
)
