
"use strict";

// ------------------------------------------------------------------------------------------- search and filters
(() => {
  const form = document.querySelector("form.search");
  if (!form) return;
  const MOST_OPENED = 400; // Of more operators than these the modules stay closed.
  const query = document.getElementById("search");
  const found = document.getElementById("found");
  const onlyCached = document.getElementById("only-cached");
  const filters = [...form.querySelectorAll("input.filter")];
  // Children come after their parents in the document, so that from behind they come first.
  const modules = [...document.querySelectorAll("details.module")].reverse();
  let rows = null;
  let openBefore = null;

  function read() {
    rows = [...document.querySelectorAll(".tree tbody tr")].map((row) => {
      const module = row.closest("details.module");
      // An operator of a small child stands among those of its parent.
      const path = [module.dataset.path, row.cells[1].textContent].filter(Boolean).join(".");
      return { row, module, text: `${row.textContent} ${path}`.toLowerCase(), states: row.dataset.state.split(" ") };
    });
  }

  function search() {
    if (!rows) read();
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = new Set(filters.filter((box) => box.checked).map((box) => box.value));
    const shown = new Set();
    let count = 0;
    for (const own of rows) {
      const fits = states.has(own.states[0]) && (!onlyCached.checked || own.states.includes("cached")) &&
        words.every((word) => own.text.includes(word));
      if (own.row.hidden === fits) own.row.hidden = !fits;
      if (fits) { count += 1; shown.add(own.module); }
    }
    const isNarrowed = words.length > 0 || onlyCached.checked || states.size < filters.length;
    if (isNarrowed && !openBefore) openBefore = new Map(modules.map((module) => [module, module.open]));
    const holding = new Set(shown);
    for (const module of modules) {
      const own = module.querySelector(":scope > .scroll");
      if (own) own.hidden = !shown.has(module);
      const holds = holding.has(module);
      module.hidden = !holds;
      if (holds) holding.add(module.parentElement.closest("details.module"));
      if (isNarrowed && holds && count <= MOST_OPENED) module.open = true;
    }
    if (!isNarrowed && openBefore) {
      for (const [module, wasOpen] of openBefore) module.open = wasOpen;
      openBefore = null;
    }
    const total = rows.length.toLocaleString("en");
    found.textContent = isNarrowed ? `${count.toLocaleString("en")} of ${total} operators` : `${total} operators`;
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", search);
})();

// --------------------------------------------------------------------------------- which tokens, and why, step by step
(() => {
  const data = document.getElementById("choices");
  if (!data) return;
  const { panels, steps } = JSON.parse(data.textContent);
  const REASONS = { ".": "cached", c: "changed", q: "queried", r: "refreshed", s: "stale" };
  const LINE = 20; // Tokens in a line where they are no image.
  const LETTERED = 1024; // Of more tokens than these, cells have no letters.
  const SVG = "http://www.w3.org/2000/svg";
  const [slider, shown, sample, columns, token, why, holder] =
    ["step", "step-shown", "sample", "columns", "token", "why", "panels"].map((id) => document.getElementById(id));

  const make = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const chosenSample = (panel) => Math.min(Number(sample.value), panel.samples - 1);
  const chosenToken = () => Math.max(0, Math.floor(Number(token.value) || 0));

  // Column and row of each token: an image, with the tokens that are not of it in lines above, or lines.
  function places(panel) {
    const asked = Math.floor(Number(columns.value));
    const square = panel.square;
    const across = asked > 0 ? asked : square ? square.side : Math.min(LINE, panel.tokens);
    if (asked > 0 || !square) return { across, at: (n) => [n % across, Math.floor(n / across)] };
    const size = square.side * square.side;
    const others = panel.tokens - size;
    const above = others ? Math.ceil(others / across) + 1 : 0;
    return {
      across,
      at: (n) => {
        if (n >= square.first && n < square.first + size) {
          return [(n - square.first) % across, above + Math.floor((n - square.first) / across)];
        }
        const other = n < square.first ? n : n - size;
        return [other % across, Math.floor(other / across)];
      },
    };
  }

  function frameAt(panel, step) {
    let last = 0;
    panel.frames.forEach((frame, number) => { if (frame.step <= step) last = number; });
    return last;
  }

  function draw(panel) {
    const { across, at } = places(panel);
    const lines = 1 + Math.max(...Array.from({ length: panel.tokens }, (_, n) => at(n)[1]));
    const svg = make("svg", { viewBox: `0 0 ${across} ${lines}`, role: "img", tabindex: "0" });
    panel.cells = [];
    panel.letters = [];
    for (let n = 0; n < panel.tokens; n += 1) {
      const [x, y] = at(n);
      const cell = make("rect", { x, y, width: 1, height: 1 });
      cell.addEventListener("click", () => { token.value = n; paint(); });
      svg.append(cell);
      panel.cells.push(cell);
      if (panel.tokens <= LETTERED) {
        const letter = make("text", { x: x + 0.5, y: y + 0.5 });
        svg.append(letter);
        panel.letters.push(letter);
      }
    }
    svg.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const next = chosenToken() + moves[event.key];
      if (next >= 0 && next < panel.tokens) { token.value = next; paint(); }
    });
    panel.mark = make("rect", { width: 0.88, height: 0.88, class: "mark" });
    svg.append(panel.mark);
    svg.style.maxWidth = `${2.2 * across}rem`; // A few tokens are no poster.
    panel.svg = svg;
    panel.figure.replaceChildren(panel.caption, svg);
  }

  function paint() {
    const step = steps[Number(slider.value)];
    shown.textContent = String(step);
    slider.setAttribute("aria-valuetext", `step ${step}`);
    const told = [];
    for (const panel of panels) {
      const number = frameAt(panel, step);
      const frame = panel.frames[number];
      const letters = frame.letters[chosenSample(panel)];
      const counts = { cached: 0, changed: 0, queried: 0, refreshed: 0, stale: 0 };
      for (let n = 0; n < panel.tokens; n += 1) {
        const reason = REASONS[letters[n]];
        counts[reason] += 1;
        panel.cells[n].setAttribute("class", reason);
        if (panel.letters.length) panel.letters[n].textContent = letters[n] === "." ? "" : letters[n];
      }
      const numbers = Object.entries(counts).filter(([, count]) => count).map(([name, count]) => `${count} ${name}`);
      const where = panels.some((own) => own.stream !== panel.stream) ? `, stream ${panel.stream}` : "";
      panel.caption.textContent = `${panel.method}${where}, step ${frame.step}: ${numbers.join(", ")}`;
      panel.svg.setAttribute("aria-label", panel.caption.textContent);
      const marked = panel.cells[chosenToken()];
      panel.mark.style.display = marked ? "" : "none";
      if (!marked) continue;
      panel.mark.setAttribute("x", Number(marked.getAttribute("x")) + 0.06);
      panel.mark.setAttribute("y", Number(marked.getAttribute("y")) + 0.06);
      told.push(`${panel.method}${where}: ${reasonOf(panel, number, chosenToken())}`);
    }
    why.replaceChildren(...told.map((text) => {
      const line = document.createElement("p");
      line.textContent = text;
      return line;
    }));
  }

  // Why a token was computed in a call, or how old its rows are.
  function reasonOf(panel, number, n) {
    const frame = panel.frames[number];
    const own = chosenSample(panel);
    const reason = REASONS[frame.letters[own][n]];
    const start = `token ${n} was ${reason}`;
    if (reason === "changed") {
      const moved = frame.moved.filter(([, samples]) => samples[own] === true || samples[own].includes(n));
      return moved.length ? `${start}: ${moved.map(([name]) => name).join("; ")} moved.` : `${start}: everything was new.`;
    }
    if (reason === "queried") {
      return frame.lines.length ? `${start}: the loop read its result at ${frame.lines.join(", ")}.` : `${start}.`;
    }
    if (reason === "refreshed") {
      const scores = frame.scores && frame.scores[own];
      const rank = scores ? scores.findIndex(([place]) => place === n) : -1;
      if (rank >= 0) return `${start}: its score ${scores[rank][1]} was number ${rank + 1} of the ${scores.length} refreshed.`;
      return frame.active >= frame.visible ? `${start}: the policy, or the number of others, asked for all tokens.` : `${start}.`;
    }
    let last = number - 1;
    while (last >= 0 && !"cqr".includes(panel.frames[last].letters[own][n])) last -= 1;
    const age = last < 0 ? "it was never computed" : `computed last in step ${panel.frames[last].step}`;
    return reason === "stale" ? `token ${n} was read and left as it was on purpose: ${age}.` : `token ${n} was not computed: ${age}.`;
  }

  for (const panel of panels) {
    panel.figure = document.createElement("figure");
    panel.caption = document.createElement("figcaption");
    holder.append(panel.figure);
    draw(panel);
  }
  token.max = Math.max(...panels.map((panel) => panel.tokens)) - 1;
  for (const control of [slider, sample, token]) control.addEventListener("input", paint);
  columns.addEventListener("input", () => { panels.forEach(draw); paint(); });
  paint();
})();
