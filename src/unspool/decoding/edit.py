"""Edit a prompt and keep its cache. For how the cache follows an edit, see ``unspool.methods.cache.edit``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from unspool.decoding.generate import requests
from unspool.decoding.loaded import LoadedModel
from unspool.decoding.request import GenerationArguments, arguments
from unspool.decoding.results import Result
from unspool.engine.autoregressive import decode, extend
from unspool.engine.contracts import Ability
from unspool.engine.statistics import Statistics
from unspool.engine.turns import turn
from unspool.engine.typed import typed_options
from unspool.errors import UnspoolError, UnsupportedError
from unspool.methods.cache import edit as pie
from unspool.methods.cache.edit import Change, Mode, Origins, PieOptions, Refresh


@dataclass(frozen=True)
class Edit:
    """The effect of an edit on the cache.

    Attributes:
        exact: whether the cache equals a prefill of the text; otherwise it is an approximation.
        encoded: number of tokens that went through the model.
        shifted: number of tokens whose entries moved to other positions.
        ms: total milliseconds.
    """

    exact: bool
    encoded: int
    shifted: int
    ms: float


@dataclass(frozen=True)
class EditedResult(Result[Statistics]):
    """A result, and whether it equals the result for the same text without edits.

    Attributes:
        exact: False if it was decoded from an approximate cache.
    """

    exact: bool = False


class EditableText:
    """A prompt and its cache, created by ``Model.edit``. Change it only through its methods.

    Attributes:
        text: the current prompt.
        tokens: its ids.
    """

    def __init__(self, model: LoadedModel, text: str, options: PieOptions) -> None:
        if options.mode != "recompute" and Ability.CACHE_EDIT not in model.language_model.abilities:
            raise UnsupportedError(
                f"mode {options.mode!r} needs {Ability.CACHE_EDIT.value}, which the "
                f'{model.language_model.settings["backend"]} backend does not offer; use mode "recompute"'
            )
        self._model = model
        self._options = options
        self.text = text
        self.tokens = self._encode(text)
        self._session = model.language_model.open()
        with turn(model.language_model):
            extend(self._session, self.tokens[:-1])
        self._exact = self._session.length

    @property
    def exact(self) -> bool:
        """Whether the cache equals a prefill of the text."""
        return self._exact == self._session.length

    def replace(self, start: int, stop: int, new_text: str) -> Edit:
        """Replace characters ``start`` to ``stop`` by ``new_text``; equal ones insert, an empty text deletes.

        Raises:
            UnspoolError: as ``replace_all``.
        """
        return self.replace_all([(start, stop, new_text)])

    def replace_all(self, changes: Sequence[Change]) -> Edit:
        """Make several changes at once; each stretch between them is moved once.

        Args:
            changes: (start, stop, new text) in characters of the current text, in order, not overlapping.

        Raises:
            UnspoolError: if the changes do not fit the text, or the new text is empty or exceeds the model's context.
                The text and its cache are then unchanged.
            UnsupportedError: if the model's keys cannot be moved; nothing changes then either.
        """
        begin = time.perf_counter()
        _check(changes, len(self.text))
        text, versions = self.text, [self.tokens]
        for start, stop, new_text in reversed(changes):
            text = text[:start] + new_text + text[stop:]
            versions.append(self._encode(text))
        made_of = pie.origins(versions)
        if self._options.mode != "conflict":
            made_of = pie.renew_first(made_of)
        first = pie.kept(made_of)
        if self._options.mode == "recompute":
            made_of[first:] = [None] * (len(made_of) - first)
        elif self._options.mode == "hybrid":
            order = pie.choose(self._options, self.text, text, changes, self._ends(versions[-1]))
            stale = [t for t in order if first <= t < len(made_of) and made_of[t] is not None]
            for t in stale[: self._options.refresh_tokens]:
                made_of[t] = None
        return self._follow(begin, text, versions[-1], made_of)

    def refresh(self, start: int = 0, stop: int | None = None) -> Edit:
        """Encode characters ``start`` to ``stop`` (the end by default) again where their entries are approximate.

        Over the whole text, this makes the cache exact.

        Raises:
            UnspoolError: if the range is not within the text.
        """
        begin = time.perf_counter()
        stop = len(self.text) if stop is None else stop
        _check([(start, stop, "")], len(self.text))
        made_of: Origins = list(range(len(self.tokens) - 1))
        for t in pie.covering(self._ends(self.tokens), start, stop):
            if self._exact <= t < len(made_of):
                made_of[t] = None
        return self._follow(begin, self.text, self.tokens, made_of)

    def generate(self, **options: Any) -> EditedResult:
        """Continue the text; takes the options of ``Model.generate``. The text itself does not change."""
        (prepared,) = requests(self._model, [self.tokens], arguments(GenerationArguments, options, self._model.name))
        request = replace(prepared.request, session=self._session.fork())
        events = list(decode(self._model.language_model, [request]))
        return EditedResult(**vars(prepared.result(events)), exact=self.exact)

    def close(self) -> None:
        """Free the memory of the cache."""
        self._session.close()

    def _follow(self, begin: float, text: str, tokens: list[int], made_of: Origins) -> Edit:
        with turn(self._model.language_model):
            session = pie.rebuild(self._session, tokens, made_of, rotate=self._options.mode != "conflict")
        self._session.close()
        self.text, self.tokens, self._session = text, tokens, session
        self._exact = pie.exact_length(made_of, self._exact)
        return Edit(
            exact=self.exact,
            encoded=made_of.count(None),
            shifted=sum(origin not in (None, t) for t, origin in enumerate(made_of)),
            ms=(time.perf_counter() - begin) * 1000,
        )

    def _encode(self, text: str) -> list[int]:
        tokens, limit = self._model.encode(text, chat=False), self._model.language_model.max_length
        if len(tokens) >= limit:
            raise UnspoolError(f"the text has {len(tokens)} tokens, the model's context {limit}; shorten the text")
        return tokens

    def _ends(self, tokens: Sequence[int]) -> list[int]:
        """The end of each token, in characters; a character of several tokens belongs to the last of them."""
        return list(accumulate(len(piece) for piece in self._model.tokenizer.pieces(tokens)))


@typed_options("model", "text")
def edit(
    model: LoadedModel,
    text: str,
    *,
    mode: Mode = PieOptions.mode,
    refresh: Refresh = PieOptions.refresh,
    refresh_tokens: int = PieOptions.refresh_tokens,
) -> EditableText:
    """Encode a text to edit, as it is, without a chat template.

    Args:
        mode, refresh, refresh_tokens: see ``PieOptions``.

    Raises:
        UnspoolError: if the text is empty or as long as the model's context, or an option is wrong.
        UnsupportedError: if the backend cannot edit its cache and the mode is not ``recompute``.
    """
    return EditableText(model, text, PieOptions(mode, refresh, refresh_tokens))


def _check(changes: Sequence[Change], length: int) -> None:
    at = 0
    for start, stop, _ in changes:
        if not at <= start <= stop <= length:
            raise UnspoolError(
                f"characters {start} to {stop} are not a range of the text's {length} after the change before it; "
                "give 0 <= start <= stop <= length, in order, not overlapping"
            )
        at = stop
