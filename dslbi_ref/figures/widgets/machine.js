// Three weights, each with a spring to its twin, and a dual variable that fills to the level.

const WANTED = [2, 1, 0.25];

const machine = {
  alt:
    "Three weights side by side. Each is a square on a vertical axis, tied by a spring to a circle, " +
    "its twin. Beside them a tube fills with the dual variable V. When it has reached the level " +
    "lambda, the twin leaves zero and goes to its weight. Below, the twins against time, with a " +
    "line at the moment shown.",
  inputs: [
    { name: "time", label: "time t", min: 0, max: 12, step: 0.05, value: 2.2 },
    { name: "nu", label: "ν, how slack the springs are", min: 0.2, max: 4, step: 0.1, value: 1 },
    { name: "lam", label: "λ, the level", min: 0.2, max: 2, step: 0.1, value: 1 },
    { name: "kappa", label: "κ, the speed", min: 0.5, max: 20, step: 0.5, value: 10 },
    { name: "start", label: "where the weights start", min: 0, max: 2, step: 0.1, value: 0 },
  ],

  solve({ nu, lam, kappa, start }) {
    return WANTED.map((want) => follow({ start, want, kappa, nu, lam, time: 12 }));
  },

  draw({ time, lam }, paths) {
    const k = clip(Math.round(time / paths[0].t[1]), 0, paths[0].t.length - 1);
    const below = panel({
      left: 40, top: 262, width: 425, height: 110,
      x: [0, 12], y: [0, 2.2], xTicks: [0, 2, 4, 6, 8, 10, 12], yTicks: [0, 1, 2],
      xLabel: "time t", title: "the twins Γ",
    });
    const lines = paths.map(({ t, Gamma }, j) =>
      below.line(thinned(t), thinned(Gamma), COLOURS[j]),
    );
    const now = below.line([time, time], [0, 2.2], QUIET, 'stroke-dasharray="4 3"');
    const cells = paths.map(({ W, V, Gamma }, j) =>
      cell(20 + 153 * j, COLOURS[j], WANTED[j], W[k], Gamma[k], Math.abs(V[k]) / lam),
    );
    return picture(412, cells.join("") + below.axes + lines.join("") + now);
  },

  say(values, paths) {
    const entries = paths.map(entry);
    const words = entries.map((t, j) =>
      Number.isFinite(t)
        ? `the weight wanted at ${WANTED[j]} enters at ${t.toFixed(1)}`
        : `that wanted at ${WANTED[j]} never does`,
    );
    const inside = entries.filter((t) => t <= values.time).length;
    return `Entered so far: ${inside} of 3. In this run ${words.join(", ")}.`;
  },
};

// One weight with its spring, its twin and its tube. `filled` is |V| over the level.
function cell(left, colour, want, W, Gamma, filled) {
  const [zero, unit, tube] = [200, 76, 120];
  const y = (v) => zero - unit * v;
  const [xW, xG, xV] = [left + 34, left + 84, left + 118];
  const zigzag = Array.from({ length: 9 }, (_, k) => {
    const s = (k + 0.5) / 9;
    const side = k % 2 ? 5 : -5;
    return `${(xW + s * (xG - xW)).toFixed(1)} ${(y(W + s * (Gamma - W)) + side).toFixed(1)}`;
  });
  const high = tube * Math.min(filled, 1.25);
  return [
    text(left, 22, `wanted: ${want}`),
    `<path d="M${left + 8} ${y(want)}H${xG + 14}" stroke="${colour}" stroke-dasharray="2 4"/>`,
    `<path d="M${left + 8} ${zero}H${left + 140}" stroke="${QUIET}"/>`,
    `<path d="M${xW} ${y(W)}L${zigzag.join("L")}L${xG} ${y(Gamma)}" fill="none" stroke="${QUIET}"/>`,
    `<rect x="${xW - 9}" y="${(y(W) - 9).toFixed(1)}" width="18" height="18" fill="${colour}"/>`,
    `<circle cx="${xG}" cy="${y(Gamma).toFixed(1)}" r="9" stroke="${colour}" stroke-width="2.5" ` +
      `fill="${Gamma === 0 ? "white" : colour}"/>`,
    `<rect x="${xV}" y="${(zero - high).toFixed(1)}" width="20" height="${high.toFixed(1)}" ` +
      `fill="${colour}" fill-opacity="0.45"/>`,
    `<path d="M${xV} ${zero - 1.25 * tube}V${zero}H${xV + 20}V${zero - 1.25 * tube}" fill="none" ` +
      `stroke="${QUIET}"/>`,
    `<path d="M${xV - 5} ${zero - tube}H${xV + 25}" stroke="${INK}" stroke-width="2"/>`,
    text(xV - 14, zero - tube + 5, "λ", middle),
    text(xW, zero + 26, "W", middle),
    text(xG, zero + 26, "Γ", middle),
    text(xV + 10, zero + 26, "V", middle),
  ].join("");
}
