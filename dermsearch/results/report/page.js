"use strict";
// Everything of a study is put in as text: nothing here makes HTML from words.
const $ = (id) => document.getElementById(id);
const DATA = JSON.parse($("data").textContent), RUN = JSON.parse($("run").textContent);
const kept = { // what a reader chose; a browser that keeps nothing for files forgets it
  get(name, other) { try { return JSON.parse(sessionStorage.getItem(location.pathname + name)) ?? other; } catch { return other; } },
  set(name, value) { try { sessionStorage.setItem(location.pathname + name, JSON.stringify(value)); } catch { /* so be it */ } },
};

function el(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else if (name === "style") Object.assign(made.style, value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside.filter((part) => part !== null && part !== undefined));
  return made;
}

// ---- theme: as the system has it, unless the reader chose
const THEMES = ["system", "light", "dark"], system = matchMedia("(prefers-color-scheme: dark)");
let theme = kept.get("theme", "system");
function showTheme() {
  document.documentElement.dataset.theme = theme === "system" ? (system.matches ? "dark" : "light") : theme;
  $("theme").textContent = `Theme: ${theme}`;
}
$("theme").addEventListener("click", () => { theme = THEMES[(THEMES.indexOf(theme) + 1) % 3]; kept.set("theme", theme); showTheme(); });
system.addEventListener("change", showTheme);
showTheme();

// ---- pictures: one after another when the browser has time, in colours that follow the theme by themselves
const words = { labelColor: "var(--quiet)", titleColor: "var(--ink)", labelFontSize: 11, titleFontSize: 11.5, titleFontWeight: 400 };
const CONFIG = {
  background: "transparent", font: "system-ui, sans-serif", view: { stroke: null },
  axis: { ...words, gridColor: "var(--line)", domainColor: "var(--grey)", tickColor: "var(--grey)", labelPadding: 4, titlePadding: 8 },
  axisY: { domain: false, ticks: false }, legend: { ...words, symbolSize: 70, labelLimit: 420, columnPadding: 16 },
  header: { labelColor: "var(--ink)", labelFontSize: 12 }, mark: { tooltip: null }, rule: { color: "var(--grey)" },
};
const local = (date) => new Date(date - 60000 * date.getTimezoneOffset()).toISOString().slice(0, 19).replace("T", " ");
const OPTIONS = { actions: false, renderer: "svg", mode: "vega-lite" };
function ofCurves() { // a row per epoch of every stage
  return Object.entries(DATA.curves).flatMap(([stage, rows]) => rows.map((row) => ({ stage, ...DATA.about[stage], ...Object.fromEntries(DATA.columns.map((c, i) => [c, row[i]])) })));
}
const APART = 75; // from panel to panel, for the numbers of an axis
async function draw(place, chart) {
  if (chart.data?.name === "curves") chart = { ...chart, data: { values: ofCurves() } };
  const panel = chart.spec ?? chart.concat?.[0]; // panels beside one another, as many as there is room for
  if (panel) chart = { ...chart, columns: Math.min(3, Math.max(1, Math.floor(place.clientWidth / (panel.width + APART)))) };
  const { view } = await vegaEmbed(place, chart, { ...OPTIONS, config: { ...CONFIG, legend: { ...CONFIG.legend, columns: place.clientWidth < 640 ? 1 : 3 } } });
  view.addEventListener("click", (event, item) => {
    const datum = item && item.datum && (item.datum.datum || item.datum);
    if (!datum) return;
    if (datum.id !== undefined) open(datum.id);
    else { const key = datum.stage || (Array.isArray(item.items) && item.items[0]?.datum?.stage); if (key in BY_STAGE) open(BY_STAGE[key]); }
  });
  place.setAttribute("role", "img");
  place.dataset.drawn = "yes";
}
const idle = window.requestIdleCallback ?? ((act) => setTimeout(act, 1));
async function drawAll() {
  for (const [id, chart] of Object.entries(DATA.charts)) {
    await new Promise((go) => idle(go, { timeout: 300 }));
    if ($(id)) try { await draw($(id), chart); } catch (error) { console.error(id, error); }
  }
  document.documentElement.dataset.drawn = "yes";
}

