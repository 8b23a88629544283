// Which rows of D beta Split LBI selects, and when: twenty coefficients in blocks, twenty
// observations, and D with the differences above the entries.

const [COUNT, SPEED, REACH] = [20, 30, 8]; // coefficients, kappa, last time over that of the first entry
const BETA = Array.from({ length: COUNT }, (_, i) => (i > 2 && i < 7 ? 2 : i > 10 && i < 15 ? -2 : 0));
const ROWS = 2 * COUNT - 1;

const applyD = (b) => [...b.slice(1).map((x, i) => x - b[i]), ...b];

function applyDt(g) {
  const b = g.slice(COUNT - 1);
  for (let i = 0; i < COUNT - 1; i++) (b[i + 1] += g[i]), (b[i] -= g[i]);
  return b;
}

const TRUE = applyD(BETA).map((x) => x !== 0);

// Standard normal numbers, the same ones always.
function normals(count) {
  const [numbers, state] = [[], new Uint32Array([1])];
  const uniform = () => ((state[0] = Math.imul(1664525, state[0]) + 1013904223), (state[0] + 0.5) / 2 ** 32);
  while (numbers.length < count) {
    const [r, a] = [Math.sqrt(-2 * Math.log(uniform())), 2 * Math.PI * uniform()];
    numbers.push(r * Math.cos(a), r * Math.sin(a));
  }
  return numbers;
}

const NUMBERS = normals(COUNT * COUNT + COUNT);
const DESIGN = Array.from({ length: COUNT }, (_, i) => NUMBERS.slice(COUNT * i, COUNT * (i + 1)));
const NOISE = NUMBERS.slice(COUNT * COUNT);
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

// The inverse of a positive definite matrix, by elimination.
function inverse(matrix) {
  const size = matrix.length;
  const rows = matrix.map((row, i) => [...row, ...row.map((_, j) => (i === j ? 1 : 0))]);
  for (let k = 0; k < size; k++) {
    rows[k] = rows[k].map((x, _, row) => x / row[k]);
    for (let i = 0; i < size; i++) {
      const times = rows[i][k];
      if (i !== k) rows[i] = rows[i].map((x, j) => x - times * rows[k][j]);
    }
  }
  return rows.map((row) => row.slice(size));
}

// What is left of Split LBI without beta: dz = c - H gamma.
function quadratic(nu, noise) {
  const columns = DESIGN.map((_, j) => DESIGN.map((row) => row[j]));
  const y = DESIGN.map((row, i) => dot(row, BETA) + noise * NOISE[i]);
  const unit = (j) => Array.from({ length: COUNT }, (_, i) => (i === j ? 1 : 0));
  const A = columns.map((a, i) => {
    const square = applyDt(applyD(unit(i)));
    return columns.map((b, j) => (nu * dot(a, b)) / COUNT + square[j]);
  });
  const back = inverse(A);
  const c = applyD(back.map((row) => dot(row, columns.map((a) => dot(a, y) / COUNT))));
  const H = Array.from({ length: ROWS }, (_, k) => {
    const e = Array.from({ length: ROWS }, (_, i) => (i === k ? 1 : 0));
    const reached = applyD(back.map((row) => dot(row, applyDt(e))));
    return reached.map((x, i) => (e[i] - x) / nu);
  });
  return { H, c };
}

// The reduced iteration of the book; of each row the times at which it came and went.
function select(nu, noise) {
  const { H, c } = quadratic(nu, noise);
  const first = 1 / Math.max(...c.map(Math.abs));
  const alpha = Math.min(nu / SPEED, first / 100);
  const [z, gamma] = [Float64Array.from(c, (x) => first * x), new Float64Array(ROWS)];
  const spans = c.map(() => []);
  const steps = Math.ceil(((REACH - 1) * first) / alpha);
  for (let k = 1; k <= steps; k++) {
    for (let i = 0; i < ROWS; i++) z[i] += alpha * c[i];
    for (let j = 0; j < ROWS; j++) {
      if (gamma[j] === 0) continue;
      for (let i = 0; i < ROWS; i++) z[i] -= alpha * H[j][i] * gamma[j]; // H is symmetric
    }
    const time = 1 + (k * alpha) / first;
    for (let i = 0; i < ROWS; i++) {
      const before = gamma[i] !== 0;
      gamma[i] = SPEED * shrink(z[i], 1);
      if (gamma[i] !== 0 && !before) spans[i].push([time, Infinity]);
      if (gamma[i] === 0 && before) spans[i].at(-1)[1] = time;
    }
  }
  return { first, alpha, steps, z: [...z], gamma: [...gamma], spans };
}

