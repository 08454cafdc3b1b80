"""Colours that can be told apart from what they are drawn on, in both themes."""

from __future__ import annotations

import pytest

from tests.report.contrast import contrast
from unspool.report.theme import DARK, LIGHT, variables


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_marks_stand_out(theme: dict[str, str]) -> None:
    colour = {role: tuple(int(value[i : i + 2], 16) for i in (1, 3, 5)) for role, value in theme.items()}
    for role in ("text", "muted", "good", "bad", "link"):
        assert min(contrast(colour[role], colour[ground]) for ground in ("card", "page")) >= 4.5, role
    for role in ("plain", "peer", *(f"hue{i}" for i in range(6))):
        assert contrast(colour[role], colour["card"]) >= 3, role


def test_no_two_roles_share_a_colour() -> None:
    # The picture tells roles apart by their light colour.
    assert len(set(LIGHT.values())) == len(LIGHT) and LIGHT.keys() == DARK.keys()


def test_the_page_has_both_themes() -> None:
    light, dark = variables().split("@media (prefers-color-scheme: dark)")
    assert f"--hue0: {LIGHT['hue0']};" in light and f"--hue0: {DARK['hue0']};" in dark
