// Two balls about the origin that just touch the line x1 + 2 x2 = 2, each by a ruler of its own.

// What one coordinate adds to the divergence from zero.
const RULERS = {
  net: (x, kappa) => Math.abs(x) + (x * x) / (2 * kappa),
  hypentropy: (x, s) => x * Math.asinh(x / s) - Math.hypot(x, s) + s,
};

// The root of an increasing function.
function root(f, low, high) {
  for (let k = 0; k < 56; k++) {
    const x = (low + high) / 2;
    f(x) < 0 ? (low = x) : (high = x);
  }
  return (low + high) / 2;
}

// Where mirror descent from zero ends: z = (u, 2 u), and x is its mirror image.
function touch(back) {
  const u = root((u) => back(u) + 2 * back(2 * u) - 2, 0, 20);
  return [back(u), back(2 * u)];
}

// The ball of radius D(x, 0) as points in all directions: the divergence grows along each.
function outline(part, x) {
  const radius = part(x[0]) + part(x[1]);
  const angles = Array.from({ length: 241 }, (_, k) => (k * Math.PI) / 120);
  return angles.map((angle) => {
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    const far = root((r) => part(r * c) + part(r * s) - radius, 0, 4);
    return [far * c, far * s];
  });
}

const ball = {
  alt:
    "Two panels with the grey line of the solutions of x1 + 2 x2 = 2. In each a blue ball about the " +
    "origin just touches the line, in an orange point: left the ball of the elastic net, from a " +
    "disc for small kappa to a diamond for large, right that of hypentropy, from a diamond for " +
    "small s to a disc for large.",
  inputs: [
    { name: "kappa", label: "κ of the elastic net", min: 0.1, max: 20, log: true, value: 4 },
    { name: "s", label: "s of hypentropy", min: 0.001, max: 10, log: true, value: 0.05 },
  ],

  solve({ kappa, s }) {
    const ends = [touch((z) => kappa * shrink(z, 1)), touch((z) => s * Math.sinh(z))];
    const parts = [(x) => RULERS.net(x, kappa), (x) => RULERS.hypentropy(x, s)];
    return ends.map((end, k) => ({ end, points: outline(parts[k], end) }));
  },

  draw(values, solved) {
    const names = ["elastic net", "hypentropy"];
    const panels = solved.map(({ end, points }, k) => {
      const { px, py, axes, line, inside } = panel({
        left: 40 + 235 * k, top: 30, width: 195, height: 195,
        x: [-1.3, 1.3], y: [-1.3, 1.3], xTicks: [-1, 0, 1], yTicks: [-1, 0, 1],
        xLabel: "x₁", title: names[k],
      });
      const at = points.map(([x, y]) => `${px(x).toFixed(1)} ${py(y).toFixed(1)}`);
      return [
        axes,
        line([-1.3, 1.3], [1.65, 0.35], "#999999", 'stroke-width="3"'),
        inside(
          `<path d="M${at.join("L")}Z" fill="${COLOURS[0]}" fill-opacity="0.2" ` +
            `stroke="${COLOURS[0]}" stroke-width="1.5"/>`,
        ),
        `<circle cx="${px(end[0]).toFixed(1)}" cy="${py(end[1]).toFixed(1)}" r="5" ` +
          `fill="${COLOURS[1]}"/>`,
      ].join("");
    });
    return picture(268, panels.join("") + text(4, 24, "x₂"));
  },

  say(values, solved) {
    const [net, hyp] = solved.map(({ end }) => end.map((x) => x.toFixed(3)).join(", "));
    return `Mirror descent from zero ends at (${net}) by the elastic net, at (${hyp}) by hypentropy.`;
  },
};
