// One trace: its figures, timeline, text or canvas, and the current pass.
"use strict";

class Panel {
  // width: of the panel in pixels; go: called with the output index to step to.
  constructor(trace, width, classes, go) {
    Object.assign(this, {trace, classes, go, pass: -1, difference: -1});
    this.root = document.createElement("section");
    this.root.className = trace.isCanvas ? "trace canvas" : "trace";
    this.root.setAttribute("aria-label", trace.name);
    this.root.innerHTML = `<h2>${escapeHtml(trace.name)}</h2>${this.facts()}${this.timeline(width)}` +
      `<div class="text-part"><h3 class="what">${trace.isCanvas ? "Canvas" : "Text"}</h3>` +
      `<details><summary>Prompt, ${plural(trace.promptTokens, "token")}</summary><pre>${escapeHtml(trace.prompt)}</pre></details>` +
      `<div class="text" role="group" aria-label="${trace.isCanvas ? "Canvas" : "Text"}, token by token"></div></div>` +
      `<div class="pass-part"><h3></h3><div class="times"></div><div class="scroll" tabindex="0" role="region" aria-label="Token tree"></div></div>`;
    this.text = this.root.querySelector(".text");
    this.heading = this.root.querySelector(".pass-part h3");
    this.times = this.root.querySelector(".times");
    this.tree = this.root.querySelector(".pass-part .scroll");
    if (trace.isCanvas || !trace.passes.length) this.tree.remove();
    if (!trace.isCanvas) this.text.innerHTML = trace.tokens.map(token => this.tokenMarkup(token)).join("");
    this.listen();
  }

  // Figures of the whole trace.
  facts() {
    const {trace} = this;
    const count = trace.passes.reduce((sum, pass) => sum + pass.count, 0);
    const ms = trace.passes.reduce((sum, pass) => sum + pass.ms, 0);
    const settings = ["backend", "weights", "device"].map(name => trace.settings[name]).filter(Boolean).join(" ");
    const sampling = trace.temperature ? `temperature ${trace.temperature}, seed ${trace.seed}` : "greedy";
    const list = [
      ["model", trace.model], ["method", trace.method], ["decoding", trace.temperature === null ? null : sampling], ["backend", settings],
      ["tokens", count], ["passes", trace.passes.length],
      ["tokens per pass", trace.passes.length ? (count / trace.passes.length).toFixed(2) : null],
      ["decoding time", trace.passes.length ? duration(ms) : null],
      ["speed", ms ? `${(1000 * count / ms).toFixed(1)} tokens/s` : null],
      ["prompt", trace.prefillMs === null ? null : duration(trace.prefillMs)],
      ["ended by", trace.reason],
    ];
    return `<dl class="facts">${list.filter(([, value]) => value !== null && value !== "" && value !== undefined)
      .map(([name, value]) => `<div><dt>${name}</dt><dd>${escapeHtml(value)}</dd></div>`).join("")}</dl>`;
  }

  // Tokens per pass: one column per pass, stacked by source.
  timeline(width) {
    const {trace} = this, passes = trace.passes;
    if (!passes.length) return "";
    this.most = Math.max(1, ...passes.map(pass => pass.count));
    this.column = Math.max(4, Math.min(16, Math.floor(width / passes.length)));
    const unit = Math.min(14, 56 / this.most), height = unit * this.most;
    const paths = new Map([...this.classes.values()].map(name => [name, []]));
    passes.forEach((pass, number) => {
      for (let i = 0; i < pass.count; i++) {
        // The model's own token is the last one of a pass and at the foot of the column.
        const token = pass.canvas ? undefined : trace.tokens[pass.start + pass.count - 1 - i];
        const kind = token ? this.classes.get(token.source) : "model";
        paths.get(kind).push(`M${number * this.column} ${height - unit * i}h${this.column - 1}v${-unit}h${1 - this.column}z`);
      }
    });
    const marks = [...paths].filter(([, list]) => list.length)
      .map(([kind, list]) => `<path class="fill ${kind}" d="${list.join("")}"/>`).join("");
    const what = trace.isCanvas ? "Slots filled per step" : "Tokens per pass";
    return `<div class="time-part"><h3>${what} <small>at most ${this.most}; click to go there</small></h3>` +
      `<div class="scroll"><svg class="timeline" role="img" aria-label="${what}, at most ${this.most}" width="${passes.length * this.column}" height="${height + 8}">` +
      `<rect class="cursor" width="${this.column}" height="${height + 8}"/>${marks}</svg></div></div>`;
  }

  tokenMarkup(token) {
    const kind = this.classes.get(token.source);
    // What adds no text, such as a part of a character, and what is not seen is written by the style sheet: copied
    // text stays the text of the model.
    const hint = token.piece === "" ? visible(this.trace.textOf(token.id)) : /^\s*\n\s*$/.test(token.piece) ? "↵" : "";
    const mark = hint ? ` data-hint="${escapeHtml(hint)}"` : "";
    return `<span class="t ${kind}" data-i="${token.index}" tabindex="-1"${mark}>${escapeHtml(token.piece)}</span>`;
  }

  slotMarkup(id, slot, fresh) {
    const name = id === null ? "mask" : fresh ? "model fresh" : "model";
    const text = id === null ? "░░░" : this.trace.textOf(id);
    return `<span class="t ${name}" data-i="${slot}" tabindex="-1">${escapeHtml(text)}</span>`;
  }

