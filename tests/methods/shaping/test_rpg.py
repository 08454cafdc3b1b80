"""The repeat detection against its definition, what is critical in loops of code, and what the shaper leaves alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from llguidance import LLTokenizer

import unspool
from unspool.backends.toy import ToyModel
from unspool.conformance.stubs import RandomDrafter
from unspool.engine.autoregressive import Request, decode
from unspool.engine.contracts import Drafter
from unspool.engine.numeric import softmax
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.errors import UnspoolError
from unspool.methods.acceptance._exact_match import ExactMatch
from unspool.methods.drafters.plain import Plain
from unspool.methods.shaping._built_in import build
from unspool.methods.shaping.rpg import RPG, RPGOptions, structure
from unspool.methods.shaping.rpg import build as build_rpg

EOS = 0
SIZE = 128


class Words:
    """A tokenizer that cuts like the usual ones: a space belongs to the word behind it, digits stand alone."""

    def __init__(self) -> None:
        self.pieces = [""]  # the end of the text

    def encode(self, text: str) -> list[int]:
        found = re.findall(r"\n *(?= )|\n| ?[A-Za-z]+| ?\d|['\"]{3}| ?[^\sA-Za-z\d]| +", text)
        assert "".join(found) == text
        for piece in found:
            if piece not in self.pieces:
                self.pieces.append(piece)
        return [self.pieces.index(piece) for piece in found]

    def piece(self, token: int) -> bytes:
        return self.pieces[token].encode()


def effect(text: str, options: RPGOptions | None = None) -> dict[str, float]:
    """What the shaper adds to logits after a text, by piece; the end of the text is the empty piece."""
    words = Words()
    tokens = np.array(words.encode(text))
    logits = np.random.default_rng(1).normal(-5, 3, SIZE)
    original = logits.copy()
    shaped = RPG(options or RPGOptions(), words.piece, [EOS])(tokens, logits)
    assert np.array_equal(logits, original)
    return {words.pieces[i]: float(shaped[i] - logits[i]) for i in np.flatnonzero(shaped != logits)}


def times(n: int, decay: float = 0.9) -> object:
    return pytest.approx(n * np.log(decay))


def definition(sequence: Sequence[int]) -> tuple[int, int]:
    for size in range(1, len(sequence) // 2 + 1):
        n = 0
        while (
            len(sequence) >= (n + 2) * size
            and sequence[len(sequence) - (n + 2) * size : len(sequence) - (n + 1) * size] == sequence[-size:]
        ):
            n += 1
        if n:
            return size, n
    return 0, 0


def test_tail_repeat_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(4000):
        symbols = int(rng.integers(1, 4))
        block = rng.integers(0, symbols, rng.integers(1, 8)).tolist()
        head = rng.integers(0, symbols, rng.integers(0, 12)).tolist()
        sequence = head + block * int(rng.integers(0, 5))
        assert structure.tail_repeat(sequence) == definition(sequence), sequence
        found.add(structure.tail_repeat(sequence))
    assert (0, 0) in found
    assert len([size for size, n in found if size > 3 and n > 1]) > 5


def symbols(text: str) -> list[str]:
    return [leaf.symbol for leaf in structure.parse(text.encode())[0]]


def test_names_numbers_and_strings_have_one_symbol_each() -> None:
    assert symbols('if x == 1:\n    say("a\\n" f"{x}")  # why\n') == symbols("if y == 23:\n    go('' \"b\")  # not\n")
    assert symbols("x = [a,\n  b]") == symbols("x = [a, b]"), "layout in brackets is no grammar"
    assert symbols("a\nb") != symbols("a\n b")
    assert symbols("print(1)\nprint(") == ["0|identifier", "(", "integer", ")", "0|identifier", "("]


@pytest.mark.parametrize("text", ['x = "a b c d', "x = f'a {b} c", 'x = """a "b" c\nd e', "x = 'don\\'t do"])
def test_an_open_string_is_one_symbol(text: str) -> None:
    assert symbols(text) == ["0|identifier", "=", "string"]


