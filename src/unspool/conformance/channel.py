"""Checks of a channel: data are decoded again, and every single error of the declared kinds is corrected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from unspool import methods
from unspool.conformance.check import Row, options_of, require
from unspool.engine.channel import Channel, Edit, Word
from unspool.engine.method import CHANNEL
from unspool.methods.resources import Resources


def check(channel: Channel, length: int) -> int:
    """Everything below, for all data of up to ``length`` symbols.

    Returns:
        number of observations that were decoded.
    """
    observed = 0
    for size in range(length + 1):
        for data in product(range(channel.inputs), repeat=size):
            observed += comes_back(channel, data)
            observed += single_errors_are_corrected(channel, data)
    words = [channel.encode(data) for size in range(length + 1) for data in product(range(channel.inputs), repeat=size)]
    require(len(set(words)) == len(words), "two data have one code word")
    return observed


def comes_back(channel: Channel, data: Sequence[int]) -> int:
    """What was encoded is the best explanation of its own code word, and encodes to it again."""
    word = channel.encode(data)
    require(all(0 <= symbol < channel.outputs for symbol in word), f"{word} has symbols that the channel has not")
    require(word == channel.encode(list(data)), "the code word of the same data differs")
    _best(channel, word, data, "without an error")
    return 1


def single_errors_are_corrected(channel: Channel, data: Sequence[int]) -> int:
    """Each symbol replaced by each other one, left out, and each symbol put in at each place."""
    word, count = channel.encode(data), 0
    for edit in sorted(channel.corrects):
        for observation in observations(word, edit, channel.outputs):
            _best(channel, observation, data, f"after one {edit}")
            count += 1
    return count


def observations(word: Word, edit: Edit, outputs: int) -> Iterator[Word]:
    """What may be seen of a code word after one error."""
    for i in range(len(word) + 1):
        if edit == "insertion":
            yield from ((*word[:i], symbol, *word[i:]) for symbol in range(outputs))
        elif i < len(word) and edit == "deletion":
            yield (*word[:i], *word[i + 1 :])
        elif i < len(word):
            yield from ((*word[:i], symbol, *word[i + 1 :]) for symbol in range(outputs) if symbol != word[i])


def _best(channel: Channel, observation: Word, data: Sequence[int], when: str) -> None:
    found = channel.decode(observation)
    require(found, f"{list(data)} {when}, seen as {observation}: nothing explains it")
    scores = [one.score for one in found]
    require(scores == sorted(scores, reverse=True), "candidates are not ranked")
    require(found[0].data == tuple(data), f"{list(data)} {when}, seen as {observation}, is taken for {found[0].data}")


def single_errors_of_short_data_are_corrected(row: Row) -> None:
    """All data of up to three symbols are recovered from their code word and from every correctable single error."""
    check(methods.build(row.name, CHANNEL, Resources(), options_of(row)), 3)


CHECKS = (single_errors_of_short_data_are_corrected,)
