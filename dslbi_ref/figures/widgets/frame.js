// What all widgets share: bounds, the update of the method, drawing, and the element on the page.
// A widget is { alt, inputs, solve, draw, say }: `solve` takes the values but the time, `draw`
// returns an SVG and `say` a sentence, both of the values and of what was solved. If points can be
// dragged there is `drag`, too.

const COLOURS = ["#1B5FC4", "#E4570B", "#2AA18C", "#5B1A66", "#7F4A12"];
const [INK, QUIET, RULE] = ["#262626", "#595959", "#E3E3E3"];

const clip = (x, low, high) => Math.min(Math.max(x, low), high);

// Values within their bounds; what is no number becomes the value at first.
function bounded(inputs, values) {
  const within = ({ name, min, max, value }) => {
    const x = Number(values[name] ?? value);
    return [name, Number.isNaN(x) ? value : clip(x, min, max)];
  };
  return Object.fromEntries(inputs.map(within));
}

const shrink = (v, level) => Math.sign(v) * Math.max(Math.abs(v) - level, 0);

// Half of the safe step or less, and short enough to be drawn.
const stepSize = (kappa, nu) => Math.min(0.02, 0.2 / (kappa * (1 + 2 / nu)));

// One weight under the loss (W - want)^2 / 2, by the update of the book. It rests first, with
// Gamma = V = 0, for `rest` units of time, which are not counted.
function follow({ start, want, kappa, nu, lam, time, rest = 0 }) {
  const alpha = stepSize(kappa, nu);
  const path = { t: [], W: [], V: [], Gamma: [] };
  let [t, W, V] = [0, start, 0];
  for (let k = Math.round(rest / alpha); k > 0; k--) W = W - kappa * alpha * (W - want);
  for (let k = Math.round(time / alpha); k >= 0; k--) {
    const Gamma = kappa * shrink(V, lam);
    path.t.push(t), path.W.push(W), path.V.push(V), path.Gamma.push(Gamma);
    const r = (W - Gamma) / nu;
    W = W - kappa * alpha * (W - want) - kappa * alpha * r;
    V = V + alpha * r;
    t = t + alpha;
  }
  return path;
}

// The time at which a weight enters; Infinity if it does not.
function entry({ t, Gamma }) {
  const k = Gamma.findIndex((x) => x !== 0);
  return k < 0 ? Infinity : t[k];
}

// Drawing. No ids: two widgets on a page do not disturb each other.

const text = (x, y, words, more = "") =>
  `<text x="${x}" y="${y}" font-size="13" fill="${INK}" ${more}>${words}</text>`;

const middle = 'text-anchor="middle"';

function picture(height, body) {
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 480 ${height}" ` +
    `font-family="DejaVu Sans, sans-serif">` +
    `<rect width="480" height="${height}" fill="white"/>${body}</svg>`
  );
}

// Axes, and what turns values into places on them. A tick is called by xName or yName.
function panel({ left, top, width, height, x, y, xTicks, yTicks, xLabel, title, xName, yName }) {
  const px = (v) => left + ((v - x[0]) / (x[1] - x[0])) * width;
  const py = (v) => top + height - ((v - y[0]) / (y[1] - y[0])) * height;
  const rule = (x1, y1, x2, y2) =>
    `<path d="M${x1.toFixed(1)} ${y1.toFixed(1)}L${x2.toFixed(1)} ${y2.toFixed(1)}" ` +
    `stroke="${RULE}"/>`;
  const [right, low] = [left + width, top + height];
  const axes = [
    ...xTicks.map(
      (v) => rule(px(v), top, px(v), low) + text(px(v), low + 16, xName?.(v) ?? v, middle),
    ),
    ...yTicks.map(
      (v) =>
        rule(left, py(v), right, py(v)) +
        text(left - 6, py(v) + 4, yName?.(v) ?? v, 'text-anchor="end"'),
    ),
    `<path d="M${left} ${top}V${low}H${right}" fill="none" stroke="${QUIET}"/>`,
    text(left, top - 8, title),
    text(left + width / 2, low + 33, xLabel, middle),
  ];
  const inside = (body) =>
    `<svg x="${left}" y="${top}" width="${width}" height="${height}" ` +
    `viewBox="${left} ${top} ${width} ${height}">${body}</svg>`;
  const line = (xs, ys, colour, more = 'stroke-width="2"') => {
    const points = xs.map((v, k) => `${px(v).toFixed(1)} ${py(ys[k]).toFixed(1)}`);
    return inside(`<path d="M${points.join("L")}" fill="none" stroke="${colour}" ${more}/>`);
  };
  return { px, py, axes: axes.join(""), line, inside };
}

// About 200 of many points, the last among them.
function thinned(array) {
  const every = Math.ceil(array.length / 200);
  return array.filter((_, k) => k % every === 0 || k === array.length - 1);
}

// The element <dslbi-NAME>. Until it lives, and where scripts are off, it shows its picture.

