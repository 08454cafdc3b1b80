"""Stores transformers' version of a model's tokenizer in our own files, so that later starts read it without torch.

``tokenizer.json`` is the tokenizer itself; ``unspool_tokenizer.json`` contains transformers' other settings. Both are
compared with transformers' own object when they are made.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Fast

from unspool.errors import UnspoolError
from unspool.models import gguf_header
from unspool.storage import cache as store

TOKENIZER, SETTINGS = "tokenizer.json", "unspool_tokenizer.json"

FORMAT_VERSION = 2
"""Increased whenever the files' content changes."""

# Texts that tokenizers treat differently: marks and spaces at the edges, lines, scripts, bytes, digits, cases, code.
_PROBES = (
    "",
    " ",
    "a",
    " a  b\tc ",
    "\n\nHello, world!  It's 12345.67, isn't it ?\n",
    "def f(x):\n    return {'a': x[0] >= 1}\n\n\n",
    "Ünïcödé ÀÉ ﬁ ½ ＡＢ e\u0301 İ ß",
    "日本語 и русский العربية हिन्दी",
    "😀👩‍👩‍👧 \u200b\u00a0\ufeff \ufffd \x00\x7f",
    "▁a ▁ Ġb <0x41> ##c </w>",
)


class DamagedError(UnspoolError):
    """Our own files are missing, damaged or of another format; a caller that knows the model makes them again."""


@dataclass(frozen=True)
class Settings:
    """Behaviour of a tokenizer that ``tokenizer.json`` does not describe.

    Attributes:
        special_tokens: by name, for chat templates.
        chat_template: the template, or several by name; None: none.
        control_tokens: added tokens that are not special but that no message may produce; None: those that the chat
            template names.
        clean_up: whether spaces before punctuation are removed from text (transformers'
            ``clean_up_tokenization_spaces``).
        split_special_tokens: whether special tokens in a text are read as text.
    """

    special_tokens: dict[str, str] = field(default_factory=dict)
    chat_template: str | dict[str, str] | None = None
    control_tokens: list[str] | None = None
    clean_up: bool = False
    split_special_tokens: bool = False


def read(directory: Path) -> tuple[Fast, Settings]:
    """The tokenizer of a directory: from our own files if present, else as made by transformers.

    Raises:
        DamagedError: if our own files are damaged or of another format.
        UnspoolError: if transformers cannot read the tokenizer, or unspool cannot reproduce it.
    """
    if (directory / SETTINGS).is_file():
        return _read(directory)
    with tempfile.TemporaryDirectory() as made:
        make(directory, Path(made))
        return _read(Path(made))


def _read(directory: Path) -> tuple[Fast, Settings]:
    try:
        written = json.loads((directory / SETTINGS).read_text("utf-8"))
        if written.pop("format") != FORMAT_VERSION or written.pop("sha256") != store.sha256_of(directory / TOKENIZER):
            raise DamagedError(f"{directory / TOKENIZER} is not the one that unspool wrote; delete {directory}")
        written.pop("transformers")
        return Fast.from_file(str(directory / TOKENIZER)), Settings(**written)
    except DamagedError:
        raise
    except Exception as error:  # tokenizers has no exception types
        raise DamagedError(f"{directory / SETTINGS} is damaged ({_line(error)}); delete {directory}") from error


def make(path: Path, directory: Path, gguf_file: str | None = None) -> None:
    """Write our files of a model's tokenizer. Runs no remote code.

    Args:
        path: a directory in Hugging Face layout, or the directory of the GGUF file.
        directory: where to write.

    Raises:
        UnspoolError: if transformers cannot read the tokenizer, or the files would not reproduce it.
    """
    theirs = _load(path, gguf_file)
    fast = getattr(theirs, "backend_tokenizer", None)
    where = path / gguf_file if gguf_file else path
    if not isinstance(fast, Fast):
        raise UnspoolError(
            f"the tokenizer of {where} ({type(theirs).__name__}) has no form for the tokenizers library; unspool needs "
            "one: save a fast tokenizer there (tokenizer.json)"
        )
    try:
        fast = Fast.from_str(fast.to_str())
    except Exception as error:
        raise UnspoolError(
            f"the tokenizer of {where} cannot be written to a file: {_line(error)}; save a fast tokenizer there "
            "(tokenizer.json)"
        ) from error
    # Left over from training; transformers removes them as well.
    fast.no_truncation()
    fast.no_padding()
    if gguf_file:
        from unspool.models import gguf_tokenizer

        fast = gguf_tokenizer.complete(fast, gguf_header.read(where))
        theirs._tokenizer = fast  # the comparison below is with the file's tokenizer, not transformers' version of it
    clean_up = bool(theirs.clean_up_tokenization_spaces) and (
        type(fast.model).__name__ != "BPE"
        or bool(getattr(theirs, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False))
    )
    control = getattr(theirs, "chat_control_tokens", None)
    settings = Settings(
        dict(theirs.special_tokens_map),
        theirs.chat_template,
        None if control is None else list(control),
        clean_up,
        bool(theirs.split_special_tokens),
    )
    save(fast, settings, directory)
    _compare(theirs, directory, where)


