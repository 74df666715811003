"use strict";
// Draws the plots of a report. The plots of a group share zoom, hidden runs and the step under the
// pointer; all plots share the smoothing.
const FEW = 30; // points, up to which each is marked
const DASHES = { solid: "solid", faint: "solid", dashed: "dash", dotted: "dot" };
const REACHES = [0, 1, 2, null, 5, 10, 20, 50]; // points to either side of a median; null: a hundredth
const CONFIG = { displayModeBar: "hover", displaylogo: false, doubleClick: false, modeBarButtons: [["toImage"]], responsive: true };
let reach = null;

const number = (v) => String(+v.toPrecision(4));
const escape = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%/g, "&#37;");
const asRecorded = (line) => line.dash === "solid" || line.dash === "faint";
const extent = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);

function medians(values) {
  const n = values.length, half = n <= FEW ? 0 : reach ?? Math.ceil(n / 100);
  return half === 0 ? values : values.map((_, k) => {
    const near = values.slice(Math.max(0, k - half), k + half + 1).filter((v) => v !== null).sort((a, b) => a - b);
    return near.length ? (near[(near.length - 1) >> 1] + near[near.length >> 1]) / 2 : null;
  });
}

// What the vertical axis shows of a value: plotly's own log and linear axes, or, where a fifth of the
// values are not positive, a logarithm to either side of zero, which plotly does not have.
function scaleOf(kind, values) {
  const sizes = values.map(Math.abs).filter((v) => v > 0).sort((a, b) => a - b);
  if (kind === "linear" || !sizes.length) return { f: (v) => v, axis: { type: "linear" } };
  if (values.filter((v) => v > 0).length >= 0.8 * values.length)
    return { f: (v) => (v > 0 ? Math.log10(v) : null), axis: { type: "log", nticks: 4 } };
  const unit = sizes[Math.floor(sizes.length / 5)], largest = sizes[sizes.length - 1];
  const f = (v) => Math.asinh(v / unit) / Math.LN10, ticks = [0];
  for (let k = Math.floor(Math.log10(largest)); k >= Math.log10(unit); k--) ticks.push(10 ** k, -(10 ** k));
  return { f, own: true, axis: { type: "linear", tickvals: ticks.map(f), ticktext: ticks.map(number) } };
}

class Plot {
  constructor(group, content, figure) {
    Object.assign(this, { group, content, kind: content.scale, div: figure.querySelector(".plot") });
    for (const line of content.lines)
      line.text = line.values.map((v, k) => v === null ? "" : number(v) + (line.spread && line.spread[k] !== null
        ? ` ± ${number(line.spread[k])}` : ""));
    this.smooth();
    this.button = figure.querySelector("button");
    this.button.onclick = () => { this.kind = this.kind === "log" ? "linear" : "log"; redraw([this]); };
  }

  listen() {
    this.div.on("plotly_relayout", (event) => {
      if ("xaxis.range[0]" in event) this.group.show([event["xaxis.range[0]"], event["xaxis.range[1]"]]);
    });
    this.div.on("plotly_doubleclick", () => this.group.show(null));
    this.div.on("plotly_hover", (event) => this.group.point(this, event.xvals[0]));
    this.div.on("plotly_unhover", () => this.group.point(this, null));
    this.drawn = true;
  }

  inSight() {
    const box = this.div.getBoundingClientRect();
    return box.bottom > 0 && box.top < window.innerHeight;
  }

  smooth() {
    for (const line of this.content.lines) {
      const edge = (sign) => medians(line.values.map((v, k) =>
        v === null || line.spread[k] === null ? null : v + sign * line.spread[k]));
      line.middle = line.strong ? medians(line.values) : null;
      line.edges = line.strong && line.spread ? [edge(-1), edge(1)] : null;
    }
  }

