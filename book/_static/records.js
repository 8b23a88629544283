// Tables of records: sorted by a heading, cut down to what a reader looks for, and drawn.
// What draws (panel, picture, text, COLOURS) is that of the widgets.

const SHOWN = 8; // rows, before all are asked for
const GROUPS = 12; // with a colour and a form each

const spoken = (name) => name.replaceAll("_", " ");

// A value as it stands in a cell.
function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return value;
  return value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential(3) : String(Number(value.toPrecision(6)));
}

// Numbers by size, then words by letter, then empty cells, in either direction.
function sorted(rows, column, down) {
  const kind = (v) => (v === null ? 2 : typeof v === "number" || typeof v === "boolean" ? 0 : 1);
  const order = (a, b) =>
    kind(a) - kind(b) ||
    (down ? -1 : 1) * (kind(a) === 0 ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  return rows
    .map((row, place) => ({ row, place }))
    .sort((a, b) => order(a.row[column] ?? null, b.row[column] ?? null) || a.place - b.place)
    .map(({ row }) => row);
}

// Rows in which every word stands somewhere. A word with = is a cell: nu=10.
function found(columns, rows, words) {
  const tests = words.trim().toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [name, value] = word.split("=");
    const at = columns.findIndex((column) => column.toLowerCase() === name.replaceAll("_", " ") ||
      column.toLowerCase() === name);
    if (value !== undefined && at >= 0) return (row) => cell(row[at]).toLowerCase() === value;
    return (row) => row.some((v) => cell(v).toLowerCase().includes(word));
  });
  return rows.filter((row) => tests.every((test) => test(row)));
}

const safe = (words) => String(words).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const finite = (v) => typeof v === "number" && Number.isFinite(v);

// Columns that an axis can show: more than one number, and not more words than numbers.
function axes({ columns, rows }) {
  return columns.map((_, k) => k).filter((k) => {
    const values = rows.map((row) => row[k]).filter((v) => v !== null && v !== undefined);
    const numbers = values.filter(finite);
    return 2 * numbers.length >= values.length && new Set(numbers).size > 1;
  });
}

// Columns whose few values can be told apart by colour.
function kinds({ columns, rows }) {
  return columns.map((_, k) => k).filter((k) => {
    const values = new Set(rows.map((row) => cell(row[k])));
    return values.size > 1 && values.size <= GROUPS && rows.length > values.size;
  });
}

// An axis from the least to the largest value: round numbers, or powers of ten where the largest is
// a hundred times the least or more.
function axis(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (low > 0 && high >= 100 * low) {
    const [a, b] = [Math.floor(Math.log10(low) + 1e-9), Math.ceil(Math.log10(high) - 1e-9)];
    const every = Math.ceil((b - a) / 5);
    const ticks = Array.from({ length: Math.floor((b - a) / every) + 1 }, (_, k) => a + k * every);
    return { range: [a, b], ticks, name: (v) => cell(10 ** v), at: Math.log10 };
  }
  if (low === high) return { range: [low - 1, low + 1], ticks: [low], name: cell, at: (v) => v };
  const span = high - low;
  const raw = 10 ** Math.floor(Math.log10(span / 4));
  const unit = raw * [1, 2, 5, 10].find((m) => span / (m * raw) <= 5);
  const [a, b] = [Math.floor(low / unit + 1e-9), Math.ceil(high / unit - 1e-9)];
  const ticks = Array.from({ length: b - a + 1 }, (_, k) => Number(((a + k) * unit).toPrecision(12)));
  return { range: [ticks[0], ticks.at(-1)], ticks, name: cell, at: (v) => v };
}

const FORMS = [
  (x, y) => `<circle cx="${x}" cy="${y}" r="4"/>`,
  (x, y) => `<path d="M${x - 4} ${y - 4}h8v8h-8Z"/>`,
  (x, y) => `<path d="M${x} ${y - 5}l5 9h-10Z"/>`,
  (x, y) => `<path d="M${x} ${y - 5}l5 5l-5 5l-5 -5Z"/>`,
  (x, y) => `<path d="M${x - 4} ${y - 1.5}h8v3h-8Z"/>`,
  (x, y) => `<path d="M${x} ${y + 5}l5 -9h-10Z"/>`,
];

