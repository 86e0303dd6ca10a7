// The first screen: how much there is, and how fast.

import { ask, ofApp, shown } from "./api.js";
import { $, number, several } from "./dom.js";
import { graph } from "./graph.js";

const KEPT = 300;
const rate = (value) => (value < 10 ? value.toFixed(1) : number(Math.round(value)));
const time = (value) => (value < 10 ? value.toFixed(2) : number(Math.round(value)));

// A sample is what server/console/watch.py says: at, connections, channels, subscriptions,
// received, sent, published, latency, lag.
const graphs = [
  graph({ title: "Connections", read: (s) => s[1], show: number, least: 4 }),
  graph({
    title: "Subscriptions",
    read: (s) => s[3],
    show: number,
    more: (s) => `in ${several(s[2], "channel")}`,
    least: 4,
  }),
  graph({ title: "Messages in", unit: "/s", read: (s) => s[4], show: rate }),
  graph({ title: "Messages out", unit: "/s", read: (s) => s[5], show: rate }),
  graph({
    title: "Publish latency",
    unit: " ms",
    read: (s) => s[7],
    show: time,
    more: (s) => `${rate(s[6])} events/s over HTTP`,
  }),
  graph({ title: "Event loop lag", unit: " ms", read: (s) => s[8], show: time, least: 10 }),
];
let samples = [];
let isShown = false;
let asking = 0;

export function start() {
  $("graphs").append(...graphs.map(({ card }) => card));
}

export function reset() {
  samples = [];
  draw();
}

/** New seconds; a console that connects again gets the old ones once more. */
export function take(news) {
  const last = samples.at(-1)?.[0] ?? 0;
  samples.push(...news.filter((sample) => sample[0] > last));
  samples = samples.filter((sample) => sample[0] > samples.at(-1)[0] - KEPT);
  if (isShown) draw();
}

export function show() {
  isShown = true;
  draw();
  if (shown.isCluster) {
    askCluster();
    asking = setInterval(askCluster, 5000);
  }
}

export function hide() {
  isShown = false;
  clearInterval(asking);
}

function draw() {
  for (const { update } of graphs) update(samples);
}

async function askCluster() {
  const line = $("cluster");
  try {
    const all = await ask(ofApp("cluster"));
    line.textContent =
      `All nodes: ${several(all.connections, "connection")}, ${several(all.channels, "channel")}, ` +
      `${several(all.subscriptions, "subscription")}. The graphs show this node.`;
  } catch (error) {
    line.textContent = `The other nodes cannot be asked: ${error.message}`;
  }
  line.hidden = false;
}
