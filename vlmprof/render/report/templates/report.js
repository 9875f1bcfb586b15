"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { lines, sizes: places, size_title, panels, stacks, fits } = data.charts;
  const state = { log: true, share: false, fitsLog: true, hidden: new Set() };
  const byId = (id) => document.getElementById(id);
  // a button that switches an entry of the state
  function toggles(id, key, draw) {
    byId(id).addEventListener("click", (event) => {
      state[key] = !state[key];
      event.currentTarget.setAttribute("aria-pressed", String(state[key]));
      draw();
    });
  }

  // ---- words -------------------------------------------------------------------------------------
  const SECONDS = [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9], ["ps", 1e-12]];
  const BYTES = [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10], ["B", 1]];

  function unitFor(kind, largest) {
    const units = kind === "bytes" ? BYTES : SECONDS;
    return units.find(([, size]) => largest >= size) || units[units.length - 1];
  }
  function digits(value) {
    const size = Math.abs(value);
    if (value !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(2);
    const decimals = value === 0 ? 2 : Math.max(0, 2 - Math.floor(Math.log10(Number(size.toPrecision(3)))));
    return value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  }
  function show(kind, value) {
    if (value === null || value === undefined) return "";
    if (typeof value === "string") return value;
    const numbers = Array.isArray(value) ? value : [value];
    let unit = { ratio: "×", percent: " %" }[kind] || "", size = kind === "percent" ? 0.01 : 1;
    if (kind === "seconds" || kind === "bytes") {
      [unit, size] = unitFor(kind, Math.max(...numbers.map(Math.abs)));
      unit = " " + unit;
    }
    const words = numbers.map((number) => {
      if (kind === "count") return Math.round(number).toLocaleString("en");
      if (kind === "pixels") return Math.round(Math.sqrt(Math.max(number, 0))).toLocaleString("en") + "²";
      return digits(number / size);
    });
    return (words.length > 1 ? `${words[0]} (${words[1]} to ${words[2]})` : words[0]) + unit;
  }
  // plotly interprets some markup in texts
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // ---- theme -------------------------------------------------------------------------------------
  const root = document.documentElement;
  const dark = () => root.dataset.theme === "dark";
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => { root.dataset.theme = prefersDark.matches ? "dark" : "light"; };
  follow();
  const ink = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  function colour(hex) {
    if (!dark()) return hex;
    const mix = [1, 3, 5].map((i) => Math.round(parseInt(hex.slice(i, i + 2), 16) * 0.6 + 255 * 0.4));
    return `rgb(${mix.join(",")})`;
  }
  function layout(extra) {
    return {
      margin: { l: 56, r: 14, t: 34, b: 44 }, showlegend: false, hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: { bgcolor: ink("--page"), bordercolor: ink("--line"), font: { color: ink("--ink") } },
      ...extra,
    };
  }
  const axis = (extra) => ({
    gridcolor: ink("--line"), linecolor: ink("--soft"), zeroline: false, ticks: "outside", ticklen: 3,
    tickcolor: ink("--soft"), fixedrange: false, ...extra,
  });
  // plain numbers in steps of 1, 2 and 5, or of ten for two decades and more
  function logTicks(bottom, top) {
    const steps = top / bottom < 100 ? [1, 2, 5] : [1];
    const [first, last] = [bottom, top].map((end) => Math.floor(Math.log10(end)));
    const powers = [...Array(last - first + 1).keys()].map((k) => 10 ** (first + k));
    const values = powers.flatMap((power) => steps.map((step) => step * power));
    if (values.filter((value) => bottom <= value && value <= top).length < 2) return { nticks: 5 };
    return { tickvals: values, ticktext: values.map((value) => String(Number(value.toPrecision(1)))) };
  }
  const config = { displaylogo: false, responsive: false, displayModeBar: false, doubleClick: "reset" };
  // with the size of its element, which plotly reads only when it draws there for the first time
  function react(div, traces, extra) {
    const size = { width: div.clientWidth, height: div.clientHeight };
    Plotly.react(div, traces, layout({ ...size, ...extra }), config);
  }

  // ---- six panels --------------------------------------------------------------------------------
  const finite = (values) => values.filter((value) => value !== null);

  const pen = document.createElement("canvas").getContext("2d");
  function textWidth(text) {
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    return pen.measureText(text).width;
  }
  function tickLabels(width, low, high) {
    const at = (size) => {
      const [a, b, x] = state.log ? [low, high, size].map(Math.log10) : [low, high, size];
      return ((x - a) / (b - a)) * width;
    };
    const kept = [];
    let free = Infinity;
    for (const { size, label } of [...places].reverse()) {
      const half = textWidth(label) / 2;
      if (at(size) + half <= free) { kept.push({ size, label }); free = at(size) - half - 8; }
    }
    return kept.reverse();
  }

  function drawPanel(panel, div) {
    const shown = panel.traces.map((trace, i) => ({ ...trace, line: lines[i], i })).filter((t) => !state.hidden.has(t.i));
    const every = shown.flatMap((t) => finite([...t.values, ...t.high]));
    const largest = every.length ? Math.max(...every) : 1;
    const smallest = every.length ? Math.min(...every.filter((value) => value > 0)) : 1;
    const [unit, size] = panel.kind === "bytes" ? BYTES[0] : unitFor("seconds", largest);
    const height = div.clientHeight - 78;
    const crosses = new Map();
    // memory is read against the capacity of a device, so it starts at 0
    const logY = state.log && panel.kind === "seconds";
    const top = logY ? (largest / size) * (largest / smallest) ** 0.1 * 1.2 : (largest / size) * 1.12;
    const bottom = logY ? (smallest / size) / 1.4 : 0;
    const traces = [];
    for (const t of shown) {
      const look = { color: colour(t.line.colour) };
      const keep = t.values.map((_, k) => k).filter((k) => t.joined[k]);
      const pick = (values) => keep.map((k) => values[k]);
      const y = pick(t.values).map((value) => (value === null ? null : value / size));
      const interval = (k) => (t.low[k] === null ? t.values[k] : [t.values[k], t.low[k], t.high[k]]);
      const spread = (end, sign) => keep.map((k) => (end[k] === null || t.values[k] === null ? 0 : Math.max(0, (sign * (end[k] - t.values[k])) / size)));
      traces.push({
        x: pick(t.sizes), y, mode: "lines+markers", type: "scatter", connectgaps: false,
        line: { ...look, width: 2, dash: t.line.dash }, marker: { ...look, size: 7, symbol: t.line.symbol },
        error_y: { type: "data", symmetric: false, array: spread(t.high, 1), arrayminus: spread(t.low, -1), ...look, thickness: 1.2, width: 3 },
        text: keep.map((k) => `${plain(t.line.label)}<br>${plain(t.labels[k])}: ${plain(show(panel.kind, interval(k)))}`),
        hovertemplate: "%{text}<extra></extra>",
      });
      if (t.oom_size !== null && panel.show_oom) {
        const before = keep.filter((k) => t.values[k] !== null && t.sizes[k] < t.oom_size).pop();
        const start = before === undefined ? [] : [[t.sizes[before], t.values[before] / size]];
        // inside the panel, to receive mouse events; marks at the same resolution are stacked
        const place = crosses.get(t.oom_size) || 0;
        crosses.set(t.oom_size, place + 1);
        const part = 1 - Math.min(0.3, (6 + place * 10) / height);
        const path = [...start, [t.oom_size, logY ? bottom * (top / bottom) ** part : top * part]];
        traces.push({
          x: path.map((p) => p[0]), y: path.map((p) => p[1]), mode: "lines+markers", type: "scatter", cliponaxis: false,
          line: { ...look, width: 2, dash: "dot" },
          marker: { ...look, symbol: "x-thin", line: { ...look, width: 2.5 }, size: path.map((_, k) => (k === path.length - 1 ? 9 : 0)) },
          text: path.map(() => `${plain(t.line.label)}<br>${plain(t.oom_words)}`), hovertemplate: "%{text}<extra></extra>",
        });
      }
    }
    const sizes = places.map((place) => place.size);
    const last = Math.max(...sizes);
    const margin = Math.exp(Math.max(0.07 * Math.log(last / Math.min(...sizes)), 0.12));
    const [low, high] = state.log ? [Math.min(...sizes) / margin, last * margin] : [0, last * (sizes.length > 1 ? 1.06 : 2)];
    const right = Math.max(14, textWidth(places[places.length - 1].label) / 2);
    const ticks = tickLabels(div.clientWidth - 56 - right, low, high);
    const scaled = (range, log) => (log ? range.map(Math.log10) : range);
    const kind = (log) => (log ? "log" : "linear");
    react(div, traces, {
      title: { text: `(${panel.letter}) ${panel.title}`, font: { size: 13 }, x: 0.5, y: 0.97, yanchor: "top" },
      margin: { l: 56, r: right, t: 34, b: 44 },
      xaxis: axis({ type: kind(state.log), range: scaled([low, high], state.log), showgrid: false, tickangle: 0, tickvals: ticks.map((t) => t.size), ticktext: ticks.map((t) => t.label), title: { text: size_title, font: { size: 11 }, standoff: 6 } }),
      yaxis: axis({ type: kind(logY), range: scaled([bottom, top], logY), visible: every.length > 0, exponentformat: "none", ...(logY ? logTicks(bottom, top) : {}), title: { text: `${panel.quantity} (${unit})`, font: { size: 11 }, standoff: 6 } }),
      annotations: panel.empty === null ? [] : [{ text: panel.empty, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: ink("--soft"), size: 13 } }],
    });
  }

  const panelDivs = panels.map((panel) => {
    const div = document.createElement("div");
    div.className = "panel";
    div.id = `panel-${panel.letter}`;
    byId("panels").append(div);
    return div;
  });
  byId("panels").classList.toggle("square", panels.length === 4);
  const drawPanels = () => panels.forEach((panel, i) => drawPanel(panel, panelDivs[i]));

  function button(text, pressed, toggle) {
    const element = document.createElement("button");
    element.type = "button";
    element.textContent = text;
    if (pressed !== null) element.setAttribute("aria-pressed", String(pressed));
    element.addEventListener("click", toggle);
    return element;
  }
  function hide(members, hidden) {
    members.forEach((i) => (hidden ? state.hidden.add(i) : state.hidden.delete(i)));
    drawLegend(); drawPanels(); drawFits();
  }
  function drawLegend() {
    const families = new Map();
    lines.forEach((line, i) => families.set(line.family, [...(families.get(line.family) || []), i]));
    byId("legend").replaceChildren(...[...families].map(([family, members]) => {
      const group = document.createElement("div");
      group.className = "family";
      const visible = members.some((i) => !state.hidden.has(i));
      const name = button(family, visible, () => hide(members, visible));
      name.classList.add("name");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour(lines[members[0]].colour);
      name.prepend(swatch);
      group.append(name);
      const own = members.length > 1 ? members : [];
      own.forEach((i) => group.append(button(lines[i].label, !state.hidden.has(i), () => hide([i], !state.hidden.has(i)))));
      return group;
    }));
  }

  // ---- where the time goes -----------------------------------------------------------------------
  const select = byId("stacks-line");

  function drawStacks() {
    if (!select) return;
    const line = stacks.lines[Number(select.value)];
    const run = line.labels.map((_, k) => k).filter((k) => stacks.stages.some((_, s) => line.seconds[s][k] !== null));
    const total = (k) => stacks.stages.reduce((sum, _, s) => sum + (line.seconds[s][k] || 0), 0);
    const [unit, size] = unitFor("seconds", Math.max(1e-9, ...run.map(total)));
    const labels = run.map((k) => plain(line.labels[k]));
    const bars = stacks.stages.map((stage, s) => ({
      type: "bar", name: stage, x: labels, marker: { color: colour(stacks.colours[s]) },
      y: run.map((k) => (state.share ? (100 * (line.seconds[s][k] || 0)) / total(k) : (line.seconds[s][k] || 0) / size)),
      text: run.map((k) => `${stage}, ${plain(line.labels[k])}: ${show("seconds", line.seconds[s][k])}, ${show("percent", (line.seconds[s][k] || 0) / total(k))}`),
      textposition: "none", hovertemplate: "%{text}<extra></extra>",
    }));
    const ticks = (div) => {
      const widest = Math.max(...labels.map(textWidth)) + 8;
      const every = Math.ceil((labels.length * widest) / (div.clientWidth - 70));
      return axis({ type: "category", tickangle: 0, tickvals: labels.filter((_, k) => (labels.length - 1 - k) % every === 0) });
    };
    const bottom = { orientation: "h", y: -0.18, x: 0.5, xanchor: "center" };
    const margin = { l: 56, r: Math.max(14, ...labels.slice(-1).map((label) => textWidth(label) / 2 + 2)), t: 34, b: 44 };
    react(byId("stacks"), bars, {
      barmode: "stack", showlegend: true, legend: bottom, margin,
      title: { text: `${stacks.clock} latency by stage`, font: { size: 13 } }, xaxis: ticks(byId("stacks")),
      yaxis: axis({ title: { text: state.share ? "Share (%)" : `Latency (${unit})`, font: { size: 11 } } }),
    });
    if (stacks.clock !== "GPU") return;
    react(byId("stacks-launch"), stacks.stages.map((stage, s) => ({
      x: labels, y: run.map((k) => (line.launch_bound[s][k] === null ? null : 100 * line.launch_bound[s][k])),
      name: stage, mode: "lines+markers", line: { color: colour(stacks.colours[s]) },
      hovertemplate: `${stage}, %{x}: %{y:.0f} %<extra></extra>`,
    })), {
      showlegend: true, legend: bottom, margin, xaxis: ticks(byId("stacks-launch")),
      title: { text: stacks.launch_words, font: { size: 13 } },
      yaxis: axis({ rangemode: "tozero", title: { text: "Share (%)", font: { size: 11 } } }),
    });
  }
  if (select && stacks.clock !== "GPU") {
    byId("stacks-launch").remove();
    byId("stacks").parentElement.classList.add("single");
  }
  if (select) {
    lines.forEach((line, i) => select.append(new Option(line.label, String(i))));
    const first = stacks.lines.findIndex((line) => line.seconds.some((values) => finite(values).length));
    select.value = String(Math.max(first, 0));
    select.addEventListener("change", drawStacks);
    toggles("stacks-share", "share", drawStacks);
  }

  // ---- fitted curves -----------------------------------------------------------------------------
  const figures = byId("fits-figure");

  function drawFit(fit, div) {
    const shown = fit.lines.map((line, i) => ({ ...line, i, line: lines[i] })).filter((t) => t.curve && !state.hidden.has(t.i));
    const every = shown.flatMap((t) => [...t.values, ...t.curve]).filter((value) => value > 0);
    const [largest, smallest] = every.length ? [Math.max(...every), Math.min(...every)] : [1, 1];
    const [unit, size] = fit.kind === "bytes" ? BYTES[0] : unitFor("seconds", largest);
    const [bottom, top] = state.fitsLog ? [smallest / size / 1.5, (largest / size) * 1.5] : [0, (largest / size) * 1.08];
    const inside = (value) => (state.fitsLog ? Math.max(value / size, bottom / 10) : value / size);
    const counts = shown.flatMap((t) => t.tokens);
    const across = state.fitsLog ? [Math.min(...counts) / 1.4, Math.max(...counts) * 1.4].map(Math.log10) : [0, Math.max(...counts) * 1.04];
    const tokens = (n) => `${show("count", n)} tokens`;
    const traces = shown.flatMap((t) => {
      const look = { color: colour(t.line.colour) };
      const name = plain(t.line.label);
      return [
        {
          x: [...t.curve_tokens, ...[...t.curve_tokens].reverse()], y: [...t.high, ...[...t.low].reverse()].map(inside),
          mode: "lines", fill: "toself", fillcolor: look.color, line: { width: 0 }, opacity: 0.18, hoverinfo: "skip",
        },
        {
          x: t.curve_tokens, y: t.curve.map(inside), mode: "lines", line: { ...look, width: 1.5, dash: t.line.dash },
          text: t.curve.map((value, k) => `${name}<br>fit at ${tokens(t.curve_tokens[k])}: ${show(fit.kind, [value, t.low[k], t.high[k]])}`),
          hovertemplate: "%{text}<extra></extra>",
        },
        {
          x: t.tokens, y: t.values.map((value) => value / size), mode: "markers", marker: { ...look, size: 7, symbol: t.line.symbol },
          text: t.values.map((value, k) => `${name}<br>${plain(t.labels[k])}, ${tokens(t.tokens[k])}: ${show(fit.kind, value)}`),
          hovertemplate: "%{text}<extra></extra>",
        },
      ];
    });
    const kind = state.fitsLog ? "log" : "linear";
    const range = state.fitsLog ? [bottom, top].map(Math.log10) : [bottom, top];
    const plainTicks = (ends) => ({ type: kind, exponentformat: "none", ...(state.fitsLog ? logTicks(...ends) : {}) });
    react(div, traces, {
      title: { text: fit.title[0].toUpperCase() + fit.title.slice(1), font: { size: 13 } },
      xaxis: axis({ ...plainTicks(across.map((end) => 10 ** end)), range: counts.length ? across : undefined, separatethousands: true, title: { text: fit.tokens, font: { size: 11 }, standoff: 6 } }),
      yaxis: axis({ ...plainTicks([bottom, top]), range, title: { text: `${fit.kind === "bytes" ? "Memory" : "Latency"} (${unit})`, font: { size: 11 }, standoff: 6 } }),
    });
  }
  const fittedOf = (kind) => fits.filter((fit) => fit.kind === kind && fit.lines.some((line) => line !== null));
  function drawFits() {
    if (!figures) return;
    const [memory] = fittedOf("bytes");
    const latency = fittedOf("seconds")[Number(figures.value)];
    if (latency) drawFit(latency, byId("fits-seconds"));
    if (memory) drawFit(memory, byId("fits-bytes"));
  }
  if (figures) {
    const latencies = fittedOf("seconds");
    latencies.forEach((fit, i) => figures.append(new Option(fit.title, String(i))));
    figures.value = String(Math.max(0, latencies.findIndex((fit) => fit.title === "end-to-end")));
    for (const kind of ["seconds", "bytes"]) {
      if (fittedOf(kind).length) continue;
      byId(`fits-${kind}`).parentElement.classList.add("single");
      byId(`fits-${kind}`).remove();
    }
    figures.addEventListener("change", drawFits);
    toggles("fits-scale", "fitsLog", drawFits);
  }

  // ---- tables ------------------------------------------------------------------------------------
  const PER_PAGE = 25;
  const LONG = 60; // longest text that is never clipped, in characters

  function liveTable(holder) {
    const { kinds, columns } = data.sheets[holder.dataset.sheet];
    const count = columns[0].length;
    const body = holder.querySelector("tbody");
    const heads = [...holder.querySelectorAll("thead th")];
    const view = { order: [...Array(count).keys()], page: 0, sorted: null, down: false, words: "" };
    const number = (value) => (Array.isArray(value) ? value[0] : value);

    function rows() {
      const words = view.words.toLowerCase().split(/\s+/).filter(Boolean);
      if (!words.length) return view.order;
      const texts = kinds.map((kind, c) => (kind === "text" ? c : -1)).filter((c) => c >= 0);
      return view.order.filter((r) => {
        const text = texts.map((c) => columns[c][r] || "").join(" ").toLowerCase();
        return words.every((word) => text.includes(word));
      });
    }
    function draw() {
      const found = rows();
      const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
      view.page = Math.min(view.page, pages - 1);
      body.replaceChildren(...found.slice(view.page * PER_PAGE, (view.page + 1) * PER_PAGE).map((r) => {
        const row = document.createElement("tr");
        kinds.forEach((kind, c) => {
          const cell = row.insertCell();
          const text = show(kind, columns[c][r]);
          if (kind !== "text") cell.className = "number";
          if (text.length <= LONG) {
            cell.textContent = text;
          } else { // clipped to three lines; the full text is in the tooltip and under Warnings
            const cut = cell.appendChild(document.createElement("span"));
            cut.className = "long";
            cut.textContent = cut.title = text;
          }
        });
        return row;
      }));
      heads.forEach((head, c) => head.setAttribute("aria-sort", c !== view.sorted ? "none" : view.down ? "descending" : "ascending"));
      if (place) place.textContent = `${found.length.toLocaleString("en")} rows, page ${view.page + 1} of ${pages.toLocaleString("en")}`;
    }
    heads.forEach((head, c) => {
      head.tabIndex = 0;
      const sort = () => {
        view.down = view.sorted === c && !view.down;
        view.sorted = c;
        const sign = view.down ? -1 : 1;
        view.order.sort((p, q) => {
          const [a, b] = [number(columns[c][p]), number(columns[c][q])];
          if (a === null || b === null) return (a === null) - (b === null);
          return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
        });
        draw();
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); } });
    });
    let place = null;
    if (count > PER_PAGE) {
      const pager = document.createElement("div");
      pager.className = "pager";
      const filter = document.createElement("input");
      filter.type = "search";
      filter.placeholder = "Filter rows";
      filter.setAttribute("aria-label", "Filter rows");
      filter.addEventListener("input", () => { view.words = filter.value; view.page = 0; draw(); });
      const step = (by) => () => { view.page = Math.max(0, view.page + by); draw(); };
      place = document.createElement("span");
      pager.append(filter, button("Previous", null, step(-1)), button("Next", null, step(1)), place);
      holder.append(pager);
    }
    draw();
  }
  document.querySelectorAll(".sheet").forEach(liveTable);

  // ---- start -------------------------------------------------------------------------------------
  const drawAll = () => { drawLegend(); drawPanels(); drawStacks(); drawFits(); };
  toggles("scale", "log", drawPanels);
  byId("theme").addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; drawAll(); });
  prefersDark.addEventListener("change", () => { follow(); drawAll(); });
  // paper is white and narrow
  function print(theme, paper) {
    root.dataset.theme = theme;
    root.classList.toggle("paper", paper);
    drawAll();
  }
  addEventListener("beforeprint", () => { state.theme = root.dataset.theme; print("light", true); });
  addEventListener("afterprint", () => print(state.theme, false));
  drawAll();
  let width = byId("panels").clientWidth, waiting = 0;
  new ResizeObserver(() => {
    if (byId("panels").clientWidth === width) return;
    width = byId("panels").clientWidth;
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(drawAll);
  }).observe(byId("panels"));
})();
