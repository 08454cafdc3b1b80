"""Edits of a prompt against prefills of the new text: the toy model (exact), tiny Llamas, SmolLM2."""

from __future__ import annotations

import copy
import inspect
import itertools
import queue
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Fast
from transformers import AutoModelForCausalLM, LlamaConfig

import unspool
from unspool import Model, UnspoolError
from unspool.backends.torch.model import TransformersModel
from unspool.backends.toy import ToyModel, ToySession
from unspool.decoding.edit import EditableText
from unspool.engine.autoregressive import extend
from unspool.engine.contracts import Ability
from unspool.engine.taps import Taps
from unspool.engine.tree import TokenTree
from unspool.errors import UnsupportedError
from unspool.methods.cache import edit as pie
from unspool.methods.cache.edit import Mode, PieOptions
from unspool.models.tokenizer import Tokenizer

TEXT = "a = 1\nb = a\nccc = 3\nprint(b)\nprint(ccc)\nd = b + ccc\nprint(d)\n"
PIECES = ["pr", "in", "prin", "print", "cc", "ccc", " =", "\n\n"]
MERGES = [("p", "r"), ("i", "n"), ("pr", "in"), ("prin", "t"), ("c", "c"), ("cc", "c"), (" ", "="), ("\n", "\n")]


class EditableToySession(ToySession):
    def splice(self, source: ToySession, start: int, stop: int, *, rotate: bool = True) -> None:
        shift = self.length - start if rotate else 0
        self.cache += [(token, position + shift) for token, position in source.cache[start:stop]]


class EditableToy(ToyModel):
    """The toy's entries hold a token and its position and nothing of what stood before, so moving them is exact."""

    abilities = frozenset({Ability.CACHE_EDIT})  # type: ignore[assignment]

    def open(self, taps: Taps | None = None) -> EditableToySession:
        return EditableToySession(self)


class Letters(Tokenizer):
    """Eight letters, one token each."""

    def __init__(self) -> None:
        self._fast = Fast(models.WordLevel({letter: i for i, letter in enumerate("abcdefgh")}, "a"))
        self._fast.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        self._fast.decoder = decoders.Fuse()
        self._template = None


class Merging(Tokenizer):
    """Characters, and a few merges, some of them across what an edit cuts apart."""

    def __init__(self) -> None:
        letters = sorted({*TEXT, *"xyz_0123456789", *"".join(PIECES)})
        vocabulary = {piece: i for i, piece in enumerate([*letters, *PIECES])}
        self._fast = Fast(models.BPE(vocabulary, MERGES))
        self._fast.decoder = decoders.Fuse()
        self._template = None


TOY = Model("toy", "toy", EditableToy.random(3, vocab_size=8, order=3, max_length=64), Letters(), ())


@pytest.fixture(scope="module")
def llama() -> Model:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=Merging().vocab_size,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    made = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    return Model("tiny", "tiny", TransformersModel.from_pretrained_model(made), Merging(), ())


def logits(editor: EditableText) -> np.ndarray:
    """After the last token, on the editor's own cache."""
    fork = editor._session.fork()
    assert fork.length == len(editor.tokens) - 1
    return fork.score(TokenTree.chain(editor.tokens[-1:])).logits[0].copy()


def fresh(model: Model, text: str) -> np.ndarray:
    session = model.language_model.open()
    tokens = model.tokenizer.encode(text)
    extend(session, tokens[:-1])
    return session.score(TokenTree.chain(tokens[-1:])).logits[0].copy()


def off(editor: EditableText) -> float:
    return float(np.abs(logits(editor) - fresh(editor._model, editor.text)).max())


