// The card with all facts on one token, node or slot, next to the element under the pointer or in focus.
"use strict";

const card = {
  element: null,

  show(anchor, html) {
    this.element.innerHTML = html;
    this.element.hidden = false;
    const at = anchor.getBoundingClientRect(), own = this.element.getBoundingClientRect(), gap = 6;
    // On a narrow screen the style sheet puts the card at the edge of the screen instead.
    const below = at.bottom + gap + own.height <= window.innerHeight || at.top < own.height + gap;
    const top = below ? at.bottom + gap : at.top - own.height - gap;
    this.element.style.top = `${Math.max(0, Math.min(top, window.innerHeight - own.height))}px`;
    this.element.style.left = `${Math.max(gap, Math.min(at.left, window.innerWidth - own.width - gap))}px`;
    this.element.classList.toggle("high", at.top > window.innerHeight / 2);
  },

  hide() {
    this.element.hidden = true;
  },
};

const rows = list => "<dl>" + list.filter(([, value]) => value !== undefined && value !== null)
  .map(([name, value]) => `<dt>${name}</dt><dd>${escapeHtml(value)}</dd>`).join("") + "</dl>";

const title = (trace, id) => `<p class="title"><q>${escapeHtml(visible(trace.textOf(id)))}</q></p>`;

const bar = p => `<i class="bar"><i style="width:${(100 * p).toFixed(1)}%"></i></i>`;

const sourceName = source => source === "model" ? "the model itself" : source === "forced" ? "forced by the constraint" : source;

const rankName = rank => rank === undefined || rank === null ? undefined : rank === 0 ? "1, the best" : String(rank + 1);

function probabilityOf(token) {
  if (token.logprob === undefined) return undefined;
  return token.logprob === null ? 0 : Math.exp(token.logprob);
}

function tokenCard(trace, token) {
  const p = probabilityOf(token);
  const margin = token.margin === null ? "no other token could follow" :
    token.margin === undefined ? undefined : `${token.margin.toPrecision(3)} logits`;
  return title(trace, token.id) + rows([
    ["from", sourceName(token.source)],
    ["id", token.id],
    ["place", `token ${token.index + 1}, pass ${token.pass + 1}`],
    ["probability", p === undefined ? undefined : percent(p)],
    ["margin", margin],
    ["rank", rankName(token.rank)],
  ]) + alternatives(trace, token, p);
}

function alternatives(trace, token, p) {
  if (!token.alternatives) return "";
  const line = (id, probability, mark) =>
    `<tr${mark ? ' class="taken"' : ""}><td>${mark ? "▸" : ""}</td><td>${escapeHtml(shorten(visible(trace.textOf(id)), 18))}</td>` +
    `<td>${bar(probability)}</td><td>${percent(probability)}</td></tr>`;
  const listed = token.alternatives.map(([id, logprob]) => line(id, Math.exp(logprob), id === token.id));
  if (!token.alternatives.some(([id]) => id === token.id)) listed.push(line(token.id, p, true));
  return `<table><caption>best tokens here</caption>${listed.join("")}</table>`;
}

function nodeCard(trace, pass, node) {
  const step = pass.step;
  const place = step.accepted.indexOf(node);
  if (node === 0) return title(trace, step.tokens[0]) + rows([["state", "root: the last token of the text so far"], ["id", step.tokens[0]]]);
  if (node >= step.tokens.length) return tokenCard(trace, trace.tokens[pass.start + step.emitted.length - 1]);
  if (place > 0 && place <= step.emitted.length) return tokenCard(trace, trace.tokens[pass.start + place - 1]);
  return title(trace, step.tokens[node]) + rows([
    ["from", sourceName(step.sources[node])],
    ["id", step.tokens[node]],
    ["state", place > 0 ? "accepted, but the text ended before it" : "rejected"],
  ]);
}

// When and with what confidence a slot of the canvas was filled, as of a pass.
function slotCard(trace, number, slot) {
  const id = trace.canvas[number].slots[slot];
  if (id === null) return `<p class="title">mask</p>` + rows([["slot", slot + 1]]);
  let at = number;
  while (at >= 0 && !trace.canvas[at].committed.includes(slot)) at--;
  const list = [["slot", slot + 1], ["id", id]];
  if (at < 0) return title(trace, id) + rows(list);
  const p = trace.canvas[at].confidence[trace.canvas[at].committed.indexOf(slot)];
  return title(trace, id) + rows([...list, ["filled in", `step ${at + 1}`], ["confidence", percent(p)]]) + bar(p);
}
