"""Conversations to ids. Special tokens of the chat template are special; those spelled in a message are plain text.

transformers renders the template. To find the messages' text in the result, the template is rendered once more with
substitute letters in the messages, one for each letter that spelling a special token needs. Any special token in that
text was written by the template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from tokenizers import Tokenizer as Fast

from unspool.errors import UnspoolError
from unspool.models.tokenizer_files import Settings

# Substitute letters: private characters of no language, which no normaliser changes.
_PRIVATE, _TOKENS = range(0xF0000, 0xFFFFD), (range(0x100000, 0x10FFFD), range(0x14400, 0x14646))


class Chat:
    """Encodes conversations with a model's chat template.

    Args:
        fast: the tokenizer.
        settings: of the tokenizer.
    """

    def __init__(self, fast: Fast, settings: Settings) -> None:
        self._fast = fast
        self._settings = settings
        self._spellers: dict[bool, _Speller] = {}

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids of a conversation. See ``Tokenizer.chat``."""
        if not messages:
            raise UnspoolError("the conversation is empty; give at least one message")
        plain = [_plain(message) for message in messages]
        text = self._render(plain)
        ids = self._fast.encode(text, add_special_tokens=False).ids
        # Tokens that open turns without being special count as the template's, unless it reads them in messages.
        for every in (True, False):
            speller = self._speller(every)
            letters = speller.letters(plain, text)
            if not letters:
                return ids
            other = self._render([_hidden(message, partial(speller.hide, letters)) for message in plain])
            theirs = self._fast.encode(other, add_special_tokens=False).ids
            if speller.found(text, ids) == speller.found(other, theirs):
                return ids
            back = str.maketrans({new: old for old, new in letters.items()})
            if other.translate(back) == text:
                return speller.encode(other, back, theirs)
        raise UnspoolError(
            "the messages spell special tokens that the chat template reads or changes, so they cannot be kept apart "
            f"from the template's own ({', '.join(speller.named(ids, theirs))}); leave them out of the messages"
        )

    def _render(self, messages: list[dict[str, Any]]) -> str:
        # Imported here: transformers takes half a second, and raw prompts do not need it.
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            (text,), _ = render_jinja_template(
                conversations=[messages],
                chat_template=self._template,
                add_generation_prompt=True,
                **self._settings.special_tokens,
            )
        except Exception as error:  # templates raise any exception of jinja
            raise UnspoolError(f"the chat template refused the messages: {error}") from error
        return str(text)

    @property
    def _template(self) -> str:
        template = self._settings.chat_template
        if template is None:
            raise UnspoolError("this model has no chat template; use --no-chat (chat=False)")
        if isinstance(template, str):
            return template
        if "default" not in template:
            raise UnspoolError(
                f"this model has several chat templates and no default ({', '.join(sorted(template))}); use "
                "--no-chat (chat=False)"
            )
        return template["default"]

    def _speller(self, every: bool) -> _Speller:
        if every not in self._spellers:
            added = {i: t for i, t in self._fast.get_added_tokens_decoder().items() if not t.content.isspace()}
            control = {i: token.content for i, token in added.items() if token.special}
            if every:
                named = self._settings.control_tokens
                written = self._around() if named is None else "\0".join(named)
                control |= {i: token.content for i, token in added.items() if token.content in written}
            other = {token.content for i, token in added.items() if i not in control}
            rare = f"{chr(_PRIVATE[0])} {chr(_TOKENS[1][0])}"
            unknown = frozenset(self._fast.encode(rare, add_special_tokens=False).ids)
            self._spellers[every] = _Speller(self._fast, control, other, unknown)
        return self._spellers[every]

    def _around(self) -> str:
        """The template's text around messages. Some models open a turn with a token that is not special."""
        user, answer = {"role": "user", "content": ""}, {"role": "assistant", "content": ""}
        for messages in ([user, answer, user], [user]):
            try:
                return self._render(messages)
            except UnspoolError:  # it expects other messages
                continue
        return ""