const inside = (spans, time) => spans.some(([from, to]) => from <= time && time < to);

// How many rows are in at a time, of the true ones or of the others.
const count = (spans, kind, time) => spans.filter((s, i) => TRUE[i] === kind && inside(s, time)).length;

const selection = {
  alt:
    "Above, a line for each row of D beta against time: it is drawn while the row is selected, blue " +
    "for the twelve rows that are truly not zero, orange for the twenty-seven others. Below, the " +
    "number of true and of false rows that are selected.",
  inputs: [
    { name: "time", label: "time", min: 0, max: REACH, step: 0.05, value: 3 },
    { name: "nu", label: "ν, how slack the springs are", min: 0.02, max: 1000, log: true, value: 3 },
    { name: "noise", label: "σ, the noise", min: 0, max: 2, step: 0.1, value: 1 },
  ],

  solve({ nu, noise }) {
    return select(nu, noise);
  },

  draw({ time }, { spans }) {
    const axes = { left: 60, width: 405, x: [0, REACH], xTicks: [0, 1, 2, 3, 4, 5, 6, 7, 8] };
    const above = panel({ ...axes, top: 28, height: 200, y: [0, ROWS + 1], yTicks: [],
      xLabel: "", title: "rows that are selected" });
    const below = panel({ ...axes, top: 272, height: 90, y: [0, 28], yTicks: [0, 12, 27],
      xLabel: "time over that of the first entry", title: "how many" });
    const order = [true, false].flatMap((kind) => spans.flatMap((_, i) => (TRUE[i] === kind ? [i] : [])));
    const bars = order.flatMap((i, place) =>
      spans[i].filter(([from]) => from <= time).map(([from, to]) => {
        const [a, b, y] = [above.px(from), above.px(Math.min(to, time)), above.py(ROWS - place)];
        return (
          `<path d="M${a.toFixed(1)} ${y.toFixed(1)}H${Math.max(b, a + 1.5).toFixed(1)}" ` +
          `stroke="${COLOURS[TRUE[i] ? 0 : 1]}" stroke-width="3.4"/>`
        );
      }),
    );
    const curves = [true, false].map((kind, k) => {
      const changes = spans.flatMap((s, i) => (TRUE[i] === kind ? s.flat() : [])).filter((t) => t <= time);
      const moments = [0, ...changes.sort((a, b) => a - b), time];
      const [xs, ys] = [[], []];
      moments.forEach((t, j) => {
        if (j) xs.push(t), ys.push(ys.at(-1));
        xs.push(t), ys.push(count(spans, kind, t));
      });
      return below.line(xs, ys, COLOURS[k]);
    });
    const now = [[above, ROWS + 1], [below, 28]].map(([part, top]) =>
      part.line([time, time], [0, top], QUIET, 'stroke-dasharray="4 3"'),
    );
    const words = text(54, 64, "true", 'text-anchor="end"') + text(54, 160, "false", 'text-anchor="end"');
    return picture(402, above.axes + below.axes + words + bars.join("") + curves.join("") + now.join(""));
  },

  say({ time }, { spans }) {
    const entry = (s) => (s.length ? s[0][0] : Infinity);
    const last = Math.max(...spans.filter((_, i) => TRUE[i]).map(entry));
    const early = spans.filter((s, i) => !TRUE[i] && entry(s) < last).length;
    const run = Number.isFinite(last)
      ? `${early} false rows enter before the last true one, which comes at ${last.toFixed(1)}`
      : `not every true row enters`;
    return (
      `Selected now: ${count(spans, true, time)} of 12 true rows, ${count(spans, false, time)} of 27 ` +
      `false ones. In this run ${run}.`
    );
  },
};
