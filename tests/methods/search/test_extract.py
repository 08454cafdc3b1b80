"""Spans against scoring each of them by itself, on toy models, and the way from a text to spans and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import typer
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers
from typer.testing import CliRunner

import unspool
from unspool import Model, UnspoolError
from unspool.backends.toy import ToyModel
from unspool.cli import extract as command
from unspool.decoding import extract as api
from unspool.engine.contracts import LanguageModel, Scores
from unspool.engine.tree import TokenTree
from unspool.methods.search.extract import search
from unspool.methods.search.extract.span import ExtractOptions, Found, Span, Suffix, suffixes
from unspool.models.tokenizer import Tokenizer

TEXT = "The comet was found by Caroline Herschel in 1786.\n  She was paid (50 pounds) by the King."


def chance(model: ToyModel, prompt: Sequence[int], span: Sequence[int], ends: set[int], end: bool = True) -> float:
    """Log-probability of a span and an end behind it, one table row a token."""
    total, context = 0.0, list(prompt)
    for token in span:
        total += math.log(model.probabilities(context)[token])
        context.append(token)
    return total + (math.log(sum(model.probabilities(context)[sorted(ends)])) if end else 0.0)


def brute(
    model: ToyModel,
    prompt: Sequence[int],
    passage: Sequence[int],
    ends: set[int],
    length: int,
    penalty: float = 0.0,
    end: bool = True,
) -> dict[tuple[int, ...], float]:
    """Score of every span without an end in it, best first."""
    spans = {
        tuple(passage[i : i + m])
        for i in range(len(passage))
        for m in range(1, min(length, len(passage) - i) + 1)
        if not ends & set(passage[i : i + m])
    }
    scores = {span: chance(model, prompt, span, ends, end) / (len(span) + 1) ** penalty for span in spans}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def case(seed: int) -> tuple[ToyModel, list[int], list[int], set[int]]:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(3, 9))
    model = ToyModel.random(seed, vocab_size=size, order=int(rng.integers(1, 4)), floor=0.01)
    ends = set(rng.choice(size, int(rng.integers(1, min(size - 1, 3))), replace=False).tolist())
    passage = rng.integers(0, size, int(rng.integers(2, 13))).tolist()
    passage[0] = next(token for token in range(size) if token not in ends)
    return model, rng.integers(0, size, int(rng.integers(1, 5))).tolist(), passage, ends


def test_equals_brute_force_on_500_random_cases() -> None:
    read = {True: 0, False: 0}
    for seed in range(500):
        model, prompt, passage, ends = case(seed)
        length, penalty = 1 + seed % 7, (0.0, 1.0, 0.5)[seed % 3]
        expected = list(brute(model, prompt, passage, ends, length, penalty).items())
        for best_first in (True, False):
            options = ExtractOptions(4, length, penalty, best_first, pass_nodes=1 + seed % 11)
            found = search(model, prompt, passage, suffixes(passage), ends, options)
            read[best_first] += found.nodes
            assert len(found.spans) == min(4, len(expected))
            for span, (tokens, score) in zip(found.spans, expected, strict=False):
                assert span.logprob / len(span.logprobs) ** penalty == pytest.approx(score, abs=1e-12)
                assert span.token_ids == tokens
                assert tuple(passage[span.start : span.end]) == span.token_ids
    assert read[True] < read[False]


def find(model: LanguageModel, passage: Sequence[int], ends: set[int], **options: float | None) -> Found:
    return search(model, [0, 1], passage, suffixes(passage), ends, ExtractOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("best_first", [True, False])
def test_does_not_depend_on_the_size_of_a_pass(best_first: bool) -> None:
    model = ToyModel.random(3, vocab_size=6, order=3)
    passage = [1, 2, 3, 1, 2, 4, 0, 1, 2, 3, 3, 0]
    found = [find(model, passage, {5}, top_k=5, best_first=best_first, pass_nodes=size) for size in range(1, 10)]
    assert len({one.spans for one in found}) == 1
    assert found[0].passes > found[8].passes
    assert found[0].spans == find(model, passage, {5}, top_k=5, best_first=not best_first).spans


def test_every_beginning_is_read_once_and_best_first_leaves_out_what_cannot_win() -> None:
    model = ToyModel.random(3, vocab_size=6, order=3)
    passage = [1, 2, 3, 1, 2, 4, 0, 1, 2, 3, 3, 0]
    beginnings = {tuple(passage[i : i + m]) for i in range(12) for m in range(13 - i)}
    whole = find(model, passage, {5}, best_first=False)
    assert (whole.passes, whole.nodes) == (1, len(beginnings))
    assert find(model, passage, {5}, pass_nodes=1).nodes < len(beginnings)
    # One node a pass: read are only the prefixes whose bound reaches the best score.
    best = whole.spans[0].logprob
    reaching = [b for b in beginnings if chance(model, [0, 1], b, {5}, end=False) >= best]
    narrow = find(model, passage, {5}, pass_nodes=1)
    assert narrow.passes == len(reaching) < len(beginnings)


def test_token_logprobs_sum_to_the_total_and_are_the_models() -> None:
    model, prompt, passage, ends = case(17)
    for span in search(model, prompt, passage, suffixes(passage), ends, ExtractOptions(top_k=9)).spans:
        assert len(span.logprobs) == len(span.token_ids) + 1
        assert sum(span.logprobs) == span.logprob == pytest.approx(math.log(span.probability))
        for m in range(len(span.token_ids)):
            row = model.probabilities([*prompt, *span.token_ids[:m]])
            assert span.logprobs[m] == pytest.approx(math.log(row[span.token_ids[m]]))
        assert math.exp(span.logprobs[-1]) == pytest.approx(
            model.probabilities([*prompt, *span.token_ids])[sorted(ends)].sum()
        )


def test_the_probabilities_of_all_spans_do_not_exceed_one() -> None:
    for seed in range(20):
        model, prompt, passage, ends = case(seed)
        found = search(model, prompt, passage, suffixes(passage), ends, ExtractOptions(top_k=1000))
        assert sum(span.probability for span in found.spans) <= 1 + 1e-12


def test_no_worse_than_greedy_where_greedy_stays_in_the_passage_and_better_somewhere() -> None:
    extractive = gains = 0
    for seed in range(400):
        model, prompt, passage, ends = case(seed)
        greedy: list[int] = []
        while len(greedy) < 12 and (token := int(model.probabilities([*prompt, *greedy]).argmax())) not in ends:
            greedy.append(token)
        best = search(model, prompt, passage, suffixes(passage), ends).spans[0]
        if any(passage[i : i + len(greedy)] == greedy for i in range(len(passage))) and 0 < len(greedy) < 12:
            theirs = chance(model, prompt, greedy, ends)
            assert best.logprob >= theirs - 1e-12
            extractive += 1
            gains += best.logprob > theirs + 1e-9
    assert extractive > 40 and gains > 3


def test_without_the_end_a_single_token_would_win() -> None:
    changed = 0
    for seed in range(100):
        model, prompt, passage, ends = case(seed)
        best = search(model, prompt, passage, suffixes(passage), ends).spans[0]
        without = next(iter(brute(model, prompt, passage, ends, 12, end=False)))
        assert len(without) == 1
        changed += best.token_ids != without
    assert changed > 10


def test_the_normalised_score_prefers_longer_spans() -> None:
    longer = 0
    for seed in range(50):
        model, prompt, passage, ends = case(seed)
        plain, normalised = (
            search(model, prompt, passage, suffixes(passage), ends, ExtractOptions(length_penalty=p)).spans[0]
            for p in (0.0, 1.0)
        )
        assert len(normalised.token_ids) >= len(plain.token_ids)
        longer += len(normalised.token_ids) > len(plain.token_ids)
    assert longer > 5


@pytest.mark.parametrize("best_first", [True, False])
def test_equal_scores_go_to_the_earliest_start_then_the_shortest(best_first: bool) -> None:
    # Ids 1 and 2 have the same chances everywhere; 3 ends an answer.
    model = ToyModel(np.tile([0.1, 0.3, 0.3, 0.3], (5, 1)))
    options = ExtractOptions(top_k=3, best_first=best_first)
    found = search(model, [0], [2, 2, 1, 2], suffixes([2, 2, 1, 2]), {3}, options)
    assert [(span.start, span.end) for span in found.spans] == [(0, 1), (2, 3), (0, 2)]


@pytest.mark.parametrize("best_first", [True, False])
def test_what_the_model_cannot_write_is_no_answer(best_first: bool) -> None:
    options = ExtractOptions(top_k=9, best_first=best_first)
    never_ends = ToyModel(np.tile([0.5, 0.5, 0.0], (4, 1)))
    with pytest.raises(UnspoolError, match="a probability of 0"):
        search(never_ends, [0], [1, 0], suffixes([1, 0]), {2}, options)
    never_one = ToyModel(np.tile([0.5, 0.0, 0.5], (4, 1)))
    found = search(never_one, [0], [0, 1, 0], suffixes([0, 1, 0]), {2}, options)
    assert [span.token_ids for span in found.spans] == [(0,)]


def test_an_open_beginning_that_may_still_draw_level_is_read() -> None:
    # After 0: 1 has a chance of 1/2 and then ends with 1/2, 2 has one of 1/4 and then ends for sure.
    table = np.array([[0.25] * 4, [0, 0.5, 0.25, 0.25], [0.5, 0, 0, 0.5], [0, 0, 0, 1], [0.25] * 4])
    found = search(ToyModel(table), [0], [2, 1], suffixes([2, 1]), {3}, ExtractOptions(pass_nodes=1))
    assert found.spans[0].start == 0 and found.spans[0].probability == pytest.approx(0.25)


@pytest.mark.parametrize("best_first", [True, False])
def test_one_text_written_in_two_ways_counts_once_with_the_better_score(best_first: bool) -> None:
    better = set()
    for seed in range(10):
        model = ToyModel.random(seed, vocab_size=5)
        ways = [Suffix(0, (1, 2), (None, 2)), Suffix(0, (3,), (2,)), Suffix(2, (2,), (3,))]
        found = search(model, [0], "abc", ways, {4}, ExtractOptions(top_k=5, best_first=best_first))
        scores = {way.tokens: chance(model, [0], way.tokens, {4}) for way in ways}
        assert sorted((span.start, span.end) for span in found.spans) == [(0, 2), (2, 3)]
        ab = next(span for span in found.spans if span.start == 0)
        assert ab.logprob == pytest.approx(max(scores[1, 2], scores[3,]))
        better.add(ab.token_ids)
    assert better == {(1, 2), (3,)}


def test_nan_and_wrong_input_are_told() -> None:
    model = ToyModel.random(1, vocab_size=4, max_length=6)

    class Broken:
        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

        def open(self) -> object:
            session = model.open()
            score = session.score

            def wrong(tree: TokenTree, rows: Sequence[int] | None = None) -> Scores:
                scores = score(tree, rows)
                scores.logits[:, 0] = np.nan
                return scores

            session.score = wrong  # type: ignore[method-assign]
            return session

    with pytest.raises(UnspoolError, match="NaN"):
        search(Broken(), [0], (1,), suffixes([1]), {3})  # type: ignore[arg-type]
    for prompt, passage, ends, message in (
        ([], [1], {3}, "prompt is empty"),
        ([0], [], {3}, "no span"),
        ([0], [3, 3], {3}, "no span"),
        ([0], [1], set(), "end_token_ids"),
        ([0], [1], {4}, "end_token_ids must be ids from 0 to 3"),
        ([0, 1, 2], [1, 2, 1, 2], {3}, "7 tokens, but the model's context has 6"),
    ):
        with pytest.raises(UnspoolError, match=message):
            search(model, prompt, passage, suffixes(passage), ends)
    assert search(model, [0, 1, 2], [1, 2, 1], suffixes([1, 2, 1]), {3}).spans
    for options in ({"top_k": 0}, {"max_span_tokens": 0}, {"pass_nodes": 0}, {"length_penalty": -1}):
        with pytest.raises(UnspoolError, match=next(iter(options))):
            ExtractOptions(**options)  # type: ignore[arg-type]


# From a text to spans and back. Two kinds of tokenizer: bytes with merges, and words with a mark for the space.


class Bytes(Tokenizer):
    """Bytes, and a few merges; id 0 ends a text."""

    def __init__(self) -> None:
        merges = [("a", "b"), ("Ġ", "ab"), ("Ċ", "Ċ")]
        pieces = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "Ġab", "ĊĊ"]
        self._fast = Fast(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
        self._fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._fast.decoder = decoders.ByteLevel()
        self._fast.add_special_tokens(["<end>"])
        self._template = None


class Marked(Tokenizer):
    """SentencePiece's way: a space is part of the next word, and so is one before the text."""

    def __init__(self) -> None:
        pieces = {piece: i for i, piece in enumerate(["?", "▁", "▁a", "▁b", "a", "b", "c"])}
        self._fast = Fast(models.BPE(pieces, [("▁", "a"), ("▁", "b")], unk_token="?"))
        self._fast.pre_tokenizer = pre_tokenizers.Metaspace()
        self._fast.decoder = decoders.Metaspace()
        self._template = None