def edits(text: str, seed: int, count: int) -> Iterator[tuple[int, int, str]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        start, stop = sorted(int(x) for x in rng.integers(0, len(text) + 1, 2))
        new = "".join("abcdefgh"[i] for i in rng.integers(0, 8, rng.integers(0, 6)))
        if len(text) - (stop - start) + len(new) >= 2:
            yield start, stop, new
            text = text[:start] + new + text[stop:]


@pytest.mark.parametrize("mode", ["pie", "hybrid", "recompute"])
@pytest.mark.parametrize("seed", range(6))
def test_entries_are_those_of_a_prefill_after_any_edits(mode: Mode, seed: int) -> None:
    """On the toy, whose entries are (token, position)."""
    editor = TOY.edit("abcdefghhgfedcba", mode=mode, refresh_tokens=2)
    for start, stop, new in edits(editor.text, seed, 8):
        expected = editor.text[:start] + new + editor.text[stop:]
        done = editor.replace(start, stop, new)
        assert editor.text == expected and editor.tokens == TOY.tokenizer.encode(expected)
        assert editor._session.cache == [(t, i) for i, t in enumerate(editor.tokens[:-1])]  # type: ignore[attr-defined]
        assert done.encoded + done.shifted <= len(editor.tokens) - 1
        ours = editor.generate(method="plain", max_new_tokens=6, temperature=1.0, seed=seed)
        assert (
            ours.token_ids
            == TOY.generate(expected, method="plain", max_new_tokens=6, temperature=1.0, seed=seed).token_ids
        )
        assert ours.exact == editor.exact == done.exact
        if mode == "recompute":
            assert done.exact


def test_without_the_rotation_positions_collide_or_are_missing() -> None:
    editor = TOY.edit("abcdefgh", mode="conflict")
    editor.replace(2, 3, "aaaa")
    assert [p for _, p in editor._session.cache] == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6]  # type: ignore[attr-defined]
    assert off(editor) > 0.1


def test_an_equal_text_changes_nothing(llama: Model) -> None:
    editor = llama.edit(TEXT)
    before = {layer: [part.clone() for part in pair] for layer, pair in editor._session.cache._kept.items()}  # type: ignore[attr-defined]
    done = editor.replace(6, 11, TEXT[6:11])
    assert (done.exact, done.encoded, done.shifted) == (True, 0, 0)
    length = editor._session.length
    for layer, pair in before.items():
        for now, then in zip(editor._session.cache.kept(layer), pair, strict=True):  # type: ignore[attr-defined]
            assert torch.equal(now, then[:, :length])


@pytest.mark.parametrize("mode", ["pie", "hybrid", "conflict", "recompute"])
def test_an_edit_at_the_end_is_a_prefill(llama: Model, mode: Mode) -> None:
    editor = llama.edit(TEXT, mode=mode)
    done = editor.replace(len(TEXT) - 4, len(TEXT), "_(ccc")
    assert done.exact and (done.encoded, done.shifted) == (2, 0)  # the last token is never cached
    assert off(editor) < 1e-5
    assert editor.replace(len(editor.text), len(editor.text), "x = 1\n").exact and off(editor) < 1e-5
    assert editor.replace(len(editor.text) - 6, len(editor.text), "").exact and off(editor) < 1e-5


def test_approximate_is_said_and_true_and_conflict_is_worse(llama: Model) -> None:
    found: dict[str, float] = {}
    for mode in ("pie", "conflict"):
        editor = llama.edit(TEXT, mode=mode)  # type: ignore[arg-type]
        done = editor.replace(6, 6, "x = 2\ny = x\nz = y\n")
        assert not done.exact and not editor.exact and not editor.generate(max_new_tokens=1, method="plain").exact
        assert done.encoded == 15 and done.shifted == len(editor.tokens) - 1 - 5 - 15
        found[mode] = off(editor)
    assert 1e-3 < found["pie"] < found["conflict"]


def test_encoding_everything_again_is_exact(llama: Model) -> None:
    editor = llama.edit(TEXT, mode="hybrid", refresh_tokens=10_000)
    done = editor.replace(0, 1, "xyz")
    assert done.exact and done.shifted == 0 and off(editor) < 1e-5
    assert llama.edit(TEXT, mode="hybrid", refresh_tokens=0).replace(0, 1, "xyz").shifted > 30