// ---- the colours of scores, as in the PNG of the tree: cividis
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
function shade(score, [low, high]) {
  const at = Math.max(0, Math.min(1, (score - low) / Math.max(high - low, 1))) * (CIVIDIS.length - 1), i = Math.min(Math.floor(at), CIVIDIS.length - 2);
  const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)), [a, b] = [rgb(CIVIDIS[i]), rgb(CIVIDIS[i + 1])];
  return `rgb(${a.map((v, k) => Math.round(v + (b[k] - v) * (at - i))).join(",")})`;
}

// ---- an interval on its axis, in a line of a table
const percentAt = (value, [low, high]) => `${(100 * (value - low)) / Math.max(high - low, 1e-9)}%`;
function range(axis, score, low, high, none) {
  if (score === null || score === undefined) return "";
  const parts = [];
  if (none !== null && none !== undefined) parts.push(el("u", { style: { left: percentAt(none, axis) } }));
  if (low !== null && high !== null) parts.push(el("i", { style: { left: percentAt(low, axis), right: `calc(100% - ${percentAt(high, axis)})` } }));
  return el("span", { class: "range", "aria-hidden": "true" }, ...parts, el("b", { style: { left: percentAt(score, axis) } }));
}
const scale = (axis) => el("span", { class: "scale", "aria-hidden": "true" }, el("span", {}, axis[0].toFixed(0)), el("span", {}, axis[1].toFixed(0)));
function clock(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const s = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  return s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}` : `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

