"use strict";
// Sorts and filters the tables, and overlays the curves of chosen runs; the choice is kept in the address of the page.
(() => {
  const MOST = 32, FIRST = 6, COLOURS = 8, DASHES = 4, STEPS = 60;
  const at = (id) => document.getElementById(id);
  const data = JSON.parse(at("curves").textContent);
  const table = at("runs"), rows = [...table.tBodies[0].rows], groups = at("groups");
  const NAMESPACE = at("chart").firstElementChild.namespaceURI;
  const groupRows = groups ? [...groups.tBodies[0].rows] : [];
  const hasCurves = (run) => data.runs[run].values !== undefined;
  const selects = ["state", "dataset", "model"];
  // places of runs, each with the colour that it keeps: {run, slot}
  const chosen = [];
  let cursor = null;

  // --- the address

  const read = () => new URLSearchParams(location.hash.slice(1));
  const write = () => {
    const kept = new URLSearchParams();
    for (const id of [...selects, "text", "y", "x"]) {
      if (at(id).value && at(id).value !== at(id).dataset.usual) kept.set(id, at(id).value);
    }
    if (at("log").checked) kept.set("log", "1");
    const sorted = table.querySelector("th[aria-sort]");
    if (sorted) kept.set("sort", `${sorted.getAttribute("aria-sort")} ${sorted.dataset.key}`);
    kept.set("runs", chosen.map(({ run }) => encodeURIComponent(data.runs[run].name)).join(" "));
    history.replaceState(null, "", `#${kept}`);
  };
  const restore = () => {
    const kept = read();
    for (const id of [...selects, "text", "y", "x"]) {
      const value = kept.get(id) ?? at(id).dataset.usual;
      if (at(id).options && ![...at(id).options].some((option) => option.value === value)) continue;
      at(id).value = value;
    }
    at("log").checked = kept.get("log") === "1";
    const [way, key] = (kept.get("sort") || "").split(/ (.*)/);
    const heading = [...table.tHead.rows[0].cells].find((cell) => cell.dataset.key === key);
    if (heading && (way === "ascending" || way === "descending")) sort(table, heading, way);
    chosen.length = 0;
    if (kept.has("runs")) {
      const places = new Map(data.runs.map(({ name }, place) => [encodeURIComponent(name), place]));
      for (const name of kept.get("runs").split(" ")) if (places.has(name)) choose(places.get(name), true);
    } else {
      rows.map((row) => Number(row.dataset.run)).filter(hasCurves).sort((a, b) => b - a).slice(0, FIRST)
        .forEach((run) => choose(run, true));
    }
    filter();
    draw();
  };

  // --- tables

  const order = (row, place, kind) => {
    const cell = row.cells[place];
    if (cell.dataset.order === undefined) return kind === "number" ? null : cell.textContent;
    return kind === "number" ? Number(cell.dataset.order) : cell.dataset.order;
  };
  const sort = (of, heading, way) => {
    const { kind } = heading.dataset, place = heading.cellIndex, sign = way === "ascending" ? 1 : -1;
    const keyed = [...of.tBodies[0].rows].map((row) => [order(row, place, kind), row]);
    keyed.sort(([a], [b]) => {
      // a missing one comes last, whichever way the others are sorted
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (kind === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
    });
    of.tBodies[0].append(...keyed.map(([, row]) => row));
    for (const cell of of.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", way);
  };
  const makeSortable = (of) => {
    for (const heading of of.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        sort(of, heading, heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
        write();
      });
    }
  };
  const shownRuns = () => rows.filter((row) => !row.classList.contains("out")).map((row) => Number(row.dataset.run));
  const filter = () => {
    const words = at("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = selects.map((id) => [columns[id], at(id).value]).filter(([, value]) => value);
    for (const row of rows) {
      const said = row.textContent.toLowerCase();
      const fits = words.every((word) => said.includes(word))
        && wanted.every(([place, value]) => row.cells[place].firstChild.data === value);
      row.classList.toggle("out", !fits);
    }
    const shown = new Set(shownRuns());
    for (const row of groupRows) {
      row.classList.toggle("out", !row.dataset.runs.split(" ").some((run) => shown.has(Number(run))));
    }
    showDifferences();
    at("count").textContent = `${shown.size} of ${rows.length} shown`;
  };
  // A setting that all shown runs have alike is no news.
  const showDifferences = () => {
    const shown = rows.filter((row) => !row.classList.contains("out"));
    for (const heading of table.tHead.rows[0].cells) {
      if (!heading.classList.contains("setting")) continue;
      const place = heading.cellIndex, first = shown[0]?.cells[place].textContent;
      const same = shown.every((row) => row.cells[place].textContent === first);
      heading.classList.toggle("same", same);
      for (const row of rows) row.cells[place].classList.toggle("same", same);
    }
  };

  // --- which curves

  const choose = (run, on) => {
    const found = chosen.findIndex((each) => each.run === run);
    if (on && found < 0 && hasCurves(run)) {
      const taken = new Set(chosen.map(({ slot }) => slot));
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      if (slot >= MOST) return false;
      chosen.push({ run, slot });
    } else if (!on && found >= 0) {
      chosen.splice(found, 1);
    }
    return true;
  };
  const chooseAll = (runs) => {
    const left = runs.filter((run) => hasCurves(run) && !choose(run, true)).length;
    draw();
    if (left) at("hint").textContent = `At most ${MOST} curves are drawn; ${left} runs were left out.`;
    write();
  };

  // --- the chart

  const svg = (name, attributes, parent) => {
    const made = document.createElementNS(NAMESPACE, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent?.append(made);
    return made;
  };
  // Neighbours, and colours that some eyes take for each other, differ in their dashes, too.
  const look = (slot) => {
    const colour = slot % COLOURS, turns = Math.floor(slot / COLOURS) + Math.floor(colour / DASHES);
    return `curve c${colour} d${(colour + turns) % DASHES}`;
  };
  const text = (value) => value === null ? "–" : String(Number(value.toPrecision(4)));
  const points = (run) => {
    const { values, epochs, minutes } = data.runs[run], along = at("x").value === "minutes" ? minutes : epochs;
    const found = values[data.series.indexOf(at("y").value)] || [];
    return found.map((y, place) => [along[place] ?? null, y]).filter(([x]) => x !== null)
      .map(([x, y]) => [x, at("log").checked && y <= 0 ? null : y]);
  };
  const ticks = (low, high, most) => {
    const rough = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    const found = [];
    for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6 && found.length < 20; value += step) {
      found.push(Number(value.toPrecision(12)));
    }
    return found;
  };
  const logTicks = (low, high, most) => {
    const found = [], first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    const every = Math.max(1, Math.ceil((last - first) / most)), parts = last - first <= 3 ? [1, 2, 5] : [1];
    for (let power = first; power <= last; power += every) {
      for (const part of parts) found.push(Number((part * 10 ** power).toPrecision(6)));
    }
    return found.filter((value) => value >= low && value <= high);
  };
  // what the cursor needs
  let drawing = null;

  const draw = () => {
    for (const row of rows) {
      const box = row.querySelector(".pick input");
      box.checked = chosen.some(({ run }) => run === Number(row.dataset.run));
    }
    const curves = chosen.map(({ run, slot }) => ({ run, slot, line: points(run) }));
    const known = curves.flatMap(({ line }) => line.filter(([, y]) => y !== null));
    const box = at("chart"), width = Math.max(280, box.clientWidth), height = Math.round(Math.min(380, 120 + width / 3));
    const [left, right, top, bottom] = [58, 12, 10, 44];
    box.replaceChildren();
    at("legend").replaceChildren();
    drawing = null;
    at("hint").textContent = chosen.length ? (known.length ? "" : `None of the chosen runs has ${at("y").value} here.`)
      : "Tick runs in the table, and their curves are drawn here.";
    const log = at("log").checked, scale = log ? Math.log10 : (value) => value;
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, box);
    if (known.length) {
      const xs = known.map(([x]) => x), ys = known.map(([, y]) => scale(y));
      const span = (list) => list.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
      let [x0, x1] = span(xs), [y0, y1] = span(ys);
      if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
      const pad = (y1 - y0) * 0.05 || Math.abs(y1) * 0.05 || 0.5;
      [y0, y1] = [y0 - pad, y1 + pad];
      const px = (x) => left + (x - x0) / (x1 - x0) * (width - left - right);
      const py = (y) => height - bottom - (scale(y) - y0) / (y1 - y0) * (height - top - bottom);
      for (const value of log ? logTicks(10 ** y0, 10 ** y1, 6) : ticks(y0, y1, 6)) {
        svg("line", { class: "grid", x1: left, x2: width - right, y1: py(value), y2: py(value) }, picture);
        svg("text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, picture).textContent = text(value);
      }
      const whole = at("x").value === "epochs" ? Number.isInteger : () => true;
      for (const value of ticks(x0, x1, Math.max(2, width / 110)).filter(whole)) {
        svg("text", { x: px(value), y: height - bottom + 18, "text-anchor": "middle" }, picture).textContent = text(value);
      }
      svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, picture).textContent =
        at("x").value === "epochs" ? "epoch" : "minutes of training";
      for (const curve of curves) {
        let pen = "M";
        const way = [];
        for (const [x, y] of curve.line) {
          if (y === null) pen = "M";
          else {
            way.push(`${pen}${px(x).toFixed(1)} ${py(y).toFixed(1)}`);
            pen = "L";
          }
        }
        // a single point is drawn as a short line
        if (way.length === 1) way.push("h.1");
        curve.path = svg("path", { class: look(curve.slot), d: way.join(""), "stroke-linecap": "round" }, picture);
      }
      const needle = svg("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" }, picture);
      const stops = at("x").value === "epochs" ? [...new Set(xs)].sort((a, b) => a - b)
        : Array.from({ length: STEPS + 1 }, (_, place) => x0 + (x1 - x0) * place / STEPS);
      drawing = { curves, px, needle, stops, left, width: width - left - right, x0, x1, picture, whole: width };
    }
    for (const curve of curves) addLegend(curve);
    point(cursor);
  };
  const addLegend = (curve) => {
    const item = document.createElement("li"), swatch = svg("svg", { viewBox: "0 0 34 10", "aria-hidden": "true" }, item);
    svg("path", { class: look(curve.slot), d: "M1 5H33" }, swatch);
    const name = document.createElement("span"), value = document.createElement("b"), remove = document.createElement("button");
    name.textContent = data.runs[curve.run].name;
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove ${data.runs[curve.run].name}`);
    remove.addEventListener("click", () => {
      const place = [...at("legend").children].indexOf(item);
      choose(curve.run, false);
      draw();
      write();
      (at("legend").children[Math.min(place, chosen.length - 1)]?.querySelector("button") || at("y")).focus();
    });
    const stress = (on) => () => {
      for (const other of drawing?.curves || []) {
        other.path.classList.toggle("off", on && other !== curve);
        other.path.classList.toggle("on", on && other === curve);
      }
    };
    item.addEventListener("pointerenter", stress(true));
    item.addEventListener("pointerleave", stress(false));
    item.addEventListener("focusin", stress(true));
    item.addEventListener("focusout", stress(false));
    item.append(name, value, remove);
    at("legend").append(item);
    curve.value = value;
  };
  const nearest = (line, x) => {
    const known = line.filter(([, y]) => y !== null);
    if (!known.length || x < known[0][0] - 1e-9 || x > known[known.length - 1][0] + 1e-9) return null;
    return known.reduce((best, each) => Math.abs(each[0] - x) < Math.abs(best[0] - x) ? each : best)[1];
  };
  // Without a place, each curve says its last value.
  const point = (stop) => {
    const box = at("chart");
    at("where").textContent = "";
    box.setAttribute("aria-valuetext", "no curves");
    if (!drawing) return;
    const last = drawing.stops.length - 1;
    cursor = stop === null ? null : Math.max(0, Math.min(last, stop));
    const x = cursor === null ? null : drawing.stops[cursor];
    drawing.needle.setAttribute("visibility", x === null ? "hidden" : "visible");
    if (x !== null) for (const end of ["x1", "x2"]) drawing.needle.setAttribute(end, drawing.px(x));
    const said = [];
    for (const { line, value, run } of drawing.curves) {
      const known = line.filter(([, y]) => y !== null);
      value.textContent = text(x === null ? known[known.length - 1]?.[1] ?? null : nearest(line, x));
      said.push(`${data.runs[run].name}: ${value.textContent}`);
    }
    const unit = at("x").value === "epochs" ? "epoch" : "minute", where = x === null ? "at the end" : `${unit} ${text(x)}`;
    box.setAttribute("aria-valuemax", last);
    box.setAttribute("aria-valuenow", cursor === null ? last : cursor);
    box.setAttribute("aria-valuetext", `${where}: ${said.join("; ")}`);
    at("where").textContent = `${at("y").value} ${where}`;
  };

  // --- what a reader does

  rows.forEach((row, run) => {
    row.dataset.run = run;
    const cell = document.createElement("td"), box = document.createElement("input");
    cell.className = "pick";
    box.type = "checkbox";
    box.disabled = !hasCurves(run);
    box.setAttribute("aria-label", `curves of ${data.runs[run].name}`);
    box.addEventListener("change", () => {
      const fits = choose(run, box.checked);
      draw();
      if (!fits) at("hint").textContent = `At most ${MOST} curves are drawn.`;
      write();
    });
    cell.append(box);
    row.prepend(cell);
  });
  makeSortable(table);
  if (groups) makeSortable(groups);
  const corner = document.createElement("td");
  corner.className = "pick";
  table.tHead.rows[0].prepend(corner);
  const columns = Object.fromEntries(
    [...table.tHead.rows[0].cells].map((cell) => [cell.dataset.key, cell.cellIndex]),
  );
  for (const id of [...selects, "text", "y", "x"]) at(id).dataset.usual = at(id).value;
  for (const id of [...selects, "text"]) at(id).addEventListener("input", () => { filter(); write(); });
  for (const id of ["y", "x", "log"]) at(id).addEventListener("input", () => { cursor = null; draw(); write(); });
  at("add").addEventListener("click", () => chooseAll(shownRuns()));
  at("clear").addEventListener("click", () => { chosen.length = 0; cursor = null; draw(); write(); });
  at("chart").addEventListener("pointermove", (event) => {
    if (!drawing) return;
    const frame = drawing.picture.getBoundingClientRect();
    const x = drawing.x0 + ((event.clientX - frame.left) * drawing.whole / frame.width - drawing.left)
      / drawing.width * (drawing.x1 - drawing.x0);
    const { stops } = drawing;
    point(stops.reduce((best, each, place) => Math.abs(each - x) < Math.abs(stops[best] - x) ? place : best, 0));
  });
  at("chart").addEventListener("pointerleave", () => point(null));
  at("chart").addEventListener("keydown", (event) => {
    if (!drawing) return;
    const last = drawing.stops.length - 1, now = cursor ?? last, page = Math.max(1, Math.round(last / 10));
    const steps = { ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1, Home: 0, End: last,
      PageUp: now + page, PageDown: now - page };
    if (!(event.key in steps)) return;
    event.preventDefault();
    point(steps[event.key]);
  });
  window.addEventListener("hashchange", restore);
  at("filters").hidden = false;
  at("overlay").hidden = !data.series.length;
  restore();
  let width = at("chart").clientWidth;
  new ResizeObserver(() => {
    if (at("chart").clientWidth !== width) {
      width = at("chart").clientWidth;
      draw();
    }
  }).observe(at("chart"));
})();
