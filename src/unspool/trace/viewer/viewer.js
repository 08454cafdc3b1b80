// Builds the page and steps through it. Two traces step together, by output position instead of by pass.
"use strict";

(() => {
  const traces = JSON.parse(document.getElementById("data").textContent).map(derive);
  const classes = sourceClasses(traces);
  const element = id => document.getElementById(id);
  const slider = element("slider");
  const positions = [...new Set(traces.flatMap(trace => trace.passes.map(pass => pass.start)))].sort((a, b) => a - b);
  let at = -1;
  card.element = element("card");

  // Index in `positions` of the last one that is not after `position`.
  const placeOf = position => positions.filter(start => start <= position).length - 1;
  const width = element("traces").clientWidth / (window.innerWidth > 900 ? traces.length : 1) - 48;
  const panels = traces.map(trace => new Panel(trace, width, classes, position => step(placeOf(position))));
  element("traces").append(...panels.map(panel => panel.root));
  element("traces").classList.toggle("two", panels.length > 1);

  // Hatchings of the timeline and the legend.
  const hatchings = {
    d1: "M-1 1l2-2M0 6l6-6M5 7l2-2", d2: "M1 1h2v2h-2zM4 4h2v2h-2z", d3: "M0 1h6M0 4h6", d4: "M1 0v6M4 0v6", forced: "M0 0l6 6M0 6l6-6",
  };
  element("fills").innerHTML = "<defs>" + Object.entries(hatchings).map(([kind, lines]) =>
    `<pattern id="fill-${kind}" class="${kind}" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="6" height="6"/><path d="${lines}"/></pattern>`)
    .join("") + "</defs>";
  element("legend").innerHTML = [...classes].map(([name, kind]) =>
    `<li><svg width="14" height="14" aria-hidden="true"><rect class="fill ${kind}" width="14" height="14" rx="2"/></svg> <span class="t ${kind}">${escapeHtml(sourceName(name))}</span></li>`).join("") + (traces.some(trace => trace.isCanvas) ?
    '<li><span class="t mask">░░░</span> mask</li><li><span class="t model fresh">filled in this step</span></li>' : "");

  const notes = traces.filter(trace => trace.truncated).map(trace =>
    `<p class="note cut" role="status">${escapeHtml(trace.name)} was cut off after ${plural(trace.passes.length, "pass", "passes")}, ` +
    "before its end; it is shown up to there.</p>");
  if (traces.length > 1) notes.push(compare());
  element("notes").innerHTML = notes.join("");

  function compare() {
    const index = firstDifference(...traces);
    if (index < 0) {
      const shared = Math.min(...traces.map(trace => trace.tokens.length));
      const all = traces.every(trace => trace.tokens.length === shared);
      return `<p class="note">${all ? `Both traces emitted the same ${plural(shared, "token")}.` :
        `Both traces are the same as far as both go, ${plural(shared, "token")}.`}</p>`;
    }
    panels.forEach(panel => panel.markDifference(index));
    const sides = traces.map(trace => {
      const token = trace.tokens[index];
      if (!token) return "the end";
      if (token.id === null) return "a mask";
      const margin = typeof token.margin === "number" ? ` (margin ${token.margin.toPrecision(3)})` : "";
      return `<q>${escapeHtml(visible(trace.textOf(token.id)))}</q>${margin}`;
    });
    return `<p class="note">First difference at token ${index + 1}: ${sides.join(" against ")}. ` +
      `<button id="difference" data-index="${index}">Go there</button></p>`;
  }

  function step(place) {
    const next = Math.max(0, Math.min(positions.length - 1, place));
    if (!positions.length || next === at) return;
    at = next;
    card.hide();
    slider.value = String(at);
    panels.forEach(panel => panel.show(panel.passAt(positions[at])));
    const where = panels.map(panel => `pass ${panel.pass + 1} of ${panel.trace.passes.length}`).join(" · ");
    element("where").textContent = where;
    slider.setAttribute("aria-valuetext", where);
    element("first").disabled = element("previous").disabled = at === 0;
    element("next").disabled = element("last").disabled = at === positions.length - 1;
  }

  const actions = {
    first: () => step(0), previous: () => step(at - 1), next: () => step(at + 1), last: () => step(positions.length - 1),
  };
  const keys = {Home: actions.first, ArrowLeft: actions.previous, ArrowRight: actions.next, End: actions.last};
  for (const [id, action] of Object.entries(actions)) element(id).addEventListener("click", action);
  slider.max = String(Math.max(0, positions.length - 1));
  slider.addEventListener("input", () => step(Number(slider.value)));
  element("notes").addEventListener("click", event => {
    if (event.target.id !== "difference") return;
    step(placeOf(Number(event.target.dataset.index)));
    const spans = panels.map(panel => panel.text.children[panel.difference]).filter(Boolean);
    spans.forEach((span, number) => panels[number].scrollTo(span));
  });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") card.hide();
    if (!keys[event.key] || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || event.target === slider) return;
    event.preventDefault();
    keys[event.key]();
  });
  // Not at "scroll", which stepping causes too.
  for (const name of ["wheel", "touchmove"]) document.addEventListener(name, () => card.hide(), {passive: true});

  if (positions.length) step(0); else element("controls").hidden = true;
})();