def test_recomputation_goes_back_to_the_first_approximate_entry(llama: Model) -> None:
    """What an earlier edit left approximate is not exact because a later edit stands behind it."""
    editor = llama.edit(TEXT)
    editor.replace(0, 1, "xyz")
    assert not editor.replace(len(editor.text), len(editor.text), "d").exact
    stale = off(editor)
    assert stale > 1e-3
    part = editor.refresh(0, 20)
    assert not part.exact and 0 < part.encoded <= 21
    whole = editor.refresh()
    assert whole.exact and part.encoded + whole.encoded <= len(editor.tokens) + 1 and off(editor) < 1e-5
    assert editor.refresh().encoded == 0


def test_several_changes_at_once_are_moved_once_from_what_they_were(llama: Model) -> None:
    """Each stretch equals a single splice of the old entries, to the bit."""
    editor = llama.edit(TEXT)
    source = editor._session.fork()
    at = [i for i in range(len(TEXT)) if TEXT.startswith("ccc", i)]
    done = editor.replace_all([(i, i + 3, "x_1") for i in at])
    assert editor.text == TEXT.replace("ccc", "x_1") and not done.exact
    assert done.encoded == 3 * len(at)  # one token became three, three times
    tokens, old = editor.tokens, llama.tokenizer.encode(TEXT)
    first = tokens.index(llama.tokenizer.encode("x")[0])
    behind = [i for i, t in enumerate(old) if t == llama.tokenizer.encode("ccc")[0]]
    expected = source.fork()
    expected.rewind(first)
    for i, start in enumerate(behind):
        extend(expected, llama.tokenizer.encode("x_1"))
        expected.splice(source, start + 1, [*behind, len(old) - 1][i + 1])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(logits(editor), expected.score(TokenTree.chain(tokens[-1:])).logits[0])


def test_tokens_that_merge_across_a_seam_are_part_of_the_edit(llama: Model) -> None:
    """Taking out characters makes their neighbours one token; putting them in splits a token."""
    editor = llama.edit("a = pri_nt(c_cc)\nb = 3\n", mode="recompute")
    both = editor.replace_all([(7, 8, ""), (12, 13, "")])
    assert editor.text == "a = print(ccc)\nb = 3\n"
    ids = llama.tokenizer.encode(editor.text)
    assert editor.tokens == ids and both.exact and off(editor) < 1e-5
    split = llama.edit(editor.text, mode="pie")
    done = split.replace(7, 7, "_")
    assert split.tokens == llama.tokenizer.encode("a = pri_nt(ccc)\nb = 3\n")
    assert done.encoded == len(llama.tokenizer.encode("pri_nt")) == 5
    assert split._session.length == len(split.tokens) - 1


def test_origins_of_all_short_texts() -> None:
    """Against the definition, for all pairs of texts of two letters up to length 4."""
    texts = [list(t) for n in range(1, 5) for t in itertools.product((0, 1), repeat=n)]
    for old, new in itertools.product(texts, texts):
        made_of = pie.origins([old, new])
        assert len(made_of) == len(new) - 1
        taken = [o for o in made_of if o is not None]
        assert taken == sorted(set(taken)) and all(o < len(old) - 1 for o in taken)
        assert all(old[o] == new[t] for t, o in enumerate(made_of) if o is not None)
        first = next((i for i, o in enumerate(made_of) if o != i), len(made_of))
        assert first == pie.kept(made_of)
        assert first == len(made_of) or first == len(old) - 1 or old[first] != new[first]
        assert pie.origins([old, new, old])[: pie.kept(made_of)] == list(range(min(pie.kept(made_of), len(old) - 1)))


@pytest.mark.parametrize(
    ("made_of", "exact", "expected"),
    [
        ([0, 1, 2], 3, 3),
        ([0, 1, 2], 1, 1),
        ([0, None, None], 5, 3),
        ([0, None, 3, 4], 5, 2),
        ([0, 1, None], 1, 1),
        ([None, None], 0, 2),
        ([0, None, 2], 3, 2),
    ],
)
def test_how_much_of_the_cache_is_exact(made_of: pie.Origins, exact: int, expected: int) -> None:
    assert pie.exact_length(made_of, exact) == expected