def texts(tokenizer: Tokenizer, passage: str, length: int = 8) -> Iterator[tuple[str, str]]:
    """For each span: its text in the passage, and what its tokens decode to."""
    for suffix in api.word_suffixes(tokenizer, passage, length):
        assert len(suffix.tokens) == len(suffix.ends) <= length
        for m, end in enumerate(suffix.ends, 1):
            if end is not None:
                yield passage[suffix.start : end], tokenizer.decode(suffix.tokens[:m])


@pytest.mark.parametrize("tokenizer", [Bytes(), Marked()], ids=["bytes", "marked"])
def test_spans_are_what_their_tokens_say(tokenizer: Tokenizer) -> None:
    found = list(texts(tokenizer, " a \n\t bc\n\nab  a "))
    assert all(" ".join(text.split()) == decoded.lstrip(" ") and text == text.strip() for text, decoded in found)
    assert {"a", "a \n\t bc", "bc\n\nab  a", "ab"} <= {text for text, _ in found}
    assert "c" not in {text for text, _ in found}, "a span that begins within a word"


def test_both_tokenisations_are_scored() -> None:
    tokenizer = Bytes()
    written = {tuple(s.tokens) for s in api.word_suffixes(tokenizer, "b ab", 1) if s.start == 2}
    assert written == {tuple(tokenizer.encode(" ab")), tuple(tokenizer.encode("ab"))}