@dataclass
class _Speller:
    """Distinguishes a template's control tokens from tokens spelled in messages.

    Attributes:
        fast: the tokenizer.
        control: by id, the tokens that no message may produce.
        other: added tokens that a message may produce.
        unknown: ids of letters outside the vocabulary; any text may contain them.
    """

    fast: Fast
    control: dict[int, str]
    other: set[str]
    unknown: frozenset[int]

    def letters(self, messages: list[dict[str, Any]], text: str) -> dict[str, str]:
        """Substitutes for the letters of the messages that spelling a control token needs."""
        used = {
            c
            for message in messages
            for s in _strings({k: v for k, v in message.items() if not _is_role(k, v)})
            for c in s
        }
        hidden = sorted(c for c in used if not c.isspace() and self._spells(c))
        taken = used | set(text)
        free = (c for c in map(chr, _PRIVATE) if c not in taken)
        letters = dict(zip(hidden, free, strict=False))
        if len(letters) < len(hidden):
            raise UnspoolError("the messages contain too many private characters; leave them out")
        return letters

    def hide(self, letters: dict[str, str], text: str) -> str:
        """A message's text with substitute letters; tokens in ``other`` are kept."""
        table = str.maketrans(letters)
        parts = self._left.split(text)
        return "".join(part if i % 2 else part.translate(table) for i, part in enumerate(parts))

    def found(self, text: str, ids: Iterable[int]) -> tuple[list[str], list[int]]:
        """The control tokens of a text: as spelled in it, and as found by the tokenizer."""
        return self._pattern.findall(text), [i for i in ids if i in self.control and i not in self.unknown]

    def named(self, ids: Iterable[int], own: Iterable[int]) -> list[str]:
        """The control tokens among ``ids`` that are not in ``own``, or else all of them."""
        control = {i for i in ids if i in self.control and i not in self.unknown}
        return sorted(self.control[i] for i in control - set(own) or control)

    def encode(self, text: str, back: dict[int, Any], own: Iterable[int]) -> list[int]:
        """Ids of a rendered text whose messages have substitute letters.

        Args:
            back: table from substitutes to letters.
            own: ids of that text; all control tokens in it are the template's.

        Raises:
            UnspoolError: if the tokenizer still makes a control token from a message's text.
        """
        fast, stands, known = self._renamed
        names = {content: name for name, content in stands.items()}
        marked = self._pattern.sub(lambda match: names[match[0]], text).translate(back)
        if not set(stands).isdisjoint(text.translate(back)):
            raise UnspoolError("the messages contain private characters next to special tokens; leave one of them out")
        encoded = [known.get(i, i) for i in fast.encode(marked, add_special_tokens=False).ids]
        if self.found("", encoded) != self.found("", own):
            raise UnspoolError(
                "the messages spell special tokens that this tokenizer cannot write as text "
                f"({', '.join(self.named(encoded, own))}); leave them out of the messages"
            )
        return encoded

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return _pattern(self.control.values())

    @cached_property
    def _left(self) -> re.Pattern[str]:
        """Added tokens that are kept, since templates may read them; none is part of a control token."""
        readable = (token for token in self.other if not self._keys.isdisjoint(token))
        return _pattern(t for t in readable if not any(_overlap(t, content) for content in self.control.values()))

    @cached_property
    def _keys(self) -> frozenset[str]:
        """A letter of each control token, without which it cannot be spelled. Rare letters, so few texts have one."""
        return frozenset(
            next((c for c in content if not c.isalnum() and not c.isspace()), content.strip()[0])
            for content in self.control.values()
        )

    def _spells(self, letter: str) -> bool:
        if letter in self._keys:
            return True
        normalizer = self.fast.normalizer
        if normalizer is None:
            return False
        # Tokens may be matched after normalisation, which maps a wide < to <.
        always = set(normalizer.normalize_str("0"))
        keys = {c for key in self._keys for c in normalizer.normalize_str(key)} | self._keys
        return not (set(normalizer.normalize_str(letter)) - always).isdisjoint(keys - always)

    @cached_property
    def _renamed(self) -> tuple[Fast, dict[str, str], dict[int, int]]:
        """The tokenizer with a private letter for each control token's text; what each letter represents; and the
        original ids by the new ones."""
        written = json.loads(self.fast.to_str())
        written["post_processor"] = None
        names = dict(zip(self.control.values(), self._names(), strict=False))
        if len(names) < len(self.control):
            raise UnspoolError(
                "the messages spell special tokens, and this tokenizer leaves no letters to distinguish them from the "
                "template's own; leave them out of the messages"
            )
        ids = {names.get(token["content"], token["content"]): token["id"] for token in written["added_tokens"]}
        for token in written["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        renamed = Fast.from_str(json.dumps(written))
        known = {}
        for content, token_id in ids.items():
            here = renamed.token_to_id(content)
            assert here is not None
            known[here] = token_id
        plain = set(renamed.get_vocab(with_added_tokens=False).values())
        if any(new in plain and new != old for new, old in known.items()):
            raise UnspoolError(
                "the messages spell special tokens, and this tokenizer's ids have gaps, so that they cannot be "
                "distinguished from the template's own; leave them out of the messages"
            )
        return renamed, {name: content for content, name in names.items()}, known

    def _names(self) -> Iterator[str]:
        normalizer, used = self.fast.normalizer, set("".join(self.fast.get_vocab()))
        for block in _TOKENS:
            free = [chr(i) for i in block if chr(i) not in used][: len(self.control)]
            kept = normalizer is None or all(c in normalizer.normalize_str(c) for c in free)
            if kept and len(free) == len(self.control):
                yield from free
                return


def _pattern(contents: Iterable[str]) -> re.Pattern[str]:
    """A regular expression for any of these texts, longest first; one group."""
    longest = sorted(contents, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest))})" if longest else "((?!))")


def _overlap(one: str, other: str) -> bool:
    """Whether a text can contain both so that they share letters."""
    ends = any(other.startswith(one[i:]) for i in range(1, len(one))) or any(
        one.startswith(other[i:]) for i in range(1, len(other))
    )
    return ends or one in other or other in one


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message of plain types. Keys without a value are dropped, as in transformers."""
    if not isinstance(message, Mapping):
        raise UnspoolError(f"a message is a dictionary with role and content, not {message!r}")
    return {_checked(key): _checked(value) for key, value in message.items() if value is not None}


def _checked(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {_checked(key): _checked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_checked(item) for item in value]
    raise UnspoolError(f"a message may contain texts, numbers, lists and dictionaries, not a {type(value).__name__}")


def _is_role(key: str, value: Any) -> bool:
    """Whether a value names a role: a template may turn it into a token of its own."""
    return key == "role" and isinstance(value, str) and value.isidentifier()


def _hidden(message: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    return {
        key if _is_role(key, value) else change(key): value if _is_role(key, value) else _mapped(value, change)
        for key, value in message.items()
    }


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_mapped(key, change): _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