def test_names_of_changed_lines_and_the_lines_that_hold_them() -> None:
    old = "def f(a):\n    self.x = a\n\nself.y = 1\nself.x()\nf(2)\nself.z = f\n"
    new = old.replace("x = a", "w = a")
    assert pie.changed_names(old, new, [(19, 20, "w")]) == {"self", "x", "w", "a"}
    spans = pie.naming(new, {"self", "x", "w", "a"})
    lines = [new[start:stop] for start, stop in spans]
    assert lines == [
        "self.x()\n",  # x once, and so is w; the later line first
        "    self.w = a\n",
        "def f(a):\n",
        "self.z = f\n",
        "self.y = 1\n",
    ]
    two = [(0, 1, ""), (len(old) - 1, len(old) - 1, " + g")]
    assert pie.changed_names(old, old[1:-1] + " + g\n", two) == {"def", "ef", "f", "a", "self", "z", "g"}


def test_hybrid_encodes_the_naming_lines_then_the_last_tokens(llama: Model) -> None:
    """Renaming what is printed much later: the lines that name it are in the budget, those between are not."""
    editor = llama.edit(TEXT, mode="hybrid", refresh_tokens=9)
    ends = editor._ends(editor.tokens)
    assert ends[-1] == len(TEXT) and len(ends) == len(editor.tokens)
    options = PieOptions("hybrid", "names", 9)
    order = pie.choose(options, TEXT, TEXT, [(0, 1, "a")], ends)
    assert sorted(order) == list(range(len(ends)))
    line = TEXT.index("b = a")
    text = "".join(llama.tokenizer.token(editor.tokens[t]) for t in sorted(order[:6]))
    assert text == TEXT[line - 1 : line + 6]  # and the newline before it, at its seam
    assert pie.choose(PieOptions("hybrid", "last"), TEXT, TEXT, [(0, 1, "a")], ends) == list(range(len(ends)))[::-1]
    done = editor.replace(0, 1, "x_1")
    assert done.encoded == 3 + 3 + 9  # the new ones, those of the first that move, and the budget


def test_a_renamed_variable_keeps_its_old_values_in_pie_and_not_when_refreshed(llama: Model) -> None:
    """The adversarial edit: what is kept was computed from the old name."""
    values: dict[str, list[Any]] = {}
    at = TEXT.index("3\n")
    for mode in ("pie", "hybrid", "recompute"):
        editor = llama.edit(TEXT, mode=mode, refresh_tokens=60)  # type: ignore[arg-type]
        editor.replace(at, at + 1, "2")
        values[mode] = [editor._session.cache.kept(2)[1], llama.edit(TEXT)._session.cache.kept(2)[1]]  # type: ignore[attr-defined]
    behind = len(llama.tokenizer.encode(TEXT[: at + 1]))
    assert torch.equal(values["pie"][0][:, behind:], values["pie"][1][:, behind:])
    assert not torch.allclose(values["recompute"][0][:, behind:], values["recompute"][1][:, behind:], atol=1e-3)
    torch.testing.assert_close(values["hybrid"][0], values["recompute"][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", [(-1, 2, ""), (3, 2, ""), (0, 9, ""), (9, 9, "a")])
def test_ranges_outside_the_text_are_refused(change: tuple[int, int, str]) -> None:
    editor = TOY.edit("abcdefgh")
    with pytest.raises(UnspoolError, match="not a range"):
        editor.replace(*change)
    with pytest.raises(UnspoolError, match="not a range"):
        editor.refresh(*change[:2])
    assert editor.text == "abcdefgh" and editor._session.length == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(4, 5, "a"), (2, 3, "a")], "not a range"),
        ([(2, 5, "a"), (4, 6, "a")], "not a range"),
        ([(0, 8, "")], "empty"),
        ([(8, 8, "a" * 56)], "context 64"),
    ],
)
def test_changes_that_cannot_be_made_leave_everything_as_it_was(
    changes: Sequence[tuple[int, int, str]], message: str
) -> None:
    editor = TOY.edit("abcdefgh")
    with pytest.raises(UnspoolError, match=message):
        editor.replace_all(changes)
    assert editor.text == "abcdefgh" and editor._session.length == 7 and editor.exact


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "fast"}, "mode"), ({"refresh": "all"}, "refresh"), ({"refresh_tokens": -1}, "refresh_tokens")],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnspoolError, match=message):
        TOY.edit("abc", **options)
    with pytest.raises(UnspoolError, match="empty"):
        TOY.edit("")


