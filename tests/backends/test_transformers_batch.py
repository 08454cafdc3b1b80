"""Batches on the torch backend: one ragged forward gives every row what it gets alone, and each mistake in it shows.

The reference is a forward of the whole text without a cache, which shares nothing with the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from tests.backends.test_transformers import CONFIGS, SIZES, WINDOW, build
from tests.methods.batching.reading import texts
from unspool.backends.torch.cache import PassCache, RowCache
from unspool.backends.torch.model import TransformersModel
from unspool.engine.autoregressive import Request, decode
from unspool.engine.batch import BatchPlan
from unspool.engine.contracts import Context
from unspool.engine.options import GenerationOptions
from unspool.engine.taps import OUTPUT, Taps
from unspool.engine.tree import TokenTree, TreeBuilder
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.batching.eqspec import EqSpec, EqSpecOptions
from unspool.methods.batching.exspec import ExSpec, ExSpecOptions
from unspool.methods.drafters.plain import Plain
from unspool.methods.shaping._built_in import build as build_shapers

PAD = SIZES["pad_token_id"]
NAMES = ["llama", "qwen2", "gemma3"]
EXACT, SINGLE = 1e-9, 2e-5  # what logits of size 5 may differ by in float64 and in float32


def wrapped(name: str, dtype: torch.dtype = torch.float64, attention: str = "sdpa") -> TransformersModel:
    return TransformersModel.from_pretrained_model(build(CONFIGS[name](), attention, dtype))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models are so small that threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> TransformersModel:
    return wrapped(request.param)


def reference(model: TransformersModel, tokens: Sequence[int]) -> np.ndarray:
    """Logits after every token, by a forward without a cache."""
    with torch.no_grad():
        return model.model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0].numpy()


def prompts(count: int, rng: np.random.Generator) -> list[list[int]]:
    """Ragged, from one token up to beyond the window; they begin with, end in and consist of the padding token too."""
    lengths = [1, 2 * WINDOW + 3, 5, 9, 2, WINDOW, 12, 5][:count]
    made = [rng.integers(0, 64, length).tolist() for length in lengths]
    made[0] = [PAD]
    made[1][:3] = made[1][-2:] = [PAD, PAD]
    return made


def random_tree(root: int, rng: np.random.Generator, nodes: int, chain: bool) -> TokenTree:
    builder = TreeBuilder(root)
    while len(builder) < nodes:
        parent = len(builder) - 1 if chain else int(rng.integers(max(0, len(builder) - 4), len(builder)))
        builder.add(parent, int(rng.choice([PAD, *range(3, 64)])), "draft")
    return builder.build()


def compare(model: TransformersModel, count: int, chain: bool, tolerance: float, rounds: int = 3) -> None:
    """Rounds of a batch whose members, order, tree sizes and accepted paths change, against the reference."""
    rng = np.random.default_rng(count)
    text = prompts(count, rng)
    sessions = [model.open() for _ in text]
    for session, tokens in zip(sessions, text, strict=True):
        if tokens[:-1]:
            session.score(TokenTree.chain(tokens[:-1]), rows=())
            session.commit(range(len(tokens) - 1))
    for _ in range(rounds):
        rows = [int(row) for row in rng.permutation(count)[: max(2, count - int(rng.integers(0, 2)))]]
        trees = [random_tree(text[row][-1], rng, int(rng.integers(1, 10)), chain) for row in rows]
        scores = model.score_many([sessions[row] for row in rows], trees)
        for row, tree, score in zip(rows, trees, scores, strict=True):
            assert score.logits.shape == (len(tree), 64)
            for leaf in (node for node in range(len(tree)) if not tree.children[node]):
                nodes = tree.path(leaf)
                expected = reference(model, [*text[row], *tree.path_tokens(leaf)])[-len(nodes) :]
                assert np.abs(score.logits[nodes] - expected).max() < tolerance, (row, leaf)
            path = tree.path(int(rng.integers(0, len(tree))))
            sessions[row].commit(path)
            text[row] += [tree.tokens[node] for node in path[1:]] + [int(rng.integers(0, 64))]
            assert sessions[row].length == len(text[row]) - 1


@pytest.mark.parametrize("chain", [True, False])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_every_row_of_a_batch_scores_as_its_own_text(model: TransformersModel, count: int, chain: bool) -> None:
    compare(model, count, chain, EXACT)


@pytest.mark.parametrize("name", [*CONFIGS, "llama-eager", "gemma3-eager"])
def test_in_single_precision_only_last_bits_differ(name: str) -> None:
    base, _, attention = name.partition("-")
    compare(wrapped(base, torch.float32, attention or "sdpa"), 4, False, SINGLE)


def test_a_batch_is_one_forward(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = model.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    sessions = [model.open() for _ in range(3)]
    monkeypatch.setattr(model.model, "forward", counted)
    scores = model.score_many(sessions, [TokenTree.chain([1] * n) for n in (2, 5, 1)])
    assert shapes == [(3, 5)]
    assert [score.logits.shape[0] for score in scores] == [2, 5, 1]
    assert len({score.ms for score in scores}) == 1
    assert model.score_many([], []) == []


def test_positions_and_masks_are_what_the_lengths_say() -> None:
    model = wrapped("llama")
    trees = [TokenTree((5, 6, 7), (-1, 0, 0)), TokenTree.chain([PAD, PAD]), TokenTree.chain([9])]
    lengths = [4, 6, 0]
    assert model.positions(trees, lengths).tolist() == [[4, 5, 5], [6, 7, 6], [0, 0, 0]]
    seen = (model.masks(trees, lengths)[:, 0] == 0).int().tolist()
    assert seen == [
        [[1, 1, 1, 1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 0, 0, 1, 1, 0], [1, 1, 1, 1, 0, 0, 1, 0, 1]],
        [[1, 1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0, 1]],
        [[0, 0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0, 1]],
    ]


def test_caches_that_grow_keep_what_they_hold(model: TransformersModel) -> None:
    rng = np.random.default_rng(0)
    text = [rng.integers(0, 64, length).tolist() for length in (1, 8)]
    sessions = [model.open() for _ in text]
    for _ in range(9):
        trees = [TokenTree.chain(rng.integers(0, 64, 9).tolist()) for _ in text]
        for tokens, session, tree in zip(text, sessions, trees, strict=True):
            session.score(TokenTree.chain(tokens[session.length :]), rows=())
            session.commit(range(len(tokens) - session.length))
            tokens.extend(tree.tokens)
        for tokens, score in zip(text, model.score_many(sessions, trees), strict=True):
            assert np.abs(score.logits - reference(model, tokens)[-9:]).max() < EXACT
    assert sessions[0].length > 64


def test_rows_picked_by_row_and_hidden_states_for_those_who_asked(model: TransformersModel) -> None:
    trees = [TokenTree((5, 6, 7, 8), (-1, 0, 0, 2)), TokenTree.chain([9, 10]), TokenTree.chain([11])]
    alone = [model.open(hidden).score(tree) for tree, hidden in zip(trees, (Taps(), None, Taps()), strict=True)]
    sessions = [model.open(hidden) for hidden in (Taps(), None, Taps())]
    for keeps in (True, False):
        model.keeps_logits = keeps
        try:
            first, second, third = model.score_many(sessions, trees, [[3, 1], (), None])
        finally:
            model.keeps_logits = True
        assert (first.rows, second.rows, third.rows) == ((1, 3), (), (0,))
        assert np.abs(first.logits - alone[0].logits[[1, 3]]).max() < EXACT
        assert second.logits.shape == (0, 64) and second.hidden is None
        assert np.abs(third.logits - alone[2].logits).max() < EXACT
        assert first.hidden is not None and third.hidden is not None
        assert first.hidden[OUTPUT].shape == (2, 32) and third.hidden[OUTPUT].shape == (1, 32)
        assert np.abs(first.hidden[OUTPUT] - alone[0].hidden[OUTPUT][[1, 3]]).max() < SINGLE
        assert np.abs(third.hidden[OUTPUT] - alone[2].hidden[OUTPUT]).max() < SINGLE


def test_a_text_that_is_too_long_is_refused_before_the_pass(model: TransformersModel) -> None:
    session = model.open()
    session.score(TokenTree.chain([3] * 95), rows=())
    session.commit(range(95))
    with pytest.raises(UnspoolError, match="context of 96"):
        model.score_many([model.open(), session], [TokenTree.chain([1]), TokenTree.chain([1, 2])])


def test_a_pass_that_failed_leaves_nothing_to_commit(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    session = model.open()
    session.score(TokenTree.chain([3, 4]))
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(model.model, "forward", lambda **_: (_ for _ in ()).throw(MemoryError))
        session.score(TokenTree.chain([5, 6]))
    with pytest.raises(ValueError, match="last scored tree"):
        session.commit([0])


# Ways to get it wrong. Each is a real mistake of some implementation, made on purpose here.


def no_positions(patch: pytest.MonkeyPatch) -> None:
    """Nodes are numbered by column, padding included."""
    positions = TransformersModel.positions
    patch.setattr(
        TransformersModel, "positions", lambda self, trees, lengths: positions(self, trees, [max(lengths)] * len(trees))
    )


def no_depths(patch: pytest.MonkeyPatch) -> None:
    """Nodes are numbered by slot, as transformers does when it is told nothing."""

    def by_slot(self: TransformersModel, trees: Sequence[TokenTree], lengths: Sequence[int]) -> np.ndarray:
        return np.array(lengths)[:, None] + np.arange(max(map(len, trees)))

    patch.setattr(TransformersModel, "positions", by_slot)


def change_mask(patch: pytest.MonkeyPatch, change: Callable[[np.ndarray, int], None]) -> None:
    mask = TransformersModel._mask

    def changed(self: TransformersModel, allowed: np.ndarray, positions: np.ndarray, window: int | None) -> Any:
        allowed = allowed.copy()
        change(allowed, allowed.shape[2] - allowed.shape[1])
        return mask(self, allowed, positions, window)

    patch.setattr(TransformersModel, "_mask", changed)


def all_ones(patch: pytest.MonkeyPatch) -> None:
    """The gap between a row's text and its nodes is attended to."""

    def gap(allowed: np.ndarray, width: int) -> None:
        allowed[:, :, :width] = True

    change_mask(patch, gap)


