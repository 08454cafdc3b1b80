"""Colours by role, light and dark.

The hues are those of Okabe and Ito, which colour-blind readers can distinguish, adjusted until each has a contrast of
at least 3 to 1 with the card (text: 4.5 to 1). No two roles of a theme have the same colour.
"""

from __future__ import annotations

LIGHT = {
    "page": "#f6f7f9",
    "card": "#ffffff",
    "text": "#1a1e24",
    "muted": "#5a6370",
    "grid": "#dfe3e8",
    "shade": "#d4d8de",
    "plain": "#565d68",
    "peer": "#7d8590",
    "good": "#00684a",
    "bad": "#b02a0c",
    "link": "#00588c",
    "hue0": "#0072b2",
    "hue1": "#d55e00",
    "hue2": "#009068",
    "hue3": "#b85c93",
    "hue4": "#2a88c0",
    "hue5": "#a07600",
}
DARK = {
    "page": "#101317",
    "card": "#181c22",
    "text": "#e9ecf0",
    "muted": "#a3acb8",
    "grid": "#343b45",
    "shade": "#05070a",
    "plain": "#a8afb9",
    "peer": "#828b98",
    "good": "#56d6ab",
    "bad": "#ff8f6b",
    "link": "#7cc4f5",
    "hue0": "#56b4e9",
    "hue1": "#f08a3c",
    "hue2": "#27c497",
    "hue3": "#e29ac4",
    "hue4": "#a9d8f5",
    "hue5": "#e6c040",
}


def variables() -> str:
    """CSS that gives each role its colour, by the reader's system setting."""
    light, dark = (" ".join(f"--{role}: {colour};" for role, colour in theme.items()) for theme in (LIGHT, DARK))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