// ---- the stage tree
const TREE = DATA.tree, NODES = TREE ? TREE.nodes : [], BY_STAGE = {}, CHILDREN = new Map();
for (const node of NODES) {
  for (const stage of node.stages) BY_STAGE[stage.key] = node.id;
  CHILDREN.set(node.parent ?? null, [...(CHILDREN.get(node.parent ?? null) ?? []), node]);
}
const BY_ID = new Map(NODES.map((node) => [node.id, node]));
const folded = new Set(kept.get("folded", []));
function inOrder(parent = null, depth = 0, out = []) {
  for (const node of CHILDREN.get(parent) ?? []) { out.push([node, depth]); inOrder(node.id, depth + 1, out); }
  return out;
}
let zoom = BY_ID.get(kept.get("zoom", null)) ?? null; // a stage that alone is shown, with what leads to it and follows
function zoomTo(node) { zoom = node; kept.set("zoom", node ? node.id : null); drawTree(); }
function around(node) {
  const path = [];
  for (let at = node; at; at = BY_ID.get(at.parent)) path.unshift(at);
  return [...path.map((each, depth) => [each, depth]), ...inOrder(node.id, path.length)];
}
function hidden(node) {
  for (let at = BY_ID.get(node.parent); at; at = BY_ID.get(at.parent)) if (folded.has(at.id)) return true;
  return false;
}
function drawTree() {
  if (!TREE) return;
  const ordered = zoom ? around(zoom) : inOrder(), scores = NODES.map((n) => n.score).filter((s) => s !== null), span = [Math.min(...scores), Math.max(...scores)];
  const none = NODES.find((n) => n.status === "root" && n.score !== null)?.score;
  const ends = ordered.flatMap(([n]) => [n.score, n.low, n.high]).filter((v) => v !== null), axis = zoom && ends.length ? [Math.min(...ends), Math.max(...ends)] : TREE.axis;
  const head = el("tr", {}, ...TREE.heads.map((name, i) => el("th", { scope: "col", class: i > 1 && i < 5 ? "num" : null }, i === 1 ? scale(axis) : name)));
  const body = el("tbody"), lines = new Map();
  for (const [node, depth] of ordered) {
    const under = CHILDREN.has(node.id), said = node.status === "root" ? "" : node.status === "done" ? (node.reused ? "reused" : "") : node.status;
    const fold = under ? el("button", { class: "fold", type: "button", tabindex: "-1", "aria-label": "fold", on: { click: (e) => { e.stopPropagation(); toggle(node); } } }) : el("span", { class: "fold" });
    const chip = el("span", { class: "chip", style: node.score === null ? {} : { background: shade(node.score, span) } });
    const tells = [node.name, node.text && `${node.text} %`, node.seconds !== null && `${clock(node.seconds)} of training`, node.error || node.status, ...node.settings.slice(0, 14).map(([n, v]) => `${n} = ${v}`)];
    const line = el("tr", { tabindex: "-1", role: "row", "aria-level": depth + 1, "data-id": node.id, title: tells.filter(Boolean).join("\n"), class: ["failed", "dropped", "pruned"].includes(node.status) ? "lost" : node.status === "root" ? "none" : null, on: { click: () => open(node.id) } },
      el("td", { style: { paddingLeft: `${1.15 * depth}em`, whiteSpace: "nowrap" } }, fold, chip, node.task), el("td", {}, range(axis, node.score, node.low, node.high, none)),
      el("td", { class: "num" }, node.text), el("td", { class: "num" }, node.gap), el("td", { class: "num" }, clock(node.seconds)), el("td", {}, said));
    lines.set(node.id, line); body.append(line);
  }
  const update = () => {
    for (const [node] of ordered) {
      const line = lines.get(node.id), under = CHILDREN.has(node.id);
      line.hidden = hidden(node);
      if (under) { line.setAttribute("aria-expanded", String(!folded.has(node.id))); line.querySelector(".fold").textContent = folded.has(node.id) ? "▸" : "▾"; }
    }
    const seen = ordered.filter(([node]) => !hidden(node)).map(([node]) => lines.get(node.id));
    if (!seen.some((line) => line.tabIndex === 0) && seen.length) seen[0].tabIndex = 0;
    kept.set("folded", [...folded]);
  };
  const toggle = (node, to = !folded.has(node.id)) => { if (to) folded.add(node.id); else folded.delete(node.id); update(); };
  body.addEventListener("keydown", (e) => {
    const line = e.target.closest("tr"), node = line && BY_ID.get(Number(line.dataset.id));
    if (!node) return;
    const seen = [...body.rows].filter((row) => !row.hidden), at = seen.indexOf(line);
    const go = (row) => { if (row) { line.tabIndex = -1; row.tabIndex = 0; row.focus(); } };
    const act = { ArrowDown: () => go(seen[at + 1]), ArrowUp: () => go(seen[at - 1]), Home: () => go(seen[0]), End: () => go(seen.at(-1)), Enter: () => open(node.id), z: () => CHILDREN.has(node.id) && zoomTo(node), Escape: () => zoom && zoomTo(null),
      ArrowRight: () => folded.has(node.id) ? toggle(node, false) : CHILDREN.has(node.id) && go(seen[at + 1]),
      ArrowLeft: () => CHILDREN.has(node.id) && !folded.has(node.id) ? toggle(node, true) : go(lines.get(node.parent)) }[e.key];
    if (act) { e.preventDefault(); act(); }
  });
  const tools = $("tree-tools");
  tools.replaceChildren();
  const deepest = Math.max(0, ...ordered.map(([, depth]) => depth));
  if (deepest > 1) {
    const buttons = Array.from({ length: deepest }, (_, i) => el("button", { type: "button", on: { click: () => { folded.clear(); for (const [node, depth] of ordered) if (depth >= i + 1 && CHILDREN.has(node.id)) folded.add(node.id); update(); } } }, i + 1 === deepest ? "all" : String(i + 1)));
    tools.append(el("span", { class: "quiet" }, "Show tasks up to length"), ...buttons);
  }
  if (zoom) tools.append(el("span", { class: "quiet" }, `Only what goes through ${zoom.name}`), el("button", { type: "button", id: "whole-tree", on: { click: () => zoomTo(null) } }, "Whole tree"));
  if (NODES.length > 120 && kept.get("folded", null) === null) for (const [node, depth] of ordered) if (depth >= 2 && CHILDREN.has(node.id)) folded.add(node.id);
  if (NODES.length) $("tree-table").replaceChildren(el("table", { role: "treegrid", "aria-label": "Stage tree" }, el("thead", {}, head), body));
  update();
}