def test_a_complete_program_is_told_from_a_beginning() -> None:
    for text, complete in (
        ("def f(x):\n    return x\n   ", True),
        ("x = [1,\n", False),
        ("for i in x:\n", False),
        ("x = 'a", False),
        ("é = 1\n", True),
    ):
        assert structure.parse(text.encode())[1] is complete, text


def branches(n: int) -> str:
    first = 'def name(x):\n    if x == 0:\n        return "a"\n'
    return first + "".join(f'    elif x == {i}:\n        return "{chr(97 + i)}"\n' for i in range(1, n + 1))


@pytest.mark.parametrize("n", [2, 3, 6, 9])
def test_the_next_branch_of_a_growing_chain(n: int) -> None:
    assert effect(branches(1) + "   ") == {}
    # A chain of n alike branches repeats the first of them n - 1 times.
    assert effect(branches(n) + "   ") == {" elif": times(n - 1), "": pytest.approx(-(n - 1) * np.log(0.8))}


def test_a_copy_begins_behind_the_indentation() -> None:
    assert effect(branches(4)) == {}, "the indentation is still to come"
    assert effect(branches(4) + "    ") == {}, "one space too many for the token that began the last copy"
    # In the middle of a copy the block is its rotation, and from the number on the first branch is one of the copies.
    assert effect(branches(4) + "    elif x ==") == {" 4": times(4)}


def test_the_same_function_with_a_new_number() -> None:
    def copy(i: int) -> str:
        return f"def area_{i}(a, b):\n    total = a * {i}\n    return total + b\n\n"

    text = "".join(map(copy, range(1, 6)))
    assert effect(text) == {"def": times(4), "": pytest.approx(-4 * np.log(0.8))}
    for blank in (text + "\n", text[:-1]):
        assert effect(blank)["def"] == times(4), "empty lines are no grammar"
    assert effect(text[:-2]) == {}, "the line has not ended"
    assert effect(text + "def area_6(") == {"a": times(4)}
    assert effect(text[: -len(copy(5))].replace("total", "sum", 1)) == {
        "def": times(3),
        "": pytest.approx(-3 * np.log(0.8)),
    }


def test_items_of_a_list() -> None:
    assert effect("x = [1, 2, 3, 4") == {",": times(2)}
    assert effect('x = [\n    "a",\n    "b",\n    "c",\n   ') == {' "': times(2)}
    # The list is open: no end of the text, though the word before may be a statement.
    assert effect("x = [\n    print,\n    print,\n   ") == {" print": times(1)}


def test_no_repetition_leaves_the_logits_alone() -> None:
    words = Words()
    tokens = words.encode("def f(x):\n    y = x + 1\n    return [y, x]\n")
    logits = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    shaper = RPG(RPGOptions(), words.piece, [EOS])
    untouched = [
        length for length in range(len(tokens) + 1) if shaper(np.array(tokens[:length], int), logits) is logits
    ]
    assert untouched == list(range(len(tokens) + 1))


def test_repeated_text_has_a_critical_token_of_its_own() -> None:
    # By structure the last line repeats, by text both do.
    assert effect("a = 1\nb = 2\n" * 3) == {
        "a": times(2),
        "b": times(5),
    }
    assert effect("# no\n" * 3) == {"#": times(2), "": pytest.approx(-2 * np.log(0.8))}


def test_a_line_break_is_not_penalised_but_ends_programs() -> None:
    assert effect("pass\n" * 3 + "pass") == {"": pytest.approx(-2 * np.log(0.8))}


def test_probabilities_are_decayed_and_renormalised() -> None:
    words = Words()
    tokens = np.array(words.encode(branches(6) + "   "))
    logits = np.random.default_rng(3).normal(-8, 2, SIZE)
    elif_ = words.pieces.index(" elif")
    before = softmax(logits)
    expected = before.copy()
    expected[elif_] *= 0.5**5
    expected[EOS] /= 0.25**5
    shaped = RPG(RPGOptions(0.5, 0.25), words.piece, [EOS])(tokens, logits)
    np.testing.assert_allclose(softmax(shaped), expected / expected.sum(), rtol=1e-12)
    assert RPG(RPGOptions(), words.piece, [EOS])(tokens, logits.astype(np.float32)).dtype == np.float32