def test_no_span_ends_within_a_character() -> None:
    assert {text for text, _ in texts(Bytes(), "é日本")} == {"é", "é日", "é日本", "日", "日本", "本"}


def test_words_and_signs_begin_spans() -> None:
    passage = "(don't) x_1-22 สวัส ประ"
    starts = {suffix.start for suffix in api.word_suffixes(Bytes(), passage, 1)}
    words = [passage.index(part) for part in ("(", "don", "'", "t)", ")", "x", "_", "1", "-", "22")]
    assert {start for start in starts if start < 14} == set(words)
    assert passage.index("ว") in starts and passage.index("ั") not in starts


def test_what_the_tokenizer_does_not_give_back_is_refused() -> None:
    with pytest.raises(UnspoolError, match="reproduce the passage at '<end> b'"):
        api.word_suffixes(Bytes(), "a <end> b", 8)
    with pytest.raises(UnspoolError, match="reproduce the passage"):
        api.word_suffixes(Bytes(), "a <end>", 8)
    with pytest.raises(UnspoolError, match="reproduce the passage"):
        api.word_suffixes(Marked(), "a z b", 8)
    silent = Bytes()
    silent._fast = Fast(models.BPE({"a": 0}, []))  # leaves out what it does not know
    with pytest.raises(UnspoolError, match="reproduce the passage at 'b'"):
        api.word_suffixes(silent, "b", 8)