def save(fast: Fast, settings: Settings, directory: Path) -> None:
    """Write a tokenizer's files. The settings come last and name the tokenizer, so a partial write is detected."""
    from importlib.metadata import version

    with store.atomic_file(directory / TOKENIZER) as file:
        file.write_text(fast.to_str(), encoding="utf-8")
    written = {
        "format": FORMAT_VERSION,
        "transformers": version("transformers"),
        "sha256": store.sha256_of(directory / TOKENIZER),
        **asdict(settings),
    }
    with store.atomic_file(directory / SETTINGS) as file:
        file.write_text(json.dumps(written, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def trimmed(fast: Fast, size: int) -> str:
    """A tokenizer without the ids from ``size`` on, as a ``tokenizer.json``."""
    written = json.loads(fast.to_str())
    written["added_tokens"] = [token for token in written["added_tokens"] if token["id"] < size]
    model = written["model"]
    if isinstance(model["vocab"], list):  # Unigram: the index is the id
        model["vocab"] = model["vocab"][:size]
    else:
        model["vocab"] = {piece: i for piece, i in model["vocab"].items() if i < size}
    if "merges" in model:
        known, merges = model["vocab"], (m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"])
        model["merges"] = [m for m in merges if m[0] in known and m[1] in known and _merged(m, model) in known]
    return json.dumps(written, ensure_ascii=False)


def _merged(merge: list[str], model: dict[str, Any]) -> str:
    prefix = model.get("continuing_subword_prefix") or ""
    return merge[0] + merge[1].removeprefix(prefix)


def _load(path: Path, gguf_file: str | None) -> Any:
    from transformers import AutoTokenizer

    gguf = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False, **gguf)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # tokenizers has no exception types, and some of its panics are not an Exception
        if not gguf_file and (blame := _damaged(path)):
            raise UnspoolError(blame) from error
        if not gguf_file and not (path / TOKENIZER).is_file():
            raise UnspoolError(
                f"{path} has no {TOKENIZER} and none can be made of its other files ({_line(error)}); save the model's "
                "fast tokenizer there"
            ) from error
        raise UnspoolError(
            f"cannot read the tokenizer of {path / (gguf_file or TOKENIZER)}: {_line(error)}; download it again, or "
            "save the model's fast tokenizer there"
        ) from error


def _damaged(path: Path) -> str | None:
    """The file of a directory that is not JSON, if there is one."""
    for name in (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"):
        file = path / name
        if not file.is_file():
            continue
        try:
            text = file.read_bytes()
            if text.startswith(b"version https://git-lfs"):
                return f"{file} is a Git LFS pointer, not the file itself; download it (git lfs pull)"
            json.loads(text.decode("utf-8"))
        except ValueError as error:
            return f"{file} is damaged ({_line(error)}); download it again"
    return None


def _compare(theirs: Any, directory: Path, where: Path) -> None:
    """Refuse a tokenizer whose files do not reproduce transformers' object."""
    from unspool.models.tokenizer import Tokenizer

    ours = Tokenizer(directory)
    known = ours.vocabulary
    added = [text for text in theirs.get_added_vocab() if text in known]
    everything = sorted(known.values())

    def differ(what: str, probe: Any, mine: Callable[..., Any], right: Callable[..., Any], *args: Any) -> None:
        if (one := _said(mine, *args)) != (other := _said(right, *args)):
            raise UnspoolError(
                f"the tokenizer of {where} ({type(theirs).__name__}) does more than a file of the tokenizers library "
                f"can say: {what} of {probe!r} gives {one!r}, and transformers' {other!r}; unspool does not load it"
            )

    def encode(text: str, special: bool) -> Any:
        return theirs.encode(text, add_special_tokens=special, verbose=False)

    def decode(ids: list[int], skip: bool) -> Any:
        return theirs.decode(ids, skip_special_tokens=skip)

    def chat(messages: list[dict[str, str]]) -> Any:
        return theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    for flag in (True, False):
        for text in (*_PROBES, *(f"x {text} y{text}{text}\nz" for text in added[:200])):
            differ("encoding", text, ours.encode, encode, text, flag)
        for start in range(0, len(everything), 997):
            ids = everything[start : start + 997]
            differ("decoding", f"ids {ids[0]} to {ids[-1]}", ours.decode, decode, ids, flag)
    if ours.has_chat_template:
        messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi. "}] * 2
        for n in (1, 3):
            differ("the chat template", messages[:n], ours.chat, chat, messages[:n])


def _said(what: Callable[..., Any], *args: Any) -> Any:
    try:
        return what(*args)
    except Exception:  # a template may refuse and a vocabulary may lack a letter: then both must fail
        return "an error"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