def siblings_see_each_other(patch: pytest.MonkeyPatch) -> None:
    """Nodes see all nodes before them."""

    def triangle(allowed: np.ndarray, width: int) -> None:
        allowed[:, :, width:] |= np.tri(allowed.shape[1], dtype=np.bool_)

    change_mask(patch, triangle)


def padding_by_token(patch: pytest.MonkeyPatch) -> None:
    """A node that holds the padding token is taken for padding."""
    masks = TransformersModel.masks

    def inferred(self: TransformersModel, trees: Sequence[TokenTree], lengths: Sequence[int]) -> Any:
        built, width = masks(self, trees, lengths), max(lengths)
        for mask in built.values() if isinstance(built, dict) else [built]:
            for row, tree in zip(mask, trees, strict=True):
                hidden = [width + node for node, token in enumerate(tree.tokens) if token == PAD]
                row[:, :, hidden] = torch.finfo(mask.dtype).min
                row[:, range(mask.shape[2]), range(width, mask.shape[3])] = 0
        return built

    patch.setattr(TransformersModel, "masks", inferred)


def not_gathered(patch: pytest.MonkeyPatch) -> None:
    """As many entries are kept as nodes were accepted, but those of the first nodes."""
    append = RowCache.append
    patch.setattr(RowCache, "append", lambda self, nodes: append(self, range(len(nodes))))