// One column against another, in a colour and a form for each value of a third (-1: none). Points
// whose x grows from row to row are joined.
function plot({ columns, rows }, x, y, kind) {
  const points = rows.filter((row) => finite(row[x]) && finite(row[y]));
  if (!points.length) return picture(60, text(20, 34, "No row has both."));
  const [h, v] = [axis(points.map((row) => row[x])), axis(points.map((row) => row[y]))];
  const frame = panel({
    left: 72, top: 30, width: 376, height: 220, x: h.range, y: v.range, xTicks: h.ticks, yTicks: v.ticks,
    xName: h.name, yName: v.name, xLabel: safe(spoken(columns[x])), title: safe(spoken(columns[y])),
  });
  const names = kind < 0 ? [""] : [...new Set(points.map((row) => cell(row[kind])))];
  const groups = names.map((name, k) => {
    const own = kind < 0 ? points : points.filter((row) => cell(row[kind]) === name);
    const [xs, ys] = [own.map((row) => h.at(row[x])), own.map((row) => v.at(row[y]))];
    const [colour, form] = [[...COLOURS, QUIET][k % 6], FORMS[(k + Math.floor(k / 6)) % 6]];
    const grows = xs.length > 2 && xs.every((value, i) => i === 0 || value > xs[i - 1]);
    const few = xs.length <= 60 || !grows;
    const at = xs.map((value, i) => [Number(frame.px(value).toFixed(1)), Number(frame.py(ys[i]).toFixed(1))]);
    const place = [80 + 190 * (k % 2), 312 + 20 * Math.floor(k / 2)];
    return [
      grows ? frame.line(xs, ys, colour) : "",
      `<g fill="${colour}">${few ? at.map(([a, b]) => form(a, b)).join("") : ""}`,
      kind < 0 ? "" : form(place[0], place[1] - 4),
      "</g>",
      kind < 0 ? "" : text(place[0] + 12, place[1], safe(name || "none")),
    ].join("");
  });
  const legend = kind < 0 ? 0 : 20 * Math.ceil(names.length / 2);
  return picture(296 + legend, frame.axes + groups.join(""));
}

// Elements of the page.

function make(tag, more = {}, ...children) {
  const element = Object.assign(document.createElement(tag), more);
  element.append(...children);
  return element;
}

function choice(label, columns, options, none) {
  const select = make("select");
  if (none) select.append(make("option", { value: -1, textContent: none }));
  for (const k of options) select.append(make("option", { value: k, textContent: spoken(columns[k]) }));
  return { select, label: make("label", {}, `${label} `, select) };
}

function drawing(data, visible) {
  const can = axes(data);
  if (can.length < 2 || data.rows.length < 3) return null;
  const [x, y] = [choice("across", data.columns, can), choice("up", data.columns, can)];
  const kind = choice("told apart by", data.columns, kinds(data), "nothing");
  const first = can.find((k) => data.columns[k] !== "seed");
  [x.select.value, y.select.value] = [first, can.find((k) => k > first) ?? can[0]];
  const told = kinds(data);
  kind.select.value = told.find((k) => typeof data.rows[0][k] === "string") ?? told[0] ?? -1;
  const figure = make("div", { className: "record-plot" });
  figure.setAttribute("role", "img");
  const redraw = () => {
    const rows = visible();
    const [a, b, c] = [x, y, kind].map(({ select }) => Number(select.value));
    figure.innerHTML = plot({ ...data, rows }, a, b, c);
    const [up, across] = [spoken(data.columns[b]), spoken(data.columns[a])];
    figure.setAttribute("aria-label", `${up} against ${across}, of ${rows.length} rows; the table has the numbers`);
  };
  const controls = make("div", { className: "record-controls" }, x.label, y.label, kind.label);
  const fold = make("details", { className: "record-drawn" }, make("summary", { textContent: "Plot" }), controls, figure);
  controls.onchange = redraw;
  fold.ontoggle = () => fold.open && redraw();
  return { fold, redraw: () => fold.open && redraw() };
}

function liven(element) {
  const data = JSON.parse(element.querySelector("script").textContent);
  const region = element.querySelector(".record-rows");
  const [body, heads] = [region.querySelector("tbody"), [...region.querySelectorAll("th")]];
  const state = { column: -1, down: false, words: "", all: false };
  const status = make("p", { className: "record-status" });
  status.setAttribute("aria-live", "polite");
  const search = make("input", { type: "search" });
  const more = make("button", { type: "button" });
  let rows = data.rows;
  const drawn = drawing(data, () => rows);

  const redraw = () => {
    rows = found(data.columns, data.rows, state.words);
    if (state.column >= 0) rows = sorted(rows, state.column, state.down);
    const shown = state.all ? rows : rows.slice(0, SHOWN);
    body.replaceChildren(
      ...shown.map((row) => make("tr", {}, ...row.map((v) => make("td", { textContent: cell(v) })))),
    );
    status.textContent = `${shown.length} of ${data.rows.length} rows`;
    more.hidden = rows.length <= SHOWN;
    more.textContent = state.all ? "Show fewer" : `Show all ${rows.length}`;
    drawn?.redraw();
  };
  heads.forEach((head, k) => {
    const button = make("button", { type: "button", textContent: head.textContent });
    button.onclick = () => {
      state.down = state.column === k && !state.down;
      state.column = k;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      redraw();
    };
    head.replaceChildren(button);
  });
  search.oninput = () => ((state.words = search.value), redraw());
  more.onclick = () => ((state.all = !state.all), redraw());
  region.nextElementSibling.matches("p:not([class])") && region.nextElementSibling.remove();
  if (data.rows.length > SHOWN)
    region.before(
      make("div", { className: "record-controls" }, make("label", {}, "Find rows ", search), status),
    );
  region.after(more, drawn ? drawn.fold : "");
  element.dataset.record = "";
  redraw();
}

function mountRecords(root) {
  root.querySelectorAll(".record-table:not([data-record])").forEach(liven);
}
