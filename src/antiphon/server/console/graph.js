// One graph of the last five minutes, drawn by hand.

import { draw, make } from "./dom.js";

const SPAN = 300;
const WIDTH = 320;
const HEIGHT = 96;
const TOP = 6;

/**
 * A card with a value, a graph and its scale.
 *
 * read(sample) gives the value of a second, or null for none; show(value) its words; and
 * more(sample) a line below the value, by default the highest one.
 */
export function graph({ title, unit = "", read, show, more, least = 1 }) {
  const value = make("span", { class: "value" }, "–");
  const line = make("p", { class: "more" }, "\u00a0");
  const area = draw("path", { class: "area" });
  const stroke = draw("path", { class: "stroke" });
  const cursor = draw("path", { class: "cursor" });
  const top = make("span", { class: "top" });
  const svg = draw(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    draw("path", { class: "grid", d: `M0 ${TOP}H${WIDTH}M0 ${middle()}H${WIDTH}` }),
    area,
    stroke,
    cursor,
  );
  const plot = make("div", { class: "plot" }, svg, top);
  const card = make(
    "article",
    { class: "card graph" },
    make("h2", {}, title),
    make("p", { class: "now" }, value, unit ? make("span", { class: "unit" }, unit.trim()) : ""),
    line,
    plot,
    make("p", { class: "axis" }, make("span", {}, "5 min ago"), make("span", {}, "now")),
  );
  let samples = [];
  let most = 0;
  let under = null; // where the pointer is, from 0 to 1

  function update(now) {
    samples = now;
    const end = samples.at(-1)?.[0] ?? 0;
    const points = samples
      .map((sample) => [sample[0], read(sample)])
      .filter(([, y]) => y != null);
    most = Math.max(0, ...points.map(([, y]) => y));
    const scale = ceiling(Math.max(most, least));
    top.textContent = show(scale);
    const at = ([time, y]) => [
      round(WIDTH - ((end - time) / SPAN) * WIDTH),
      round(HEIGHT - 1 - (y / scale) * (HEIGHT - 1 - TOP)),
    ];
    const runs = [];
    let before = -Infinity;
    for (const point of points) {
      if (point[0] - before > 5) runs.push([]); // nobody looked, or nothing was measured
      before = point[0];
      runs.at(-1).push(at(point));
    }
    stroke.setAttribute("d", runs.map((run) => path(run)).join(""));
    area.setAttribute(
      "d",
      runs.map((run) => `${path(run)}V${HEIGHT}H${run[0][0]}Z`).join(""),
    );
    const least_ = Math.min(...points.map(([, y]) => y));
    const last = points.at(-1)?.[1];
    svg.setAttribute(
      "aria-label",
      points.length
        ? `${title}, last five minutes: now ${show(last)}${unit}, least ${show(least_)}, most ${show(most)}`
        : `${title}: nothing measured yet`,
    );
    tell();
  }

  function tell() {
    const end = samples.at(-1);
    const time = end && under != null ? end[0] - (1 - under) * SPAN : null;
    const chosen =
      time == null
        ? end
        : samples.findLast((sample) => sample[0] <= time + 0.5 && time - sample[0] < 3);
    const read_ = chosen && read(chosen);
    value.textContent = read_ == null ? "–" : show(read_);
    line.textContent =
      time == null
        ? end && (more ? more(end) : `peak ${show(most)}${unit}`)
        : new Date(time * 1000).toLocaleTimeString("en-GB");
    cursor.setAttribute("d", under == null ? "" : `M${round(under * WIDTH)} 0V${HEIGHT}`);
  }

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    under = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    tell();
  });
  for (const name of ["pointerleave", "pointercancel"]) {
    plot.addEventListener(name, () => {
      under = null;
      tell();
    });
  }
  return { card, update };
}

function middle() {
  return round(TOP + (HEIGHT - 1 - TOP) / 2);
}

const path = (run) =>
  run.length === 1
    ? `M${run[0][0] - 1} ${run[0][1]}H${run[0][0]}`
    : "M" + run.map(([x, y]) => `${x} ${y}`).join("L");

const round = (value) => Math.round(value * 10) / 10;

/** The next number that is easy to read. */
function ceiling(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((step) => step * size).find((step) => step >= value * 0.999);
}