def not_moved_up(patch: pytest.MonkeyPatch) -> None:
    """Accepted entries stay behind the gap of their pass: the row is as long as the longest one of its batch."""
    append, init = RowCache.append, PassCache.__init__

    def remember(self: PassCache, rows: Sequence[RowCache]) -> None:
        init(self, rows)
        for row in rows:
            row.behind = self._width - row.length  # type: ignore[attr-defined]

    def late(self: RowCache, nodes: Sequence[int]) -> None:
        if self.behind and self.length:  # type: ignore[attr-defined]
            start = self.length
            append(self, [nodes[0]] * self.behind + list(nodes))  # type: ignore[attr-defined]
            self.length = start + len(nodes)
        else:
            append(self, nodes)

    patch.setattr(PassCache, "__init__", remember)
    patch.setattr(RowCache, "append", late)


def rejected_kept(patch: pytest.MonkeyPatch) -> None:
    """Rejected nodes before the last accepted one stay in the cache, and positions count them."""
    append = RowCache.append
    patch.setattr(RowCache, "append", lambda self, nodes: append(self, range(nodes[-1] + 1)))


def window_by_slot(patch: pytest.MonkeyPatch) -> None:
    """A sliding window counts slots."""
    mask = TransformersModel._mask

    def by_slot(self: TransformersModel, allowed: np.ndarray, positions: np.ndarray, window: int | None) -> Any:
        rows, nodes, slots = allowed.shape
        return mask(self, allowed, np.broadcast_to(slots - nodes + np.arange(nodes), (rows, nodes)), window)

    patch.setattr(TransformersModel, "_mask", by_slot)


def rows_swapped(patch: pytest.MonkeyPatch) -> None:
    """New entries go to the wrong rows."""
    update = PassCache.update

    def swapped(self: PassCache, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, **_: Any) -> Any:
        result = update(self, keys, values, layer_idx)
        new = [row.new[layer_idx] for row in self._rows]
        for row, entries in zip(self._rows, new[1:] + new[:1], strict=True):
            row.new[layer_idx] = entries
        return result

    patch.setattr(PassCache, "update", swapped)


CHAIN_FAULTS = [no_positions, all_ones, padding_by_token, not_moved_up, rows_swapped]
TREE_FAULTS = [no_depths, siblings_see_each_other, not_gathered, rejected_kept]


