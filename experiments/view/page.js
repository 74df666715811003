"use strict";
// Draws the plots of a report: zoom by dragging, values under the pointer, runs shown or hidden.
(() => {
  const groups = JSON.parse(document.getElementById("data").textContent);
  const DASHES = { solid: [], faint: [], dashed: [7, 4], dotted: [2, 3] };
  const LEFT = 62, RIGHT = 10, TOP = 8, BOTTOM = 34;
  const FEW = 30; // points, up to which each is marked
  const hidden = groups.map(() => new Set());
  const zoom = groups.map(() => null); // [first, last] step shown, or null for all
  const pointer = groups.map(() => null); // step under the pointer
  let half = null; // points to either side of a median; null: a hundredth of the line

  // ---- numbers
  const expand = (steps) =>
    Array.isArray(steps)
      ? steps
      : Array.from({ length: steps.count }, (_, k) => steps.start + k * steps.stride);
  const number = (v) => {
    if (v === 0) return "0";
    const size = Math.abs(v);
    return size >= 1e5 || size < 1e-3 ? v.toExponential(2).replace("e+", "e") : String(+v.toPrecision(4));
  };
  const median = (values) => {
    const sorted = values.filter((v) => v !== null).sort((a, b) => a - b);
    const n = sorted.length;
    return n ? (sorted[(n - 1) >> 1] + sorted[n >> 1]) / 2 : null;
  };
  const smooth = (values, reach) =>
    reach ? values.map((v, k) => median(values.slice(Math.max(0, k - reach), k + reach + 1))) : values;
  const at = (sorted, x) => { // index of the first element not below x
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < x) low = middle + 1; else high = middle;
    }
    return low;
  };

  // ---- scales: a monotonous function of the value, and its ticks
  const linear = () => ({ f: (v) => v, ticks: niceTicks });
  const log = () => ({ f: (v) => (v > 0 ? Math.log10(v) : -Infinity), ticks: logTicks });
  const both = (c) => ({ // logarithmic to either side of zero
    f: (v) => Math.asinh(v / c) / Math.LN10,
    ticks: (low, high) => {
      const first = Math.ceil(Math.log10(c)), last = Math.floor(Math.log10(Math.max(-low, high, c)));
      const stride = Math.max(1, Math.ceil((last - first + 1) / 3)), found = [0];
      for (let k = last; k >= first; k -= stride) found.push(10 ** k, -(10 ** k));
      return found.filter((v) => v >= low && v <= high);
    },
  });
  function niceTicks(low, high) {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough * 0.999);
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high * (1 + 1e-12); k++) found.push(k * step);
    return found.map((v) => +v.toPrecision(12));
  }
  function logTicks(low, high) {
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    if (Math.log10(high / low) < 0.5) return niceTicks(low, high);
    const within = last - first <= 3 ? [1, 2, 5] : [1];
    const stride = Math.max(1, Math.ceil((last - first) / 6)), found = [];
    for (let k = first; k <= last; k += stride) for (const m of within) found.push(m * 10 ** k);
    return found.filter((v) => v >= low && v <= high);
  }
  function choose(kind, values) {
    if (kind === "linear" || !values.length) return linear();
    const positive = values.filter((v) => v > 0);
    if (positive.length >= 0.8 * values.length) return log();
    const sizes = values.map(Math.abs).filter((v) => v > 0).sort((a, b) => a - b);
    return sizes.length ? both(sizes[Math.floor(sizes.length / 5)]) : linear();
  }

  // ---- one plot
  class Plot {
    constructor(canvas, group, content) {
      Object.assign(this, { canvas, group, content, kind: content.scale });
      this.tip = canvas.parentElement.querySelector(".tip");
      this.button = canvas.closest("figure").querySelector("button");
      this.lines = content.lines.map((line) => ({ ...line, steps: expand(line.steps) }));
      for (const line of this.lines)
        line.main = line.dash !== "faint" ||
          !this.lines.some((other) => other.run === line.run && other.dash === "solid");
      this.button.addEventListener("click", () => {
        this.kind = this.kind === "log" ? "linear" : "log";
        this.draw();
      });
      this.listen();
      new ResizeObserver(() => this.draw()).observe(canvas);
    }

    prepare() { // smoothed lines, anew when the smoothing changes
      for (const line of this.lines) {
        const reach = half === null ? Math.ceil(line.values.length / 100) : half;
        const few = line.values.length <= FEW;
        line.middle = line.main ? smooth(line.values, few ? 0 : reach) : null;
        line.low = line.high = null;
        if (line.spread && line.main) {
          const edge = (sign) => line.values.map((v, k) =>
            v === null || line.spread[k] === null ? null : v + sign * line.spread[k]);
          line.low = smooth(edge(-1), few ? 0 : reach);
          line.high = smooth(edge(1), few ? 0 : reach);
        }
      }
    }

    visible() {
      return this.lines.filter((line) => !hidden[this.group].has(line.run));
    }

    draw() {
      const { canvas } = this, density = window.devicePixelRatio || 1;
      const width = canvas.clientWidth, height = canvas.clientHeight;
      if (!width || !height) return;
      canvas.width = Math.round(width * density);
      canvas.height = Math.round(height * density);
      const pen = canvas.getContext("2d");
      pen.scale(density, density);
      pen.font = "11px system-ui, sans-serif";
      this.measure(width, height);
      this.axes(pen, width, height);
      pen.save();
      pen.beginPath();
      pen.rect(LEFT, TOP, width - LEFT - RIGHT, height - TOP - BOTTOM);
      pen.clip();
      for (const line of this.visible()) this.band(pen, line);
      for (const line of this.visible()) this.line(pen, line);
      this.cross(pen, height);
      pen.restore();
    }

    measure(width, height) { // what part of the plane is shown, and where
      const lines = this.visible(), window_ = zoom[this.group];
      const ends = lines.flatMap((line) => [line.steps[0], line.steps[line.steps.length - 1]]);
      let [x0, x1] = window_ || [Math.min(...ends), Math.max(...ends)];
      if (!Number.isFinite(x0)) [x0, x1] = [0, 1];
      if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
      const values = [], shown = [];
      for (const line of lines)
        for (let k = at(line.steps, x0); k < line.steps.length && line.steps[k] <= x1; k++) {
          if (line.values[k] !== null) values.push(line.values[k]);
          const drawn = line.dash === "solid" || line.dash === "faint" ? line.values : line.middle;
          if (drawn[k] !== null) shown.push(drawn[k]);
        }
      this.scale = choose(this.kind, values);
      const { f } = this.scale;
      let y0 = Infinity, y1 = -Infinity;
      for (const v of shown) {
        if (!Number.isFinite(f(v))) continue;
        if (v < y0) y0 = v;
        if (v > y1) y1 = v;
      }
      for (const [mark] of this.content.marks)
        if (Number.isFinite(f(mark)) && this.kind === "linear") {
          y0 = Math.min(y0, mark); y1 = Math.max(y1, mark);
        }
      if (y0 > y1) [y0, y1] = this.kind === "log" ? [0.1, 1] : [0, 1];
      if (y0 === y1) [y0, y1] = y0 ? [Math.min(y0 / 2, y0 * 2), Math.max(y0 / 2, y0 * 2)] : [-1, 1];
      const margin = 0.05 * (f(y1) - f(y0)), low = f(y0) - margin, high = f(y1) + margin;
      this.range = [x0, x1, y0, y1];
      this.x = (s) => LEFT + (s - x0) / (x1 - x0) * (width - LEFT - RIGHT);
      this.step = (px) => x0 + (px - LEFT) / (width - LEFT - RIGHT) * (x1 - x0);
      this.y = (v) => {
        const part = (high - f(v)) / (high - low);
        return TOP + Math.min(2, Math.max(-1, part)) * (height - TOP - BOTTOM);
      };
      this.button.textContent = this.kind === "log" ? "linear" : "log";
    }

    axes(pen, width, height) {
      const [x0, x1, y0, y1] = this.range, foot = height - BOTTOM;
      pen.lineWidth = 1;
      pen.fillStyle = "#444";
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      for (const v of this.scale.ticks(y0, y1)) {
        const y = this.y(v);
        pen.strokeStyle = "#e6e6e6";
        pen.beginPath(); pen.moveTo(LEFT, y); pen.lineTo(width - RIGHT, y); pen.stroke();
        pen.fillText(number(v), LEFT - 5, y);
      }
      pen.textAlign = "center";
      pen.textBaseline = "top";
      for (const s of niceTicks(x0, x1))
        if (Number.isInteger(s)) pen.fillText(s.toLocaleString("en"), this.x(s), foot + 4);
      pen.fillText("step", (LEFT + width - RIGHT) / 2, foot + 18);
      pen.save();
      pen.translate(9, (TOP + foot) / 2);
      pen.rotate(-Math.PI / 2);
      pen.textBaseline = "middle";
      pen.fillText(this.content.unit, 0, 0);
      pen.restore();
      pen.strokeStyle = "#999";
      pen.strokeRect(LEFT, TOP, width - LEFT - RIGHT, foot - TOP);
      pen.textAlign = "left";
      pen.textBaseline = "bottom";
      for (const [mark, name] of this.content.marks) {
        const y = this.y(mark);
        if (y < TOP || y > foot) continue;
        pen.strokeStyle = "#999";
        pen.setLineDash([1, 2]);
        pen.beginPath(); pen.moveTo(LEFT, y); pen.lineTo(width - RIGHT, y); pen.stroke();
        pen.setLineDash([]);
        pen.fillStyle = "#777";
        pen.fillText(name, LEFT + 4, y - 1);
      }
    }

    path(pen, line, values) {
      let on = false;
      pen.beginPath();
      for (let k = 0; k < values.length; k++) {
        if (values[k] === null) { on = false; continue; }
        const x = this.x(line.steps[k]), y = this.y(values[k]);
        if (on) pen.lineTo(x, y); else pen.moveTo(x, y);
        on = true;
      }
      pen.stroke();
    }

    band(pen, line) {
      if (!line.low) return;
      pen.globalAlpha = 0.15;
      pen.fillStyle = this.color(line);
      let k = 0;
      while (k < line.low.length) {
        if (line.low[k] === null) { k++; continue; }
        let end = k;
        while (end < line.low.length && line.low[end] !== null) end++;
        pen.beginPath();
        for (let i = k; i < end; i++) pen.lineTo(this.x(line.steps[i]), this.y(line.high[i]));
        for (let i = end - 1; i >= k; i--) pen.lineTo(this.x(line.steps[i]), this.y(line.low[i]));
        pen.fill();
        k = end;
      }
      pen.globalAlpha = 1;
    }

    line(pen, line) {
      pen.strokeStyle = pen.fillStyle = this.color(line);
      if (line.dash === "solid" || line.dash === "faint") {
        pen.globalAlpha = line.dash === "faint" ? 0.3 : 0.25;
        pen.lineWidth = 1;
        this.path(pen, line, line.values);
        pen.globalAlpha = 1;
      }
      if (!line.main) return;
      pen.lineWidth = line.dash === "dotted" || line.dash === "dashed" ? 1.2 : 1.8;
      pen.setLineDash(DASHES[line.dash]);
      this.path(pen, line, line.middle);
      pen.setLineDash([]);
      if (line.values.length <= FEW)
        line.values.forEach((v, k) => v !== null &&
          pen.fillRect(this.x(line.steps[k]) - 2, this.y(v) - 2, 4, 4));
    }

    color(line) {
      return groups[this.group].runs[line.run].color;
    }

    // ---- pointer
    listen() {
      let start = null;
      const { canvas } = this;
      const place = (event) => event.clientX - canvas.getBoundingClientRect().left;
      canvas.addEventListener("pointerdown", (event) => {
        start = place(event);
        canvas.setPointerCapture(event.pointerId);
      });
      canvas.addEventListener("pointermove", (event) => {
        const x = place(event);
        pointer[this.group] = this.step(x);
        this.dragged = start === null ? null : [start, x];
        redraw(this.group);
        this.tell(x);
      });
      canvas.addEventListener("pointerup", (event) => {
        const end = place(event);
        if (start !== null && Math.abs(end - start) > 5) {
          const [first, last] = [start, end].map(this.step).sort((a, b) => a - b);
          zoom[this.group] = [Math.max(first, this.range[0]), Math.min(last, this.range[1])];
        }
        start = this.dragged = null;
        redraw(this.group);
      });
      canvas.addEventListener("pointerleave", () => {
        pointer[this.group] = null;
        this.tip.style.display = "none";
        redraw(this.group);
      });
      canvas.addEventListener("dblclick", () => {
        zoom[this.group] = null;
        redraw(this.group);
      });
    }

    cross(pen, height) {
      if (this.dragged) {
        const [a, b] = this.dragged;
        pen.fillStyle = "#0072b222";
        pen.fillRect(Math.min(a, b), TOP, Math.abs(b - a), height - TOP - BOTTOM);
      }
      if (pointer[this.group] === null) return;
      const x = this.x(pointer[this.group]);
      pen.strokeStyle = "#888";
      pen.lineWidth = 1;
      pen.beginPath(); pen.moveTo(x, TOP); pen.lineTo(x, height - BOTTOM); pen.stroke();
    }

    tell(x) { // values next to the pointer
      const step = pointer[this.group];
      this.tip.replaceChildren();
      let shown = 0;
      for (const line of this.visible()) {
        if (shown === 14) break;
        let k = at(line.steps, step);
        if (k === line.steps.length || (k && step - line.steps[k - 1] < line.steps[k] - step)) k--;
        if (line.values[k] === null) continue;
        const row = document.createElement("div"), swatch = document.createElement("i");
        swatch.style.background = this.color(line);
        const spread = line.spread && line.spread[k] !== null ? ` ± ${number(line.spread[k])}` : "";
        row.append(swatch, `${groups[this.group].runs[line.run].name}, ${line.label}, step ` +
          `${line.steps[k].toLocaleString("en")}: ${number(line.values[k])}${spread}`);
        this.tip.append(row);
        shown++;
      }
      this.tip.style.display = shown ? "block" : "none";
      const box = this.canvas.clientWidth, own = this.tip.offsetWidth;
      this.tip.style.left = `${Math.max(0, Math.min(x + 14, box - own))}px`;
      this.tip.style.top = `${this.canvas.clientHeight - BOTTOM + 4}px`;
    }
  }

  // ---- the page
  const plots = [...document.querySelectorAll("canvas")].map((canvas) => {
    const group = Number(canvas.dataset.group);
    return new Plot(canvas, group, groups[group].plots[Number(canvas.dataset.plot)]);
  });
  let due = new Set();
  function redraw(group) { // once a frame
    if (!due.size) requestAnimationFrame(() => {
      const now = due;
      due = new Set();
      for (const plot of plots) if (now.has(plot.group)) plot.draw();
    });
    due.add(group);
  }
  for (const box of document.querySelectorAll("input[type=checkbox]"))
    box.addEventListener("change", () => {
      const group = Number(box.dataset.group), run = Number(box.dataset.run);
      if (box.checked) hidden[group].delete(run); else hidden[group].add(run);
      redraw(group);
    });
  for (const slider of document.querySelectorAll("input[type=range]"))
    slider.addEventListener("input", () => {
      half = [0, 1, 2, 5, 10, 20, 50, 100][slider.value];
      for (const other of document.querySelectorAll("input[type=range]")) other.value = slider.value;
      for (const text of document.querySelectorAll("output"))
        text.textContent = half ? `median of ${2 * half + 1} points` : "none";
      for (const plot of plots) { plot.prepare(); plot.draw(); }
    });
  for (const button of document.querySelectorAll("button.whole"))
    button.addEventListener("click", () => {
      zoom[Number(button.dataset.group)] = null;
      redraw(Number(button.dataset.group));
    });
  for (const plot of plots) { plot.prepare(); plot.draw(); }
  document.documentElement.dataset.drawn = String(plots.length);
})();
