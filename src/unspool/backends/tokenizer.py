"""Text to ids and back, from the files of a Hugging Face tokenizer, without importing torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as _Fast
from tokenizers.decoders import DecodeStream

from unspool.engine.trace import FinishReason
from unspool.errors import UnspoolError

Message = dict[str, str]


class Tokenizer:
    """The tokenizer of a model directory (``tokenizer.json``, ``tokenizer_config.json``, ``chat_template.jinja``).

    Raises:
        UnspoolError: if the directory has no ``tokenizer.json``.
    """

    def __init__(self, directory: Path) -> None:
        if not (directory / "tokenizer.json").is_file():
            raise UnspoolError(f"{directory} has no tokenizer.json; save the model's fast tokenizer there")
        self._fast = _Fast.from_file(str(directory / "tokenizer.json"))
        config_file = directory / "tokenizer_config.json"
        self._config: dict[str, Any] = json.loads(config_file.read_text("utf-8")) if config_file.is_file() else {}
        template = directory / "chat_template.jinja"
        self._template = template.read_text("utf-8") if template.is_file() else self._config.get("chat_template")

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
        return isinstance(self._template, str)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self._fast.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return self._fast.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def to_json(self) -> str:
        """The fast tokenizer as the text of a ``tokenizer.json``."""
        return self._fast.to_str()

    def token(self, token_id: int) -> str:
        """The raw piece of one id; empty for an id without one."""
        return self._fast.id_to_token(token_id) or ""

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation, ending where the model's answer begins.

        Raises:
            UnspoolError: if the model has no chat template or the template refuses the messages.
        """
        if not isinstance(self._template, str):
            raise UnspoolError("this model has no chat template; use --no-chat (chat=False)")
        # Imported here: transformers takes half a second, and raw prompts do not need it.
        from transformers.utils.chat_template_utils import render_jinja_template

        special = {k: _content(v) for k, v in self._config.items() if k.endswith("_token")}
        try:
            rendered, _ = render_jinja_template(
                conversations=[list(messages)],
                chat_template=self._template,
                add_generation_prompt=True,
                **special,
            )
        except Exception as error:  # templates raise whatever jinja raises
            raise UnspoolError(f"the chat template refused the messages: {error}") from error
        return self.encode(rendered[0], add_special_tokens=False)

    def stream(self) -> TextStream:
        return TextStream(self._fast)


class TextStream:
    """Decodes ids one by one; a piece is held back until its bytes form whole characters."""

    def __init__(self, fast: _Fast) -> None:
        self._fast = fast
        self._decoder = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        return self._decoder.step(self._fast, token) or ""


class StopStrings:
    """Ends a text at the first of some strings. One object serves one sequence; ``text`` is cut before the string.

    Args:
        tokenizer: of the model.
        strings: at least one, none of them empty.
    """

    def __init__(self, tokenizer: Tokenizer, strings: Sequence[str]) -> None:
        self._stream = tokenizer.stream()
        self._strings = tuple(strings)
        self._reach = max(len(s) for s in self._strings)
        self.text = ""

    @property
    def held_back(self) -> int:
        """Characters at the end of ``text`` that a stop string might still swallow."""
        return self._reach - 1

    def __call__(self, token: int) -> FinishReason | None:
        piece = self._stream.push(token)
        start = max(0, len(self.text) - self._reach)
        self.text += piece
        found = [at for s in self._strings if (at := self.text.find(s, start)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            return "stop_string"
        return None


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