@pytest.mark.parametrize(
    ("fault", "chain"), [*((fault, True) for fault in CHAIN_FAULTS), *((fault, False) for fault in TREE_FAULTS)]
)
def test_a_mistake_shows_in_the_logits(
    model: TransformersModel, fault: Callable[[pytest.MonkeyPatch], None], chain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        compare(model, 4, chain, 1e-3)


def test_a_window_that_counts_slots_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_model = wrapped("gemma3")
    window_by_slot(monkeypatch)
    with pytest.raises(AssertionError):
        compare(torch_model, 4, True, 1e-3)


def test_what_memory_holds_in_a_gap_is_not_read(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *size: empty(self, *size).fill_(torch.nan))
    compare(model, 4, False, EXACT)


# Whole texts.


class PartlyRight:
    """Trees that hold the true continuation for a while, after a wrong sibling and before a wrong end."""

    def __init__(self, text: Sequence[int], chain: bool) -> None:
        self._text = list(text)
        self._chain = chain

    def start(self, context: Context) -> None: ...

    def propose(self, context: Context, budget: int) -> TokenTree:
        at = len(context.tokens)
        rng = np.random.default_rng(at)
        builder = TreeBuilder(context.tokens[-1])
        node = 0
        for token in self._text[at : at + int(rng.integers(0, 5))]:
            if not self._chain:
                builder.add(node, (token + 1) % 64, "wrong")
            node = builder.add(node, token, "right")
        for wrong in rng.integers(0, 64, int(rng.integers(0, 4))).tolist():
            node = builder.add(node, wrong, "wrong")
        return builder.build()

    def observe(self, step: object) -> None: ...


def run(
    model: TransformersModel,
    text: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]] | None,
    options: GenerationOptions,
    plan: BatchPlan | None,
    chain: bool = False,
) -> list[list[int]]:
    drafters = [
        PartlyRight([*prompt, *continuations[i]], chain) if continuations else Plain() for i, prompt in enumerate(text)
    ]
    shapers = build_shapers(options)
    made = [
        Request(prompt, drafter, ExactMatch(), options, shapers, frozenset({2}))
        for prompt, drafter in zip(text, drafters, strict=True)
    ]
    return texts(decode(model, made, plan), len(text))


def greedy(model: TransformersModel, tokens: Sequence[int], count: int) -> list[int]:
    text = list(tokens)
    while len(text) < len(tokens) + count and (len(text) == len(tokens) or text[-1] != 2):
        text.append(int(reference(model, text)[-1].argmax()))
    return text[len(tokens) :]


PLANS: dict[str, Callable[[int], BatchPlan | None]] = {
    "all": lambda size: None,
    "eqspec": lambda size: EqSpec(EqSpecOptions(size)),
    "exspec": lambda size: ExSpec(ExSpecOptions(size, size + 3, max_waiting_passes=3)),
}
GREEDY = GenerationOptions(max_new_tokens=24)
NOISY = GenerationOptions(max_new_tokens=24, temperature=0.9, seed=5)


@pytest.fixture(scope="module")
def expected(model: TransformersModel) -> dict[bool, list[list[int]]]:
    text = prompts(8, np.random.default_rng(0))
    return {
        True: [greedy(model, prompt, 24) for prompt in text],
        False: [run(model, [prompt], None, NOISY, None)[0] for prompt in text],
    }


@pytest.mark.parametrize(("plan", "size", "chain"), [("all", 2, False), ("eqspec", 4, True), ("exspec", 8, False)])
def test_texts_are_those_of_the_rows_alone(
    model: TransformersModel, expected: dict[bool, list[list[int]]], plan: str, size: int, chain: bool
) -> None:
    text = prompts(8, np.random.default_rng(0))
    assert len({tuple(row) for row in expected[False]}) == 8
    for options in (GREEDY, NOISY):
        true = expected[options.greedy]
        assert run(model, text, true, options, PLANS[plan](size), chain) == true


def test_models_with_positions_of_another_kind() -> None:
    """GPT-2 adds a learned position to the embedding, so that padding needs a valid one too."""
    config = GPT2Config(
        vocab_size=64, n_positions=96, n_embd=32, n_layer=3, n_head=4, initializer_range=0.2, pad_token_id=0
    )
    compare(TransformersModel.from_pretrained_model(build(config, dtype=torch.float64)), 4, False, EXACT)


@pytest.mark.parametrize("model", ["gemma3"], indirect=True)
@pytest.mark.parametrize("fault", [*CHAIN_FAULTS, *TREE_FAULTS])
def test_a_mistake_shows_in_the_texts(
    model: TransformersModel,
    expected: dict[bool, list[list[int]]],
    fault: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = prompts(8, np.random.default_rng(0))
    fault(monkeypatch)
    assert run(model, text, expected[False], NOISY, PLANS["eqspec"](4)) != expected[False]
