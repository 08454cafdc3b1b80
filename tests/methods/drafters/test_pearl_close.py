"""However a text ends, the draft model of ``pearl`` is idle afterwards."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from tests.methods.drafters.test_pearl import DRAFT, PROMPT, TARGET, Recording
from unspool import methods
from unspool.engine.autoregressive import Request, decode
from unspool.engine.method import DRAFTER
from unspool.engine.options import GenerationOptions
from unspool.engine.trace import StepEvent
from unspool.errors import UnsupportedError
from unspool.methods.drafters.pearl import Pearl, PearlOptions


@pytest.mark.parametrize("ending", ["length", "eos", "closed", "error"])
def test_when_the_text_ends_the_draft_model_is_idle(ending: str) -> None:
    slow = threading.Event()
    drafter = Pearl(PearlOptions(6), Recording(DRAFT, before=lambda: slow.wait(0.01)), 6)
    rule = methods.acceptance_rule(None, True, methods.Resources(TARGET))

    def stopping(token: int) -> None:
        if ending == "error" and drafter.mode == "post":
            raise KeyboardInterrupt

    eos = frozenset({2}) if ending == "eos" else frozenset()
    request = Request(PROMPT, drafter, rule, GenerationOptions(max_new_tokens=12), eos=eos, stopping=stopping)
    try:
        events = decode(TARGET, [request])
        with closing(events):  # type: ignore[type-var]
            for event in events:
                if ending == "closed" and isinstance(event, StepEvent) and event.index == 2:
                    assert drafter._block is None
                    break
    except KeyboardInterrupt:
        assert ending == "error"
    assert drafter._block is None


def test_the_target_itself_is_refused_as_its_draft_model() -> None:
    """The two run at the same time, and a model runs one pass at a time."""
    with pytest.raises(UnsupportedError, match="separately from the target"):
        methods.build("pearl", DRAFTER, methods.Resources(TARGET, assistant=TARGET))
