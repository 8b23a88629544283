// Eight weights that are born at random, and what decides when they enter.

const BORN = [1.9, 0.3, 1.2, 0.6, 0.15, 1.5, 0.9, 0.45];
const ASKED = [0.8, 1.6, 0.3, 1.2, 0.6, 2.0, 0.4, 1.0];
const [HORIZON, LEASH] = [60, 10];

// Spearman's rank correlation; equal numbers share their rank.
function rankCorrelation(x, y) {
  const ranks = (a) => a.map((v) => a.filter((w) => w < v).length + a.filter((w) => w === v).length / 2);
  const centred = (a) => a.map((v) => v - a.reduce((s, w) => s + w, 0) / a.length);
  const [u, v] = [centred(ranks(x)), centred(ranks(y))];
  const dot = (a, b) => a.reduce((s, w, k) => s + w * b[k], 0);
  return dot(u, v) / Math.sqrt(dot(u, u) * dot(v, v));
}

const births = {
  alt:
    "The time at which each of eight weights enters, left against its size at birth, " +
    "right against the size that the loss asks for. With a small kappa and no rest the left points " +
    "fall along a curve: what was born large enters first. After a rest the right ones do.",
  inputs: [
    { name: "kappa", label: "κ, the speed of the weights", min: 0.01, max: 2, log: true, value: 0.02 },
    { name: "rest", label: "training before the release", min: 0, max: 200, step: 5, value: 0 },
  ],

  solve({ kappa, rest }) {
    const setting = { kappa, rest, nu: LEASH, lam: 1, time: HORIZON };
    const times = BORN.map((start, j) => entry(follow({ ...setting, start, want: ASKED[j] })));
    const late = times.map((t) => -t);
    return { times, birth: rankCorrelation(late, BORN), asked: rankCorrelation(late, ASKED) };
  },

  draw(values, { times }) {
    const columns = [
      ["entry, by size at birth", BORN, COLOURS[1]],
      ["entry, by size asked for", ASKED, COLOURS[0]],
    ];
    const panels = columns.map(([title, sizes, colour], k) => {
      const { px, py, axes } = panel({
        left: 40 + 240 * k, top: 30, width: 185, height: 190,
        x: [0, 2.1], y: [0, 65], xTicks: [0, 0.5, 1, 1.5, 2], yTicks: [0, 20, 40, 60],
        xLabel: k ? "asked for" : "at birth", title,
      });
      const dots = times.map((t, j) => {
        const [x, y] = [px(sizes[j]).toFixed(1), py(Math.min(t, 62)).toFixed(1)];
        const empty = Number.isFinite(t) ? "" : ' fill-opacity="0"';
        return (
          `<circle cx="${x}" cy="${y}" r="6" fill="${colour}"${empty} stroke="${colour}" ` +
          `stroke-width="1.5"/>`
        );
      });
      return axes + dots.join("");
    });
    return picture(262, panels.join(""));
  },

  say(values, { times, birth, asked }) {
    const entered = times.filter(Number.isFinite).length;
    const others = entered < 8 ? "; the others are empty circles above" : "";
    return (
      `${entered} of 8 weights enter by time 60${others}. Rank correlation of early entry with size at ` +
      `birth ${birth.toFixed(2)}, with the size asked for ${asked.toFixed(2)}.`
    );
  },
};
