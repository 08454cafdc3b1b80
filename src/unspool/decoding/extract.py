"""Answer a question with a span of a passage. For how spans are scored, see ``unspool.methods.search.extract``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from unspool.decoding.loaded import LoadedModel
from unspool.engine.typed import typed_options
from unspool.errors import UnspoolError
from unspool.methods.search.extract import search
from unspool.methods.search.extract.span import ExtractOptions, Span, Suffix
from unspool.methods.spec import canonical
from unspool.models.tokenizer import Tokenizer

PROMPT = "Answer the question with words copied from the text.\n\nText: {passage}\n\nQuestion: {question}\n\nAnswer:"


@dataclass(frozen=True)
class TextSpan(Span):
    """A span; ``start`` and ``end`` are character positions in the passage.

    Attributes:
        text: ``passage[start:end]``.
    """

    text: str


@dataclass(frozen=True)
class Extraction:
    """Answers and their cost.

    Attributes:
        spans: the best spans with different text, best first.
        passes: forward passes, without the prompt's.
        nodes: tree nodes scored in them.
        prompt_token_ids: ids that the answer would follow.
        method: the search.
        model: the name of the model.
    """

    spans: tuple[TextSpan, ...]
    passes: int
    nodes: int
    prompt_token_ids: list[int]
    method: str
    model: str

    @property
    def text(self) -> str:
        """The best span."""
        return self.spans[0].text


@typed_options("model", "question", "passage")
def extract(
    model: LoadedModel,
    question: str,
    passage: str,
    *,
    top_k: int = ExtractOptions.top_k,
    max_span_tokens: int = ExtractOptions.max_span_tokens,
    length_penalty: float = ExtractOptions.length_penalty,
    best_first: bool = ExtractOptions.best_first,
    pass_nodes: int | None = ExtractOptions.pass_nodes,
    end_token_ids: Collection[int] | None = None,
    chat: bool | None = None,
) -> Extraction:
    """The most probable spans of a passage as the model's answer to a question. The search is exact.

    A span begins at a word or a sign and ends after any whole character. It is scored in two tokenisations, that of
    the passage and that of the span alone; the better score counts. White space within a span is read as one space,
    whatever it is in the passage.

    Args:
        question, passage: put into ``PROMPT``; neither may be empty.
        top_k, max_span_tokens, length_penalty, best_first, pass_nodes: see ``ExtractOptions``.
        end_token_ids: any of these ends an answer; by default the ids that end a text, and all tokens that begin with a
            line break (``line_ends``). A full stop is not among them: names and numbers continue after it.
        chat: whether to use the chat template; by default if the model has one.

    Raises:
        UnspoolError: if question or passage are empty, the passage has no span or exceeds the model's context, or the
            tokenizer does not reproduce the passage.
    """
    options = ExtractOptions(top_k, max_span_tokens, length_penalty, best_first, pass_nodes)
    check(question, passage)
    candidates = word_suffixes(model.tokenizer, passage, max_span_tokens)
    prompt = model.encode(PROMPT.format(passage=passage.strip(), question=question.strip()), chat)
    if end_token_ids is None:
        end_token_ids = model.eos_token_ids | line_ends(model.tokenizer)
    found = search(model.language_model, prompt, passage, candidates, end_token_ids, options)
    spans = tuple(TextSpan(**vars(span), text=passage[span.start : span.end]) for span in found.spans)
    return Extraction(spans, found.passes, found.nodes, prompt, canonical("extract", options), model.name)


def check(question: str, passage: str) -> None:
    """Check the arguments of ``extract`` that need no model.

    Raises:
        UnspoolError: if question or passage are empty.
    """
    for name, text in (("question", question), ("passage", passage)):
        if not text.strip():
            raise UnspoolError(f"the {name} is empty; give some text")


@lru_cache(maxsize=4)
def line_ends(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of tokens that begin with a line break, or with blanks and one. Cached: reads the whole vocabulary."""
    pieces = ((i, tokenizer.decode([i])) for i in tokenizer.vocabulary.values())
    return frozenset(i for i, piece in pieces if piece.lstrip(" \t").startswith(("\n", "\r")))


def word_suffixes(tokenizer: Tokenizer, passage: str, length: int) -> list[Suffix]:
    """The suffixes of a text that begin at a word or a sign, each in both tokenisations.

    Args:
        length: maximum tokens needed of each.

    Raises:
        UnspoolError: if the tokenizer does not reproduce the text.
    """
    # White space becomes single spaces; `places` maps each remaining character to its position in the passage.
    places = [i for i, c in enumerate(passage.rstrip()) if not c.isspace() or (i and not passage[i - 1].isspace())]
    flat = "".join(" " if passage[i].isspace() else passage[i] for i in places)
    made = []
    for start, ids, stops in _written(tokenizer, flat, length):
        ends = (None if stop is None or flat[stop - 1] == " " else places[stop - 1] + 1 for stop in stops)
        made.append(Suffix(places[start], tuple(ids), tuple(ends)))
    return made


def _written(tokenizer: Tokenizer, flat: str, length: int) -> Iterator[tuple[int, list[int], list[int | None]]]:
    """For each suffix: the start of its first word, its ids, and the end of each."""
    starts = {i for i, _ in enumerate(flat) if _is_start(flat, i)}
    ids = tokenizer.encode(flat, add_special_tokens=False)
    stops = _stops(tokenizer, ids, flat, 0)
    if (read := max((stop for stop in stops if stop is not None), default=0)) < len(flat):
        raise _unreadable(flat, read)
    for t, begin in enumerate([0, *stops[:-1]]):
        # A leading space is written, but not part of the span.
        if begin is not None and (start := begin + (flat[begin] == " ")) in starts:
            yield start, ids[t : t + length], stops[t : t + length]
    for start in sorted(starts):
        # n words have at least n tokens.
        words = re.compile(rf"\S+(?: \S+){{0,{length - 1}}}").match(flat, start)
        assert words is not None  # no space begins here
        ids = tokenizer.encode(words[0], add_special_tokens=False)[:length]
        yield start, ids, _stops(tokenizer, ids, flat, start)


def _is_start(text: str, at: int) -> bool:
    c, kind = text[at], unicodedata.category(text[at])
    if c == " " or kind[0] == "M":
        return False
    # In scripts without upper case, many of which use no spaces, every letter may begin a word.
    return kind == "Lo" or not c.isalnum() or at == 0 or not (text[at - 1].isalnum() or _is_mark(text[at - 1]))


def _is_mark(c: str) -> bool:
    return unicodedata.category(c)[0] == "M"


def _stops(tokenizer: Tokenizer, ids: Sequence[int], text: str, at: int) -> list[int | None]:
    """The end of each token in ``text``, if the first begins ``at``; None within a character of several tokens."""
    stops: list[int | None] = []
    for written in tokenizer.pieces(ids):
        # The ids may end within a character.
        piece = written if text.startswith(written, at) else written.rstrip("\ufffd")
        if not text.startswith(piece, at):
            raise _unreadable(text, at)
        at += len(piece)
        stops.append(at if piece else None)
    return stops


def _unreadable(text: str, at: int) -> UnspoolError:
    return UnspoolError(
        f"the tokenizer does not reproduce the passage at {text[at : at + 20]!r}; remove special tokens and "
        "characters that it cannot encode"
    )