// ---- what is behind a stage
const FEW = 8; // scores that are seen at once
function open(id) {
  const node = BY_ID.get(id), behind = $("behind");
  if (!node) return;
  const scores = [];
  for (const board of DATA.boards?.all ?? []) for (const row of board.rows) if (row[0] === id && row[8]) scores.push([board.judge, board.metric, board.label, row[8], row[9]]);
  const lines = (heads, rows, words = 1) => el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h, i) => el("th", { class: i >= words ? "num" : null }, h)))), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) => el("td", { class: i >= words ? "num" : null }, cell ?? "")))))));
  const known = node.stages.filter((s) => s.key), done = known.find((s) => s.status === "done");
  const alone = () => { $("details").close(); zoomTo(node); };
  const parts = [el("h2", {}, node.name), node.error ? el("p", { class: "caution" }, node.error) : null,
    node.parent !== null && CHILDREN.has(id) ? el("p", {}, el("button", { type: "button", id: "zoom", on: { click: alone } }, "Show it alone in the tree, with what follows")) : null];
  const curves = known.filter((s) => DATA.curves?.[s.key]);
  const place = el("div", { class: "chart" });
  if (curves.length) parts.push(el("h3", {}, "Learning"), place);
  if (known.length) parts.push(el("h3", {}, "Seeds"), lines(["key", "device", "seed", "epochs", "time", "status"], known.map((s) => [s.key, [s.device, s.node].filter(Boolean).join(" on "), String(s.seed), s.epochs === null ? "" : String(s.epochs), clock(s.seconds), s.error || s.status]), 2));
  if (node.settings.length) parts.push(el("h3", {}, "Settings of its last task"), lines(["", ""], node.settings, 2));
  const heads = ["judge", "metric", "label", "score [95 %]", "Δ no pre-training"];
  if (scores.length) parts.splice(3, 0, el("h3", {}, "Scores on validation, %"), lines(heads, scores.slice(0, FEW), 3),
    scores.length > FEW ? el("details", {}, el("summary", {}, `${scores.length - FEW} more scores`), lines(heads, scores.slice(FEW), 3)) : null);
  if (done) parts.push(el("h3", {}, "Load its encoder"), el("pre", {}, `dermsearch export ${RUN.folder ?? "DIR"} --stage ${done.key} -o encoder\n\n# then, without dermsearch:\nimport timm\n${DATA.tree.encoders.map((folder) => `${folder.split("/")[1] ?? "model"} = timm.create_model("local-dir:${folder}", pretrained=True)`).join("\n")}`));
  behind.replaceChildren(...parts.filter(Boolean));
  if (!$("details").open) $("details").showModal();
  $("details").scrollTop = 0;
  if (curves.length) draw(place, learning(curves));
}
function learning(stages) {
  const columns = DATA.columns, what = [["loss", "loss"], ["embedding_std", "spread of embeddings"], ["effective_rank", "effective rank"]];
  const values = stages.flatMap((s) => DATA.curves[s.key].map((row) => ({ seed: `seed ${s.seed}`, ...Object.fromEntries(columns.map((c, i) => [c, row[i]])) })));
  const panel = ([field, title]) => ({ width: 200, height: 130, mark: { type: "line", point: stages.length < 4 }, encoding: { x: { field: "epoch", type: "quantitative", axis: { tickMinStep: 1 } }, y: { field, type: "quantitative", title, scale: { zero: false } },
    color: { field: "seed", type: "nominal", legend: stages.length > 1 ? { title: null, orient: "bottom" } : null, scale: { range: ["var(--blue)", "var(--vermilion)", "var(--green)", "var(--purple)", "var(--orange)", "var(--grey)"] } }, tooltip: [{ field: "seed" }, { field: "epoch" }, { field, title }] } });
  return { data: { values }, concat: what.filter(([field]) => values.some((v) => v[field] !== null)).map(panel) };
}
$("close").addEventListener("click", () => $("details").close());
$("details").addEventListener("click", (e) => { if (e.target === $("details")) $("details").close(); });

