"""Builds drafters that need nothing but a draft model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from unspool.engine.contracts import Drafter, LanguageModel
from unspool.methods.resources import Resources

Options = TypeVar("Options")


def assisted(make: Callable[[Options, LanguageModel, int], Drafter]) -> Callable[[Resources, Options], Drafter]:
    """A builder that calls ``make(options, draft model, vocabulary size)``."""

    def build(resources: Resources, options: Options) -> Drafter:
        assert resources.assistant is not None  # see Needs
        return make(options, resources.assistant, resources.model.vocab_size)

    return build
