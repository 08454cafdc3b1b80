"""What methods are built from: the model of a request and its resources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unspool.engine.method import Kind, Product
from unspool.errors import UnspoolError

if TYPE_CHECKING:
    from unspool.engine.contracts import LanguageModel, Memory
    from unspool.engine.cost import PassCosts
    from unspool.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Resources:
    """What a method may be built from, in either loop.

    Attributes:
        language_model: the loaded model; None for a masked-diffusion model. See ``model``.
        memories: what methods keep between requests, by method name, see ``memory``; made on first use.
        costs: returns the model's cost curve with decoding's corrections; measures it if necessary.
        assistant: the draft model, if there is one.
        vocabulary: returns the fingerprint of the tokenizer's vocabulary; ``""`` if it is unknown.
        tokenizer: the model's tokenizer, where text matters.
        eos: ids that end a text of this request.
        delimiters: returns the ids of the tokens that contain a newline.
        directory: the model's directory, which may contain what was trained for it; None: it has none.
        keys: returns the identities of the model and of the draft model, see ``models.identity.loaded``; empty if they
            are unknown, as for a model that was passed as an object.
    """

    language_model: LanguageModel | None = None
    memories: dict[str, Memory] = field(default_factory=dict)
    costs: Callable[[], PassCosts] | None = None
    assistant: LanguageModel | None = None
    vocabulary: Callable[[], str] = str
    tokenizer: Tokenizer | None = None
    eos: frozenset[int] = frozenset()
    delimiters: Callable[[], Sequence[int]] = tuple
    directory: Path | None = None
    keys: Callable[[], Sequence[str]] = tuple

    @property
    def model(self) -> LanguageModel:
        """The language model.

        Raises:
            UnspoolError: if there is none.
        """
        if self.language_model is None:
            raise UnspoolError("this method needs a language model; the loaded model is a masked-diffusion model")
        return self.language_model

    def build(self, name: str, kind: Kind[Product]) -> Product:
        """Another method with its default options, so that methods can use one another without an import."""
        from unspool import methods

        return methods.build(name, kind, self)

    def memory(self, name: str, make: Callable[..., Memory], **shape: Any) -> Any:
        """The memory of a method; calls ``make(**shape)`` if there is none yet.

        Args:
            shape: options that determine what the memory keeps, which are also attributes of the memory. If they differ
                from the defaults of ``make``, the key is such as ``"token_recycling:k=4"``, unless the memory of the
                method's own name has this shape.

        Raises:
            UnspoolError: if the memory of that key has another class or shape.
        """

        def shaped(memory: Memory | None) -> bool:
            return all(getattr(memory, option, None) == value for option, value in shape.items())

        wanted = ",".join(f"{option}={value}" for option, value in shape.items())
        defaults = {option: signature(make).parameters[option].default for option in shape}
        key = name if shape == defaults or shaped(self.memories.get(name)) else f"{name}:{wanted}"
        if key not in self.memories:
            self.memories[key] = make(**shape)
        held = self.memories[key]
        if isinstance(make, type) and not isinstance(held, make):
            raise UnspoolError(f'memories["{key}"] must be a {make.__name__}, not a {type(held).__name__}')
        if not shaped(held):
            raise UnspoolError(f'memories["{key}"] was not made with {wanted}; use the options it was made with')
        return held
