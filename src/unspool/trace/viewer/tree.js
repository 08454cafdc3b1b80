// Draws the token tree of a pass as SVG: depth from left to right, siblings from top to bottom in the drafter's order.
"use strict";

const NODE = {width: 92, height: 22, gapX: 30, gapY: 6, top: 22, margin: 6, letters: 11};

// Per node of a step: "accepted", "rejected", or "beyond" if the text ended before an accepted node.
function nodeStates(step) {
  const states = step.tokens.map(() => "rejected");
  step.accepted.forEach((node, i) => { states[node] = i <= step.emitted.length ? "accepted" : "beyond"; });
  return states;
}

// Depth and row of every node. Leaves take a row each. A parent is in the middle of its children, or on the accepted
// path in the row of its accepted child, so that the path is a straight line.
function layOut(parents, path) {
  const along = new Set(path);
  const children = parents.map(() => []);
  parents.forEach((parent, node) => { if (parent >= 0) children[parent].push(node); });
  const depth = [], row = [];
  parents.forEach((parent, node) => { depth[node] = parent < 0 ? 0 : depth[parent] + 1; });
  let leaves = 0;
  const stack = [[0, false]];
  while (stack.length) {
    const [node, done] = stack.pop();
    const below = children[node];
    if (!below.length) row[node] = leaves++;
    else if (done) {
      const next = along.has(node) ? below.find(child => along.has(child)) : undefined;
      row[node] = next === undefined ? (row[below[0]] + row[below[below.length - 1]]) / 2 : row[next];
    } else {
      stack.push([node, true]);
      for (let i = below.length - 1; i >= 0; i--) stack.push([below[i], false]);
    }
  }
  return {depth, row, leaves};
}

// Returns {svg, x, y}: markup, and the middle of the last accepted node, for scrolling there.
function drawTree(trace, pass, classes) {
  const step = pass.step;
  const parents = [...step.parents], tokens = [...step.tokens], states = nodeStates(step);
  const kinds = step.sources.map((name, node) => node ? classes.get(name) : "root");
  const last = step.accepted[Math.min(step.emitted.length, step.accepted.length - 1)];
  const own = step.emitted.length === step.accepted.length;
  if (own) {
    parents.push(last);
    tokens.push(step.emitted[step.emitted.length - 1]);
    states.push("own");
    kinds.push("model");
  }
  const {depth, row, leaves} = layOut(parents, [...step.accepted, step.tokens.length]);
  const x = node => NODE.margin + depth[node] * (NODE.width + NODE.gapX);
  const y = node => NODE.top + row[node] * (NODE.height + NODE.gapY) + NODE.height / 2;
  const deepest = Math.max(...depth);
  const width = 2 * NODE.margin + (deepest + 1) * (NODE.width + NODE.gapX) - NODE.gapX;
  const height = NODE.top + leaves * (NODE.height + NODE.gapY) + NODE.margin;

  const edges = [], nodes = [], heads = [];
  for (let d = 0; d <= deepest; d++) {
    const label = d ? `token ${pass.start + d}` : "last token";
    heads.push(`<text class="head" x="${NODE.margin + d * (NODE.width + NODE.gapX)}" y="13">${label}</text>`);
  }
  tokens.forEach((id, node) => {
    const left = x(node), middle = y(node), parent = parents[node];
    if (parent >= 0) {
      const from = x(parent) + NODE.width, half = (from + left) / 2;
      edges.push(`<path class="edge ${states[node]}" d="M${from} ${y(parent)}C${half} ${y(parent)} ${half} ${middle} ${left} ${middle}"/>`);
    }
    const text = visible(trace.textOf(id)), base = middle + NODE.height / 2 - 4;
    nodes.push(
      `<g class="node ${kinds[node]} ${states[node]}" data-node="${node}">` +
      `<rect x="${left}" y="${middle - NODE.height / 2}" width="${NODE.width}" height="${NODE.height}" rx="${states[node] === "own" ? 11 : 3}"/>` +
      `<text x="${left + 7}" y="${middle + 3}">${escapeHtml(shorten(text, NODE.letters))}</text>` +
      `<path class="line" d="M${left + 7} ${base}h${NODE.width - 14}"/></g>`);
  });
  const accepted = states.filter((state, node) => node && node < step.tokens.length && state === "accepted").length;
  const label = `Token tree: ${plural(step.tokens.length - 1, "draft")}, ${accepted} accepted` +
    (own ? `, then the model's own token ${visible(trace.textOf(tokens[tokens.length - 1]))}` : "");
  const svg = `<svg class="tree" role="img" aria-label="${escapeHtml(label)}" width="${width}" height="${height}" ` +
    `viewBox="0 0 ${width} ${height}">${heads.join("")}${edges.join("")}${nodes.join("")}</svg>`;
  const at = own ? tokens.length - 1 : last;
  return {svg, x: x(at) + NODE.width / 2, y: y(at), accepted};
}