const STYLE = `{display:block;max-width:40em;margin:1em 0}
TAG>img{display:block;width:100%}
TAG[data-live]>img{display:none}
TAG svg{display:block;width:100%;height:auto}
TAG label,TAG .time{display:grid;grid-template-columns:minmax(9em,2fr) 3fr 4em;gap:.8em;margin:.35em 0}
TAG label{align-items:center}
TAG .time{grid-template-columns:7em 1fr}
TAG .time label{margin:0;grid-template-columns:minmax(4em,1fr) 3fr 4em}
TAG input{width:100%;min-width:0}
TAG [data-drag]{cursor:ns-resize;touch-action:none}
TAG button{font:inherit;padding:.2em .8em;cursor:pointer}
TAG p{margin:.5em 0;min-height:3em}
@media print{TAG label,TAG .time{display:none}}`;

const digits = ({ step }) => Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
const shown = (input, x) => (input.log ? Number(x.toPrecision(2)) : x.toFixed(digits(input)));

function handle(input, values, changed) {
  const label = document.createElement("label");
  const [forward, back] = input.log ? [Math.log10, (x) => 10 ** x] : [(x) => x, (x) => x];
  // JupyterLab leaves the arrow keys to what suppresses its shortcuts.
  label.innerHTML =
    `<span>${input.label}</span>` +
    `<input type="range" min="${forward(input.min)}" max="${forward(input.max)}" ` +
    `step="${input.log ? 0.01 : input.step}" data-lm-suppress-shortcuts="true">` +
    `<span aria-hidden="true"></span>`;
  const [, range, value] = label.children;
  const show = () => {
    range.value = forward(values[input.name]);
    value.textContent = shown(input, values[input.name]);
    range.setAttribute("aria-valuetext", value.textContent);
  };
  range.oninput = () => {
    values[input.name] = clip(back(range.valueAsNumber), input.min, input.max);
    show();
    changed();
  };
  show();
  return { label, show };
}

// A button that lets the time run; for who wants no motion, a step of it with each press.
function player(input, values, moved, element) {
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const button = document.createElement("button");
  const span = input.max - input.min;
  let last = null;
  const name = () => (button.textContent = still.matches ? "Step" : last === null ? "Play" : "Pause");
  const advance = (by) => {
    values[input.name] = Math.min(values[input.name] + by, input.max);
    moved();
  };
  const frame = (now) => {
    if (last === null) return;
    advance(((now - last) / 10000) * span);
    last = values[input.name] < input.max && element.isConnected ? now : null;
    last === null ? name() : requestAnimationFrame(frame);
  };
  button.type = "button";
  button.onclick = () => {
    if (values[input.name] >= input.max) values[input.name] = input.min;
    if (still.matches) advance(span / 12);
    else if (last !== null) last = null;
    else requestAnimationFrame(((last = performance.now()), frame));
    name();
  };
  still.onchange = name;
  name();
  return button;
}

// A drawn point with data-drag takes the value of that name with it: widget.drag says which value
// belongs to a place of the picture. Who cannot drag has the slider.
function draggable(figure, widget, values, moved) {
  let held = null;
  figure.style.userSelect = "none"; // words that are selected would be dragged in its place
  figure.onpointerdown = (event) => {
    held = widget.inputs.find(({ name }) => name === event.target.dataset.drag) ?? null;
    if (held !== null) figure.setPointerCapture(event.pointerId);
  };
  figure.onpointermove = (event) => {
    if (held === null) return;
    const { left, top, width } = figure.firstElementChild.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top].map((v) => (v * 480) / width);
    const { name, min, max, step } = held;
    const nearest = Number((Math.round(widget.drag(x, y) / step) * step).toFixed(digits(held)));
    values[name] = clip(nearest, min, max);
    moved();
  };
  figure.onpointerup = figure.onpointercancel = () => (held = null);
}

// What a widget shows at some values, however it got there.
function scene(widget, values) {
  const within = bounded(widget.inputs, values);
  const solved = widget.solve(within);
  return { svg: widget.draw(within, solved), words: widget.say(within, solved) };
}

function fill(element, widget) {
  const values = bounded(widget.inputs, {});
  const [style, figure, words] = ["style", "div", "p"].map((tag) => document.createElement(tag));
  style.textContent = element.localName + STYLE.replaceAll("TAG", element.localName);
  figure.setAttribute("role", "img");
  figure.setAttribute("aria-label", widget.alt);
  words.setAttribute("aria-live", "polite");
  let [key, solved] = ["", null];
  const redraw = () => {
    const now = JSON.stringify({ ...values, time: 0 });
    if (now !== key) [key, solved] = [now, widget.solve(values)];
    figure.innerHTML = widget.draw(values, solved);
    const said = widget.say(values, solved);
    if (words.textContent !== said) words.textContent = said;
  };
  const shows = [];
  const controls = widget.inputs.map((input) => {
    const { label, show } = handle(input, values, redraw);
    shows.push(show);
    if (input.name !== "time") return label;
    const row = document.createElement("div");
    row.className = "time";
    row.append(player(input, values, () => (show(), redraw()), element), label);
    return row;
  });
  if (widget.drag) draggable(figure, widget, values, () => (shows.forEach((show) => show()), redraw()));
  element.append(style, figure, ...controls, words);
  element.dataset.live = "";
  redraw();
}

function mount(name, widget) {
  if (customElements.get(`dslbi-${name}`)) return;
  const Live = class extends HTMLElement {
    connectedCallback() {
      if (!("live" in this.dataset)) fill(this, widget);
    }
  };
  customElements.define(`dslbi-${name}`, Live);
}