// ---- the leaderboard: of a row the first five cells are to draw by, the others are as they are printed
const MANY = 50; // lines that are seen at once
function drawBoard() {
  const boards = DATA.boards;
  if (!boards || !$("board-table")) return;
  if (!boards.all.length) { $("board-table").append(el("p", { class: "quiet" }, "Nothing has been scored yet.")); return; }
  const state = kept.get("board", { judge: boards.all[0].judge, metric: boards.all[0].metric, label: boards.all[0].label, filter: "", by: null, down: false });
  const menu = (name, of) => { const values = [...new Set(of.map((b) => b[name]))]; if (!values.includes(state[name])) state[name] = values[0];
    return el("label", {}, `${name} `, el("select", { id: `board-${name}`, on: { change: (e) => { state[name] = e.target.value; show(true); } } }, ...values.map((v) => el("option", { value: v, selected: v === state[name] }, v)))); };
  const input = el("input", { type: "search", id: "board-filter", placeholder: "task, or status", value: state.filter, on: { input: (e) => { state.filter = e.target.value; show(); } } });
  const count = el("span", { class: "quiet" });
  function show(menus = false) {
    const judged = boards.all.filter((b) => b.judge === state.judge), measured = judged.filter((b) => b.metric === state.metric);
    if (menus) { // metrics are those of this judge, labels those of this metric
      const tools = [menu("judge", boards.all), menu("metric", boards.all.filter((b) => b.judge === state.judge)), menu("label", boards.all.filter((b) => b.judge === state.judge && b.metric === state.metric))];
      $("board-tools").replaceChildren(...tools, el("label", {}, "filter ", input), count);
    }
    const board = boards.all.find((b) => b.judge === state.judge && b.metric === state.metric && b.label === state.label) ?? measured[0] ?? judged[0] ?? boards.all[0];
    const ends = board.rows.flatMap((r) => [r[2], r[3], r[4]]).filter((v) => v !== null), axis = [Math.min(...ends), Math.max(...ends)];
    const none = board.rows.find((r) => r[6] === "no pre-training")?.[2];
    const value = (row) => { const text = row[5 + state.by].replace("=", ""); const n = parseFloat(text.replace("−", "-")); return state.by === 1 || state.by === 2 ? text : Number.isNaN(n) ? null : n; };
    let rows = board.rows.filter((r) => `${r[6]} ${r[1]}`.toLowerCase().includes(state.filter.trim().toLowerCase()));
    if (state.by !== null) rows = [...rows].sort((a, b) => { const [x, y] = [value(a), value(b)]; if (x === null || y === null) return (x === null) - (y === null); return (x < y ? -1 : x > y ? 1 : 0) * (state.down ? -1 : 1); });
    const matching = rows.length, cut = !state.all && rows.length > MANY + 10;
    if (cut) rows = rows.filter((r, i) => i < MANY || r[5] === "–" && r[2] !== null);
    const sort = (i) => { if (state.by === i && state.down === (i > 2)) state.down = !state.down; else if (state.by === i) state.by = null; else { state.by = i; state.down = i > 2; } show(); };
    const heads = boards.heads.map((name, i) => el("th", { scope: "col", class: i > 2 ? "num" : null, "aria-sort": state.by === i ? (state.down ? "descending" : "ascending") : null }, el("button", { type: "button", "data-sort": i, on: { click: () => sort(i) } }, name)));
    heads.splice(3, 0, el("th", { "aria-hidden": "true" }, ends.length ? scale(axis) : ""));
    const lines = rows.map((r) => {
      const cells = r.slice(5).map((cell, i) => { const [first, ...more] = cell.split("\n"); return el("td", { class: i > 2 ? "num" : null }, first, ...more.map((m) => el("div", { class: "quiet" }, m))); });
      cells.splice(3, 0, el("td", {}, range(axis, r[2], r[3], r[4], none)));
      return el("tr", { tabindex: "0", "data-id": r[0], class: r[2] === null ? "lost" : r[5] === "–" ? "none" : null, on: { click: () => open(r[0]), keydown: (e) => { if (e.key === "Enter") open(r[0]); } } }, ...cells);
    });
    $("board-table").replaceChildren(el("table", { "aria-label": "Leaderboard" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...lines)));
    $("board-notes").replaceChildren(...board.notes.map((note) => el("p", { class: "quiet" }, note)));
    if (cut) $("board-table").append(el("p", {}, el("button", { type: "button", on: { click: () => { state.all = true; show(); } } }, `Show all ${matching}`)));
    count.textContent = matching < board.rows.length ? `${matching} of ${board.rows.length}` : "";
    kept.set("board", state);
  }
  show(true);
}

