// The inverse scale space of an orthogonal design: four correlations, and when each enters.

const entries = {
  alt:
    "Two panels against time. Left, four dual variables run from zero in straight lines, each with " +
    "its correlation as slope, and rest where they meet plus or minus one. Right, each coefficient " +
    "is zero until its dual variable arrives and jumps to the correlation then; the dashed lasso " +
    "leaves zero at the same moment and creeps. A ring at the end of each coefficient can be dragged.",
  inputs: [2, -1.25, 0.8, 0.3].map((value, j) => ({
    name: `c${j + 1}`, label: `correlation c${"₁₂₃₄"[j]}`, min: -2, max: 2, step: 0.05, value,
  })),

  solve(values) {
    const c = [values.c1, values.c2, values.c3, values.c4];
    return {
      c,
      entry: c.map((x) => 1 / Math.abs(x)),
      rho: (t) => c.map((x) => clip(t * x, -1, 1)),
      gamma: (t) => c.map((x) => (Math.abs(x) * t >= 1 ? x : 0)),
      lasso: (t) => c.map((x) => shrink(x, 1 / t)),
    };
  },

  draw(values, { c, entry, lasso }) {
    const frame = { top: 30, height: 190, width: 185, xLabel: "time t" };
    const axes = { x: [0, 5], xTicks: [0, 1, 2, 3, 4, 5] };
    const left = panel({ ...frame, ...axes, left: 40, y: [-1.15, 1.15], yTicks: [-1, 0, 1],
      title: "dual variables ρ" });
    const right = panel({ ...frame, ...axes, left: 280, y: [-2.1, 2.1], yTicks: [-2, -1, 0, 1, 2],
      title: "coefficients γ" });
    const times = Array.from({ length: 101 }, (_, k) => 0.05 * k + 1e-9);
    const curves = c.map((x, j) => {
      const [t, border] = [Math.min(entry[j], 5), Math.sign(x)];
      const end = Number.isFinite(entry[j]) ? t * x : 0;
      const arrives = entry[j] <= 5;
      return [
        left.line([0, t, 5], [0, end, arrives ? border : end], COLOURS[j]),
        right.line(times, times.map((s) => lasso(s)[j]), COLOURS[j], 'stroke-dasharray="4 3"'),
        right.line([0, t, t, 5], [0, 0, arrives ? x : 0, arrives ? x : 0], COLOURS[j]),
        arrives
          ? `<circle cx="${left.px(t).toFixed(1)}" cy="${left.py(border).toFixed(1)}" r="4" ` +
            `fill="${COLOURS[j]}"/>`
          : "",
        `<circle cx="${right.px(5)}" cy="${right.py(x).toFixed(1)}" r="7" fill="white" ` +
          `stroke="${COLOURS[j]}" stroke-width="3" data-drag="c${j + 1}"/>`,
      ].join("");
    });
    return picture(262, left.axes + right.axes + curves.join(""));
  },

  // The correlation whose ring stands at this height.
  drag: (_, y) => 2.1 - (4.2 * (y - 30)) / 190,

  say(values, { entry }) {
    const order = [0, 1, 2, 3].sort((i, j) => entry[i] - entry[j]);
    const words = order.map((j) =>
      Number.isFinite(entry[j]) ? `c${j + 1} at ${entry[j].toFixed(2)}` : `c${j + 1} never`,
    );
    return `Entry times: ${words.join(", ")}. Solid: inverse scale space. Dashed: lasso at 1/t. Drag a ring, or move a slider.`;
  },
};