def test_a_backend_without_the_ability_recomputes_and_nothing_else() -> None:
    plain = Model("toy", "toy", ToyModel.random(3, vocab_size=8), Letters(), ())
    with pytest.raises(UnsupportedError, match=r'toy backend .* mode "recompute"'):
        plain.edit("abcdefgh")
    editor = plain.edit("abcdefgh", mode="recompute")
    assert editor.replace(2, 3, "aaa").exact and off(editor) == 0
    editor.close()


@pytest.mark.model
def test_smollm2() -> None:
    model = unspool.load("smollm2-135m")
    text = (
        'def area(w, h):\n    """Area."""\n    return w * h\n\n\n' * 3
        + "def half(x):\n    return x / 2\n\n\nprint(half("
    )
    exact = model.edit(text, mode="recompute")
    near = model.edit(text)
    change = (text.index("def half"), text.index("def half"), "def twice(n):\n    return 2 * n\n\n\n")
    done = exact.replace(*change)
    close = near.replace(*change)
    assert done.exact and not close.exact and close.shifted == 15 == done.encoded - close.encoded
    expected = model.generate(exact.tokens, method="plain", max_new_tokens=8)
    ours = exact.generate(method="prompt_lookup", max_new_tokens=8)
    assert ours.exact and ours.token_ids == expected.token_ids and ours.prompt_token_ids == exact.tokens
    p, q = (np.exp(row.astype(np.float64) - row.max()) for row in (logits(exact), logits(near)))
    p, q = p / p.sum(), q / q.sum()
    assert 0 < float((p * np.log(p / q)).sum()) < 0.05
    # OpenVINO's logits do not depend on how a text was cut into passes, or hardly, on processors with AVX2 alone.
    assert near.refresh().exact and off(near) < 1e-4


def divergence(near: EditableText) -> float:
    """Of the next token's distribution from that after a prefill, in nats."""
    rows = [row.astype(np.float64) for row in (fresh(near._model, near.text), logits(near))]
    p, q = (row - np.logaddexp.reduce(row) for row in rows)
    return float((np.exp(p) * (p - q)).sum())


@pytest.mark.parametrize(
    ("made_of", "expected"),
    [
        ([2, 3, 4, 5, 6, 7], [None, None, None, None, 6, 7]),  # what comes first was not first
        ([None, 0, 1, 2, 3, 4, 5], [None, None, None, None, None, 4, 5]),  # what was first comes later
        ([None, None, None, None, 0, 1, 4], [None, None, None, None, None, None, 4]),
        ([0, 1, None, 3, 4], [0, 1, None, 3, 4]),  # nothing moved
        ([0, 1, None, 2, 3, 4], [0, 1, None, None, None, 4]),
        ([0, 1, 2, 3, 5, 6], [0, 1, 2, 3, 5, 6]),
    ],
)
def test_the_first_tokens_are_encoded_where_they_move(made_of: pie.Origins, expected: pie.Origins) -> None:
    assert pie.renew_first(made_of) == expected


@pytest.mark.model
def test_an_edit_at_the_first_token_of_smollm2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention rests on the first tokens: entries from further behind in their place are far off."""
    model = unspool.load("smollm2-135m")
    means = {}
    for first in (pie.FIRST, 0):
        monkeypatch.setattr(pie, "FIRST", first)
        found = []
        for module in (copy, queue):
            text = model.tokenizer.decode(model.tokenizer.encode(inspect.getsource(module))[:280])
            editor = model.edit(text)
            done = editor.replace(0, text.index("\n") + 1, "")
            assert not done.exact and done.encoded <= first + 4
            found.append(divergence(editor))
            editor.close()
        means[first] = np.mean(found)
    assert means[4] < 0.02 and means[0] > 5 * means[4], means