// ---- confusion matrices
function drawConfusions() {
  const all = DATA.confusions;
  if (!all || !$("confusion-table")) return;
  const state = kept.get("confusion", { name: all[0].name, label: all[0].label });
  const menu = (name) => el("label", {}, name === "name" ? "curriculum " : "label ", el("select", { id: `confusion-${name}`, on: { change: (e) => { state[name] = e.target.value; show(); } } }, ...[...new Set(all.map((m) => m[name]))].map((v) => el("option", { value: v, selected: v === state[name] }, v))));
  $("confusion-tools").append(menu("name"), menu("label"));
  function show() {
    const m = all.find((each) => each.name === state.name && each.label === state.label) ?? all[0];
    const rows = m.counts.map((counts, i) => {
      const sum = counts.reduce((a, b) => a + b, 0);
      return el("tr", {}, el("th", { scope: "row" }, m.classes[i]), ...counts.map((n) => el("td", { title: `${n} of ${sum}`, style: { background: `color-mix(in srgb, var(--accent) ${sum ? Math.round((70 * n) / sum) : 0}%, transparent)` } }, sum ? ((100 * n) / sum).toFixed(0) : "–")), el("td", { class: "quiet" }, `n = ${sum.toLocaleString("en")}`));
    });
    $("confusion-table").replaceChildren(el("table", { class: "matrix", style: { width: "auto" } }, el("thead", {}, el("tr", {}, el("th", {}), ...m.classes.map((c) => el("th", { scope: "col" }, c)), el("th", {}))), el("tbody", {}, ...rows)));
    kept.set("confusion", state);
  }
  show();
}

// ---- a run under way: the page renews itself; a file that nobody renews is of a run that is no longer alive
const LATE = 60, AGAIN = 6000;
function showState() {
  const place = $("state"), when = new Date(1000 * RUN.written), age = Date.now() / 1000 - RUN.written;
  const ago = age < 90 ? `${Math.max(0, Math.round(age))} s ago` : local(when);
  place.className = "state";
  if (!RUN.alive) place.textContent = `${RUN.said ? `${RUN.said} ` : ""}Written ${local(when)}.`;
  else if (age > LATE) { place.classList.add("dead"); place.textContent = `The run is no longer alive: it last wrote ${local(when)}. The same command continues it.`; }
  else { place.classList.add("alive"); place.textContent = `Running: ${RUN.said} Written ${ago}.`; }
}
let touched = 0;
for (const event of ["keydown", "pointerdown", "wheel"]) addEventListener(event, () => { touched = Date.now(); }, { passive: true });
showState();
if (RUN.alive) {
  setInterval(showState, 1000);
  setInterval(() => { if (Date.now() - touched > 4000 && !$("details").open) { kept.set("scroll", scrollY); location.reload(); } }, AGAIN);
}

for (const button of document.querySelectorAll("[data-copies]")) button.addEventListener("click", async () => {
  const text = $(button.dataset.copies).textContent;
  try { await navigator.clipboard.writeText(text); } catch { // no clipboard for files in some browsers
    const range_ = document.createRange(); range_.selectNodeContents($(button.dataset.copies)); getSelection().removeAllRanges(); getSelection().addRange(range_); document.execCommand("copy");
  }
  button.textContent = "Copied";
});
addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details")) d.open = true; });
drawTree(); drawBoard(); drawConfusions();
if (RUN.alive && kept.get("scroll", 0)) scrollTo(0, kept.get("scroll", 0));
drawAll();
