// What the page shows, computed from the events of the trace: tokens, passes, sources, the first difference.
"use strict";

const ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"};
const escapeHtml = text => String(text).replace(/[&<>"']/g, c => ESCAPES[c]);

// Text of a token with visible blanks and control characters.
const visible = text => text
  .replace(/^ +| +$/g, blanks => "·".repeat(blanks.length))
  .replace(/\n/g, "↵").replace(/\t/g, "⇥")
  .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    c => "‹U+" + c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0") + "›");

const shorten = (text, length) => {
  const characters = [...text];
  return characters.length > length ? characters.slice(0, length - 1).join("") + "…" : text;
};

const milliseconds = ms => ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2);
const duration = ms => ms >= 10000 ? `${(ms / 1000).toFixed(1)} s` : `${milliseconds(ms)} ms`;
const percent = p => p >= 0.9995 && p < 1 ? ">99.9 %" : p > 0 && p < 0.0005 ? "<0.1 %" : (100 * p).toFixed(1) + " %";
const plural = (n, one, many) => `${n} ${n === 1 ? one : many || one + "s"}`;

// Adds to a trace:
//   tokens: one entry per output token (or slot of the final canvas),
//   passes: one entry per pass, with the output index at which it starts.
function derive(trace) {
  trace.isCanvas = trace.canvas.length > 0;
  trace.textOf = id => trace.texts[id] ?? `‹${id}›`;
  (trace.isCanvas ? deriveCanvas : deriveSteps)(trace);
  return trace;
}

function deriveSteps(trace) {
  trace.tokens = [];
  trace.passes = trace.steps.map((step, number) => {
    const start = trace.tokens.length;
    step.emitted.forEach((id, i) => {
      const node = step.accepted[i + 1];
      trace.tokens.push({
        id, pass: number, index: start + i, piece: step.pieces[i], node,
        // The last token of a pass comes from the model itself, unless the text ended within the draft.
        source: node === undefined ? "model" : step.sources[node],
        margin: step.margins[i],
        logprob: step.logprobs ? step.logprobs[i] : undefined,
        rank: step.ranks ? step.ranks[i] : undefined,
        alternatives: step.alternatives ? step.alternatives[i] : undefined,
      });
    });
    const ms = step.draft_ms + step.score_ms + step.accept_ms + step.observe_ms;
    return {start, count: step.emitted.length, ms, step};
  });
}

function deriveCanvas(trace) {
  const slots = trace.canvas[trace.canvas.length - 1].slots;
  trace.tokens = slots.map((id, index) => ({id, index, source: "model"}));
  trace.passes = trace.canvas.map((canvas, start) => ({start, count: canvas.committed.length, ms: canvas.ms, canvas}));
}

// Names of the sources of all traces: the model first, then forced tokens, then drafters as they appear.
function sourceClasses(traces) {
  const names = new Set();
  for (const trace of traces) {
    for (const step of trace.steps) for (const name of step.sources) names.add(name);
  }
  names.delete("root");
  names.delete("model");
  const forced = names.delete("forced");
  const classes = new Map([["model", "model"]]);
  if (forced) classes.set("forced", "forced");
  [...names].forEach((name, i) => classes.set(name, "d" + i % 5));
  return classes;
}

// Index of the first token at which two traces differ; -1 if one of them begins the other.
function firstDifference(a, b) {
  const shorter = Math.min(a.tokens.length, b.tokens.length);
  for (let i = 0; i < shorter; i++) if (a.tokens[i].id !== b.tokens[i].id) return i;
  // It is unknown how a truncated trace continued.
  const ended = a.tokens.length < b.tokens.length ? !a.truncated : !b.truncated;
  return a.tokens.length !== b.tokens.length && ended ? shorter : -1;
}