  // Index of the pass that contains the output index (or canvas step) `position`.
  passAt(position) {
    let low = 0, high = this.trace.passes.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.trace.passes[middle].start <= position) low = middle; else high = middle - 1;
    }
    return low;
  }

  show(number) {
    const {trace} = this, pass = trace.passes[number];
    if (!pass || number === this.pass) return;
    this.unmark();
    this.pass = number;
    if (pass.canvas) this.showCanvas(pass, number); else this.showStep(pass, number);
    const cursor = this.root.querySelector(".cursor");
    cursor.setAttribute("x", number * this.column);
    const frame = cursor.closest(".scroll");
    frame.scrollLeft = number * this.column - frame.clientWidth / 2;
  }

  unmark() {
    for (const span of this.text.querySelectorAll(".now")) span.classList.remove("now");
    for (const span of this.text.querySelectorAll('[tabindex="0"]')) span.tabIndex = -1;
  }

  showStep(pass, number) {
    const {trace} = this, step = pass.step;
    for (let i = 0; i < pass.count; i++) this.text.children[pass.start + i].classList.add("now");
    const first = this.text.children[pass.start];
    if (!this.text.contains(document.activeElement)) first.tabIndex = 0;
    this.scrollTo(first);
    const drawn = drawTree(trace, pass, this.classes);
    const drafts = step.tokens.length - 1;
    this.heading.textContent = `Pass ${number + 1}: ${drafts ? `${drawn.accepted} of ${plural(drafts, "draft")} accepted` : "no drafts"}` +
      `, ${plural(pass.count, "token")} in ${milliseconds(pass.ms)} ms`;
    this.times.innerHTML = this.timeTable([["draft", step.draft_ms], ["score", step.score_ms], ["accept", step.accept_ms], ["observe", step.observe_ms]], pass.ms);
    this.tree.innerHTML = drawn.svg;
    this.tree.scrollLeft = drawn.x - this.tree.clientWidth + NODE.width;
    this.tree.scrollTop = drawn.y - this.tree.clientHeight / 2;
  }

  showCanvas(pass, number) {
    const canvas = pass.canvas, fresh = new Set(canvas.committed);
    const focused = this.text.contains(document.activeElement) ? document.activeElement.dataset.i : undefined;
    this.text.innerHTML = canvas.slots.map((id, slot) => this.slotMarkup(id, slot, fresh.has(slot))).join("");
    this.text.children[0].tabIndex = 0;
    if (focused !== undefined) this.text.children[focused].focus();
    this.markDifference();
    const masks = canvas.slots.filter(id => id === null).length;
    this.heading.textContent = `Step ${number + 1}, block ${canvas.block + 1}: ${plural(pass.count, "slot")} filled, ` +
      `${plural(masks, "mask")} left, ${milliseconds(pass.ms)} ms`;
  }

  timeTable(list, total) {
    return `<table>${list.map(([name, ms]) =>
      `<tr><th scope="row">${name}</th><td>${bar(total ? ms / total : 0)}</td><td>${milliseconds(ms)} ms</td></tr>`).join("")}</table>`;
  }

  scrollTo(span) {
    const top = span.offsetTop;  // within the text, which is positioned
    if (top < this.text.scrollTop || top + span.offsetHeight > this.text.scrollTop + this.text.clientHeight) {
      this.text.scrollTop = top - this.text.clientHeight / 3;
    }
  }

  markDifference(index = this.difference) {
    this.difference = index;
    if (index < 0) return;
    const span = this.text.children[index];
    if (span) span.classList.add("difference");
    else this.text.classList.add("ends-early");
  }

  listen() {
    const about = event => {
      const token = event.target.closest(".t"), node = event.target.closest(".node");
      if (token) {
        const i = Number(token.dataset.i);
        return [token, this.trace.isCanvas ? slotCard(this.trace, this.pass, i) : tokenCard(this.trace, this.trace.tokens[i])];
      }
      return node ? [node, nodeCard(this.trace, this.trace.passes[this.pass], Number(node.dataset.node))] : null;
    };
    const show = event => {
      const found = about(event);
      if (found) card.show(...found);
    };
    this.root.addEventListener("mouseover", show);
    this.root.addEventListener("mouseout", () => card.hide());
    this.root.addEventListener("focusout", () => card.hide());
    this.text.addEventListener("focusin", event => {
      const i = Number(event.target.dataset.i);
      if (!this.trace.isCanvas) this.go(this.trace.passes[this.trace.tokens[i].pass].start);
      show(event);
    });
    this.text.addEventListener("keydown", event => this.moveFocus(event));
    const timeline = this.root.querySelector(".timeline");
    if (timeline) timeline.addEventListener("click", event => {
      const number = Math.floor((event.clientX - timeline.getBoundingClientRect().left) / this.column);
      this.go(this.trace.passes[Math.max(0, Math.min(this.trace.passes.length - 1, number))].start);
    });
  }

  moveFocus(event) {
    const tokens = this.text.children, at = Number(event.target.dataset.i);
    const next = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tokens.length - 1}[event.key];
    if (next === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (tokens[next]) tokens[next].focus();
  }
}