def test_line_ends() -> None:
    tokenizer = Bytes()
    assert api.line_ends(tokenizer) == {tokenizer.encode(text)[0] for text in ("\n", "\n\n", "\r")}


class Bigrams(ToyModel):
    """A toy model with a vocabulary of any size."""

    def __init__(self, size: int) -> None:
        weights = np.random.default_rng(4).random((size + 1, size)) ** 4
        self.table = weights / weights.sum(axis=1, keepdims=True)
        self.eos_token_id = None
        self._max_length = 2000
        self._logits = np.log(self.table)


@pytest.fixture(scope="module")
def toy() -> Model:
    tokenizer = Bytes()
    return Model("toy", "toy", Bigrams(tokenizer.vocab_size), tokenizer, [0])


def test_extract_is_the_best_of_all_spans_of_the_text(toy: Model) -> None:
    passage = "ab (c ab)\n d 12"
    found = api.extract(toy, "which?", passage, top_k=4, max_span_tokens=6)
    tokenizer, model = toy.tokenizer, toy.language_model
    assert isinstance(model, ToyModel)
    ends = {0} | api.line_ends(tokenizer)
    prompt = tokenizer.encode(api.PROMPT.format(passage=passage, question="which?"))
    assert found.prompt_token_ids == prompt
    scores: dict[str, float] = {}
    for suffix in api.word_suffixes(tokenizer, passage, 6):
        for m, end in enumerate(suffix.ends, 1):
            if end is not None:
                text = passage[suffix.start : end]
                scores[text] = max(scores.get(text, -math.inf), chance(model, prompt, suffix.tokens[:m], ends))
    best = sorted(scores, key=lambda text: -scores[text])[:4]
    assert [span.text for span in found.spans] == best and found.text == best[0]
    for span in found.spans:
        assert span.text == passage[span.start : span.end]
        assert span.logprob == pytest.approx(scores[span.text], abs=1e-9)
    assert found.spans == api.extract(toy, "which?", passage, top_k=4, max_span_tokens=6, best_first=False).spans
    # The end set is the caller's, if given.
    only = api.extract(toy, "which?", passage, end_token_ids=[0])
    assert only.spans[0].logprobs[-1] == pytest.approx(
        math.log(model.probabilities(only.spans[0].token_ids)[0]), abs=1e-9
    )