  draw() {
    const lines = this.content.lines.filter((line) => !this.group.hidden.has(line.run));
    let [first, last] = this.group.zoom || extent(lines.flatMap(({ steps }) => [steps[0], steps[steps.length - 1]]));
    if (first >= last) [first, last] = lines.length ? [first - 0.5, last + 0.5] : [0, 1];
    const within = lines.flatMap((line) => (asRecorded(line) ? line.values : line.middle)
      .filter((v, k) => v !== null && line.steps[k] >= first && line.steps[k] <= last));
    const { f, own, axis } = scaleOf(this.kind, within);
    const marks = this.content.marks.filter(([height]) => f(height) !== null);
    let [low, high] = extent([...within, ...(this.kind === "linear" ? marks.map(([height]) => height) : [])]
      .map(f).filter((v) => v !== null));
    if (low > high) [low, high] = [0, 1];
    const margin = 0.05 * (high - low) || 0.5;
    axis.range = [low - margin, high + margin];
    const place = own ? (v) => v === null ? null : f(v) : (v) => v;
    const foot = axis.type === "log" ? 10 ** axis.range[0] : -Infinity;
    this.button.textContent = this.kind === "log" ? "linear" : "log";
    Plotly.react(this.div, lines.flatMap((line) => this.traces(line, place, foot)), {
      height: 270, margin: { l: 62, r: 10, t: 8, b: 36 }, font: { size: 11, color: "#444" }, showlegend: false,
      hovermode: "x unified", dragmode: "zoom", hoverlabel: { font: { size: 11 } },
      xaxis: { title: { text: "step", standoff: 4 }, range: [first, last], tickformat: ",d", hoverformat: ",d",
        mirror: true, linecolor: "#999", gridcolor: "#eee", zeroline: false, spikethickness: 1 },
      yaxis: { title: { text: escape(this.content.unit) }, fixedrange: true, mirror: true, linecolor: "#999",
        gridcolor: "#e6e6e6", zeroline: false, exponentformat: "power", ...axis },
      shapes: marks.map(([height]) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: place(height),
        y1: place(height), line: { color: "#999", width: 1, dash: "dot" } })),
      annotations: marks.filter(([height]) => f(height) >= axis.range[0] && f(height) <= axis.range[1])
        .map(([height, name]) => ({ text: name, xref: "paper", x: 0, xanchor: "left", yanchor: "bottom",
          y: f(height), showarrow: false, font: { size: 10, color: "#777" } })),
    }, CONFIG);
    if (!this.drawn) this.listen();
  }

  traces(line, place, foot) {
    const { name, color } = this.group.runs[line.run], pale = asRecorded(line);
    const common = { x: line.steps, mode: "lines", line: { color, width: 1 }, hoverinfo: "skip" };
    const result = [];
    if (line.edges) { // one closed shape for every stretch without a gap
      const [lower, upper] = line.edges, x = [], y = [];
      const add = (step, v) => { x.push(step); y.push(v === null ? null : place(Math.max(v, foot))); };
      for (let begin = 0, k = 0; k <= lower.length; k++) {
        if (k < lower.length && lower[k] !== null) continue;
        for (let i = begin; i < k; i++) add(line.steps[i], upper[i]);
        for (let i = k - 1; i >= begin; i--) add(line.steps[i], lower[i]);
        add(null, null);
        begin = k + 1;
      }
      result.push({ ...common, x, y, line: { width: 0 }, fill: "toself", fillcolor: color + "26" });
    }
    const hover = { hoverinfo: undefined, text: line.text,
      hovertemplate: `${escape(`${name}, ${line.label}`)}: %{text}<extra></extra>` };
    if (pale) result.push({ ...common, y: line.values.map(place), opacity: 0.3, ...hover });
    if (line.strong) result.push({ ...common, y: line.middle.map(place), ...(pale ? {} : hover),
      mode: line.values.length <= FEW ? "lines+markers" : "lines", marker: { color, size: 4 },
      line: { color, width: pale ? 1.8 : 1.2, dash: DASHES[line.dash] } });
    return result;
  }
}

class Group {
  constructor(content, section) {
    Object.assign(this, { runs: content.runs, hidden: new Set(), zoom: null });
    const figures = [...section.querySelectorAll("figure")];
    this.plots = content.plots.map((plot, index) => new Plot(this, plot, figures[index]));
    section.querySelector("button.whole").onclick = () => this.show(null);
    section.querySelectorAll("input[type=checkbox]").forEach((box, run) => {
      box.onchange = () => { this.hidden[box.checked ? "delete" : "add"](run); redraw(this.plots); };
    });
  }

  show(zoom) { this.zoom = zoom; redraw(this.plots); }

  point(source, step) { // the same step in the other plots
    for (const plot of this.plots)
      if (plot !== source && plot.drawn && plot.inSight())
        if (step === null) Plotly.Fx.unhover(plot.div); else Plotly.Fx.hover(plot.div, { xval: step }, "xy", true);
  }
}

// One plot after the other, those in sight first: plotly takes a while, and the page answers meanwhile.
const waiting = new Set();
function redraw(plots) {
  if (!waiting.size) setTimeout(drawNext);
  for (const plot of plots) waiting.add(plot);
}
function drawNext() {
  const next = [...waiting].find((plot) => plot.inSight()) ?? [...waiting][0];
  next.draw();
  waiting.delete(next);
  document.documentElement.dataset.waiting = String(waiting.size);
  if (waiting.size) setTimeout(drawNext);
}

const sections = [...document.querySelectorAll("section")];
const groups = JSON.parse(document.getElementById("data").textContent)
  .map((content, index) => new Group(content, sections[index]));
const plots = groups.flatMap((group) => group.plots);
redraw(plots);
const sliders = document.querySelectorAll("input[type=range]");
for (const slider of sliders)
  slider.oninput = () => {
    reach = REACHES[slider.value];
    for (const other of sliders) other.value = slider.value;
    for (const text of document.querySelectorAll("output"))
      text.textContent = reach === 0 ? "none" : reach === null ? "median of 2 %" : `median of ${2 * reach + 1} points`;
    for (const plot of plots) plot.smooth();
    redraw(plots);
  };