def test_ids_beyond_the_logits_are_left_out() -> None:
    shaped = RPG(RPGOptions(), lambda token: b"x;", [EOS])(np.array([9, 9, 9]), np.zeros(4))
    assert shaped.tolist() == [0] * 4


PIECES = ("", "if", " a", ":", "\n", " b", "\n   ", " pass")


def shaper() -> RPG:
    return RPG(RPGOptions(0.2, 0.9), lambda token: PIECES[token].encode(), [EOS])


def test_histories_may_come_in_any_order() -> None:
    rng = np.random.default_rng(5)
    texts = [rng.choice([1, 2, 3, 4, 5], rng.integers(1, 30)) for _ in range(60)]
    logits = rng.normal(size=8)
    one = shaper()
    forwards = [one(tokens, logits) for tokens in texts]
    backwards = [one(tokens, logits) for tokens in reversed(texts)][::-1]
    alone = [shaper()(tokens, logits) for tokens in texts]
    assert any(not np.array_equal(shaped, logits) for shaped in alone)
    for three in zip(forwards, backwards, alone, strict=True):
        assert np.array_equal(three[0], three[1])
        assert np.array_equal(three[0], three[2])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafting_does_not_change_the_text(temperature: float) -> None:
    options = GenerationOptions(max_new_tokens=40, temperature=temperature, seed=3)

    def run(model: ToyModel, drafter: Drafter, shapers: list[RPG]) -> list[int]:
        request = Request([1, 2], drafter, ExactMatch(), options, [*shapers, *build(options)])
        events = decode(model, [request])
        return [token for event in events if isinstance(event, StepEvent) for token in event.emitted]

    changed = 0
    for seed in range(5):
        model = ToyModel.random(seed, vocab_size=8, order=1)
        plain = run(model, Plain(), [shaper()])
        assert run(model, RandomDrafter(8, seed=seed), [shaper()]) == plain
        changed += plain != run(model, Plain(), [])
    assert changed


@pytest.mark.parametrize("options", [{"decay": 0.0}, {"decay": 1.1}, {"eos_decay": 0.0}, {"eos_decay": float("nan")}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(UnspoolError, match=r"_?decay must lie in \(0, 1\]"):
        RPGOptions(**options)


def test_a_missing_package_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tree_sitter_python", None)
    structure.parser.cache_clear()
    with pytest.raises(UnspoolError, match=r'pip install "unspool\[code\]"'):
        RPG(RPGOptions(), lambda token: b"", [])


@pytest.mark.model
def test_a_model_leaves_the_chain_of_branches() -> None:
    model = unspool.load("smollm2-135m")
    size = model.language_model.vocab_size
    vocabulary = LLTokenizer(model.tokenizer.to_json(size), n_vocab=size)
    rpg = build_rpg(RPGOptions(), vocabulary, model.eos_token_ids)
    prompt = model.tokenizer.encode(branches(6).rstrip())
    begun = np.array(model.tokenizer.encode(branches(6) + "   "))
    (special,) = model.tokenizer.encode("<|im_start|>")
    nothing = np.zeros(model.language_model.vocab_size)
    shaped = rpg(begun, nothing)
    assert {model.tokenizer.token(int(i)) for i in np.flatnonzero(shaped)} >= {"Ġelif"}
    assert set(np.flatnonzero(shaped > 0)) == model.eos_token_ids
    assert np.array_equal(rpg(np.array([special, *begun]), nothing), shaped), "a special token is no text"

    def text(method: str, *shapers: RPG) -> str:
        return model.generate(prompt, method=method, max_new_tokens=24, shapers=shapers).text

    assert text("plain").lstrip().startswith("elif x == 7:")
    # With the default decay of 0.9 the two lie within 0.15 of each other, so that the processor's rounding decides.
    strong = build_rpg(RPGOptions(decay=0.7), vocabulary, model.eos_token_ids)
    penalised = text("plain", strong)
    assert penalised.lstrip().startswith("else:")
    assert text("prompt_lookup", strong) == penalised
