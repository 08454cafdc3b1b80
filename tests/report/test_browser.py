"""The report in Chromium: no errors, no sideways scrolling, readable in both themes, charts within their frames."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report import results
from tests.report.contrast import contrast
from unspool.report import page as html
from unspool.report import picture

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None,
    reason="chromium or chromedriver is not installed: apt-get install chromium chromium-driver",
)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Elements with text of their own, their colour, and that of the first opaque element below them.
_TEXTS = """
return [...document.querySelectorAll("body *")].filter(e => !e.closest("desc, title, style")
    && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())
    && e.getClientRects().length && e.closest("details:not([open]) > :not(summary)") === null).map(e => {
  const own = getComputedStyle(e);
  let below = e;
  while (below && /rgba\\(0, 0, 0, 0\\)/.test(getComputedStyle(below).backgroundColor)) below = below.parentElement;
  const colour = e instanceof SVGElement ? own.fill : own.color;
  return [e.textContent.trim().slice(0, 40), colour, getComputedStyle(below || document.body).backgroundColor];
})"""
# Texts of visible charts that reach out of the chart, and pairs of them that cover each other.
_CLIPPED = """
const out = [];
for (const svg of document.querySelectorAll("figure svg")) {
  const frame = svg.getBoundingClientRect();
  if (!frame.width) continue;
  const boxes = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  boxes.forEach(([text, box], i) => {
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
        || box.bottom > frame.bottom + 1) out.push(`${text} leaves ${svg.getAttribute("aria-label")}`);
    for (const [other, b] of boxes.slice(i + 1)) {
      const wide = Math.min(box.right, b.right) - Math.max(box.left, b.left);
      const high = Math.min(box.bottom, b.bottom) - Math.max(box.top, b.top);
      if (wide > 1 && high > 5) out.push(`${text} covers ${other}`);
    }
  });
}
return out;"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    html.write([results.bench(), results.proof()], path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    yield driver
    driver.quit()


def show(browser: Any, path: Path, width: int = 1280, theme: str = "light") -> None:
    feature = {"name": "prefers-color-scheme", "value": theme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    # The new size may reach the page a moment after its load.
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script("return innerWidth") == width)


def rgb(colour: str) -> list[float]:
    return [float(part) for part in re.findall(r"[\d.]+", colour)]


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_logged_scrolls_sideways_is_clipped_or_covered(browser: Any, report: Path, width: int) -> None:
    show(browser, report, width)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(_CLIPPED) == []


@pytest.mark.parametrize(("width", "kind"), [(400, "narrow"), (840, "narrow"), (841, "wide"), (1280, "wide")])
def test_each_width_has_its_charts_at_a_readable_size(browser: Any, report: Path, width: int, kind: str) -> None:
    show(browser, report, width)
    shown = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].filter(s => s.getClientRects().length)"
        ".map(s => [s.getAttribute('class'), s.getBoundingClientRect().width / s.viewBox.baseVal.width])"
    )
    assert len(shown) == 9 and {name for name, _ in shown} == {kind}
    # Letters are 12 pixels high at scale 1.
    assert all(scale * 12 >= 9.9 for _, scale in shown)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(browser: Any, report: Path, theme: str) -> None:
    show(browser, report, theme=theme)
    texts = browser.execute_script(_TEXTS)
    assert len(texts) > 300
    grounds = {ground for _, _, ground in texts}
    assert all((sum(rgb(ground)[:3]) < 150) == (theme == "dark") for ground in grounds), grounds
    low = [(text, colour, ground) for text, colour, ground in texts if contrast(rgb(colour), rgb(ground)) < 4.5]
    assert low == []


def test_bars_have_the_colours_of_the_theme(browser: Any, report: Path) -> None:
    seen = {}
    for theme in ("light", "dark"):
        show(browser, report, theme=theme)
        seen[theme] = browser.execute_script(
            "return [...document.querySelectorAll('figure svg.wide path')].map(p => getComputedStyle(p).fill)"
        )
    assert "rgb(0, 114, 178)" in seen["light"] and "rgb(86, 180, 233)" in seen["dark"]
    assert not {"rgb(0, 114, 178)"} & set(seen["dark"])


def test_tables_unfold_and_scroll_in_their_own_frame(browser: Any, report: Path) -> None:
    show(browser, report, 400)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    wider = "return [...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth).length"
    assert browser.execute_script(wider) > 0


def test_the_picture_follows_the_theme(browser: Any, tmp_path: Path) -> None:
    picture.write(results.bench(), tmp_path / "picture.svg")
    grounds = []
    for theme in ("light", "dark"):
        show(browser, tmp_path / "picture.svg", theme=theme)
        grounds.append(browser.execute_script("return getComputedStyle(document.querySelector('rect')).fill"))
        assert browser.get_log("browser") == []
    assert grounds == ["rgb(255, 255, 255)", "rgb(24, 28, 34)"]