@pytest.mark.parametrize(("question", "passage", "message"), [(" ", "a", "question"), ("a", "\n \t", "passage")])
def test_empty_input_is_one_clear_error(toy: Model, question: str, passage: str, message: str) -> None:
    with pytest.raises(UnspoolError, match=f"the {message} is empty"):
        api.extract(toy, question, passage)


def test_a_passage_without_a_span_is_one_clear_error(toy: Model) -> None:
    with pytest.raises(UnspoolError, match="no span to answer with"):
        api.extract(toy, "which?", "日", max_span_tokens=1)


def run(*arguments: str, stdin: str | None = None) -> tuple[str, Exception | None]:
    app = typer.Typer()
    app.command()(command.extract)
    result = CliRunner().invoke(app, [*arguments], input=stdin)
    return result.stdout, result.exception  # type: ignore[return-value]


def test_command_line_tells_mistakes_before_it_loads_a_model(tmp_path: Path) -> None:
    for arguments, message in (
        (("-q", "x", "--top-k", "0", "a"), "top_k"),
        (("-q", "x", "--max-span-tokens", "0", "a"), "max_span_tokens"),
        (("-q", " ", "a"), "the question is empty"),
        (("-q", "x", " "), "the passage is empty"),
        (("-q", "x", "a", "--file", "b"), "both given"),
        (("-q", "x", "--file", str(tmp_path / "b")), "cannot read"),
    ):
        _, error = run("-m", "nosuchmodel", *arguments)
        assert isinstance(error, UnspoolError) and message in str(error)


def test_command_line_prints_what_extract_finds(toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "loaded", lambda *_, **__: nullcontext(toy))
    passage = "ab (c\n d) 12"
    found = api.extract(toy, "which?", passage, top_k=3, max_span_tokens=4)
    options = ("-q", "which?", "--max-span-tokens", "4")
    file = tmp_path / "passage.txt"
    file.write_text(passage)
    output, error = run(*options, "--top-k", "3", "--file", str(file), "--json")
    assert error is None
    data = json.loads(output)
    assert (data["passes"], data["nodes"]) == (found.passes, found.nodes)
    for row, span in zip(data["spans"], found.spans, strict=True):
        assert (row["text"], row["start"], row["end"]) == (span.text, span.start, span.end)
        assert tuple(row["token_ids"]) == span.token_ids and tuple(row["logprobs"]) == span.logprobs
        assert (row["logprob"], row["probability"]) == (span.logprob, span.probability)
    assert run(*options, stdin=passage)[0].splitlines()[0] == " ".join(found.text.split())
    table = [line.split("\t") for line in run(*options, "--top-k", "3", passage)[0].splitlines()[:3]]
    assert [row[1] for row in table] == [f"{span.start}-{span.end}" for span in found.spans]
    assert float(table[0][0]) == pytest.approx(found.spans[0].probability, rel=1e-3)


@pytest.mark.model
def test_smollm2_spans_have_the_scores_of_plain_passes() -> None:
    model = unspool.load("smollm2-135m")
    question = "Who found the comet?"
    found = api.extract(model, question, TEXT, top_k=3, max_span_tokens=4)
    whole = api.extract(model, question, TEXT, top_k=3, max_span_tokens=4, best_first=False)
    assert [span.text for span in found.spans] == [span.text for span in whole.spans]
    for mine, theirs in zip(found.spans, whole.spans, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert_scored_alone(model, found.prompt_token_ids, mine)


def assert_scored_alone(model: Model, prompt: Sequence[int], span: Span) -> None:
    ends = sorted(model.eos_token_ids | api.line_ends(model.tokenizer))
    session = model.language_model.open()
    session.score(TokenTree.chain(prompt[:-1]), ())
    session.commit(range(len(prompt) - 1))
    wanted = [*([token] for token in span.token_ids), ends]
    for root, ids, logprob in zip((prompt[-1], *span.token_ids), wanted, span.logprobs, strict=True):
        row = session.score(TokenTree.chain([root])).logits[0].astype(np.float64)
        session.commit([0])
        p = np.exp(row - row.max())
        assert logprob == pytest.approx(math.log(p[ids].sum() / p.sum()), abs=1e-3)
