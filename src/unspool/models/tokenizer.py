"""Text to ids and back, as in transformers, without importing torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as _Fast

from unspool.errors import UnspoolError
from unspool.models import tokenizer_files
from unspool.models.chat import Chat
from unspool.models.text_stream import Forms, StopStrings, TextStream, cleaned, shared
from unspool.models.tokenizer_files import Settings

__all__ = ["Message", "Settings", "StopStrings", "TextStream", "Tokenizer", "vocabulary_fingerprint"]

Message = dict[str, Any]


class Tokenizer:
    """The tokenizer of a model.

    Args:
        directory: written by unspool (see ``models.tokenizer_files``), or in Hugging Face layout and then read by
            transformers.

    Raises:
        UnspoolError: if there is no tokenizer, a file is damaged, or ``tokenizer.json`` cannot express what it does.
    """

    settings = Settings()

    def __init__(self, directory: Path) -> None:
        self._fast, self.settings = tokenizer_files.read(directory)
        self._fast.encode_special_tokens = self.settings.split_special_tokens

    @classmethod
    def of(cls, fast: _Fast, settings: Settings | None = None) -> Tokenizer:
        """A tokenizer that is in memory."""
        made = cls.__new__(cls)
        made._fast, made.settings = fast, settings or Settings()
        return made

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._fast.get_vocab_size()

    @property
    def vocabulary(self) -> dict[str, int]:
        """Piece to id, added tokens included."""
        return self._fast.get_vocab()

    @property
    def has_chat_template(self) -> bool:
        return self.settings.chat_template is not None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text; special tokens in it are encoded as such.

        Raises:
            UnspoolError: if the tokenizer has no ids for part of it.
        """
        try:
            return self._fast.encode(text, add_special_tokens=add_special_tokens).ids
        except Exception as error:  # the library has no exception types
            raise UnspoolError(f"the tokenizer cannot encode {text[:40]!r}: {error}") from error

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids that begin a text, as decoded by transformers. Ids without a piece add nothing."""
        text = self.decode_raw(ids, skip_special_tokens)
        return cleaned(text) if self.settings.clean_up else text

    def decode_raw(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """``decode`` before spaces are cleaned up."""
        return self._fast.decode([i for i in ids if 0 <= i < 1 << 32], skip_special_tokens=skip_special_tokens)

    def text(self, ids: Sequence[int], context: Sequence[int] = (), skip_special_tokens: bool = True) -> str:
        """The text of ids that follow others: what an output adds to its prompt.

        Args:
            context: ``context`` of the preceding ids.
        """
        before = self.decode_raw(context, skip_special_tokens)
        whole = self.decode_raw([*context, *ids], skip_special_tokens)
        # If the prompt ends within a character, that character belongs to the output.
        text = whole[shared(before, whole) :]
        return cleaned(text) if self.settings.clean_up else text

    def context(self, prompt: Sequence[int], exact: bool = False) -> list[int]:
        """The end of a prompt, as far as it affects how the following text is written.

        After a special token, such as the one that opens the answer in a chat, a text starts afresh:
        SentencePiece-style tokenizers then write no space before its first word.

        Args:
            exact: keep that space. Constraints see it, so it is part of a text that must match one.
        """
        at = next((i for i in range(len(prompt) - 1, -1, -1) if self.is_special(prompt[i])), -1)
        tail = list(prompt[at + 1 :])
        if self.forms.stepwise:
            solid = next((i for i in range(len(tail) - 1, -1, -1) if self.is_solid(tail[i])), 0)
            tail = tail[solid:]
        return tail or ([self._solid] if exact and self._solid is not None else [])

    def stream(self, context: Sequence[int] = ()) -> TextStream:
        """Decodes ids one by one; the pieces and the last ``rest`` add up to ``text``."""
        return TextStream(self, context)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each id adds to ``decode(ids)``; a character of several tokens belongs to the last one."""
        stream, text = self.stream(), self.decode(ids)
        given, ends = 0, [0]
        for token in ids:
            given += len(stream.push(token))
            ends.append(min(len(text), max(ends[-1], given + len(stream.rest().rstrip("\ufffd")))))
        ends[-1] = len(text)
        return [text[start:end] for start, end in pairwise(ends)]

    def to_json(self, vocab_size: int) -> str:
        """The tokenizer as a ``tokenizer.json``, for a model with logits for ids below ``vocab_size``.

        A tokenizer may have more ids than its model has logits; ids without a logit are dropped.
        """
        if max(self.vocabulary.values(), default=0) < vocab_size:
            return self._fast.to_str()
        return tokenizer_files.trimmed(self._fast, vocab_size)

    def token(self, token_id: int) -> str:
        """The raw piece of one id; empty for an id without one."""
        return self._fast.id_to_token(token_id) or "" if self.has_piece(token_id) else ""

    def has_piece(self, token_id: int) -> bool:
        """Whether the tokenizer knows an id; a model may have more ids."""
        return 0 <= token_id < 1 << 32 and self._fast.id_to_token(token_id) is not None

    def is_special(self, token_id: int) -> bool:
        """Whether an id is a special token, which is not part of the text."""
        return token_id in self._special

    def is_solid(self, token_id: int) -> bool:
        """Whether an id is not a special token and writes a visible character by itself."""
        if (known := self._known.get(token_id)) is None:
            text = "" if self.is_special(token_id) else self.decode_raw([token_id], False)
            lone = self.forms.bytes and self.token(token_id).startswith("<0x")
            known = self._known[token_id] = not lone and bool(text.replace("\ufffd", "").strip())
        return known

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, ending where the model's answer begins.

        Messages are plain text: a special token spelled in one is not that token, see ``models.chat``.

        Raises:
            UnspoolError: if the model has no chat template, the template refuses the messages, or their text cannot be
                kept apart from the template's own tokens.
        """
        return self._chat.encode(messages)

    @cached_property
    def forms(self) -> Forms:
        """How the decoder writes text."""
        decoder = self._fast.decoder
        return Forms(None if decoder is None else json.loads(decoder.__getstate__()))

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self._fast, self.settings)

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(i for i, token in self._fast.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def _known(self) -> dict[int, bool]:
        return {}

    @cached_property
    def _solid(self) -> int | None:
        return next((i for i in sorted(self.vocabulary.values()) if self.is_solid(i)), None)


def vocabulary_fingerprint(vocabulary: Mapping[str, int]) -> str:
    """64 hex digits that identify a vocabulary: every piece and its id."""
    pieces = json.dumps(sorted(vocabulary.items()), separators=(",", ":"))
    return hashlib.sha256(pieces.encode()).hexdigest()
