// What stands around the screens: which application, which screen, and the stream of news.

import { act, ask, shown, stream } from "./api.js";
import * as details from "./details.js";
import { $, make, number, toast } from "./dom.js";
import * as events from "./events.js";
import * as overview from "./overview.js";
import * as publish from "./publish.js";
import { NOTHING, table } from "./table.js";

const connections = table({
  name: "connections",
  noun: "open",
  empty: "Nobody is connected.",
  key: (row) => row.socket_id,
  open: (row) => details.openConnection(row.socket_id),
  columns: [
    ["Socket id", (row) => row.socket_id, "id"],
    ["Since", (row) => details.age(row.since), ""],
    ["Address", (row) => row.address || NOTHING, ""],
    ["Origin", (row) => row.origin || NOTHING, "long"],
    ["User", (row) => row.user_id || NOTHING, "long"],
    ["Channels", (row) => number(row.channels), "number"],
  ],
});
const channels = table({
  name: "channels",
  noun: "occupied",
  empty: "Nobody is in a channel.",
  key: (row) => row.name,
  open: (row) => details.openChannel(row.name),
  columns: [
    ["Name", (row) => row.name, "id"],
    ["Kind", (row) => make("span", { class: `tag ${row.kind}` }, row.cache ? `${row.kind}, cache` : row.kind), ""],
    ["Subscribers", (row) => number(row.subscribers), "number"],
    ["Members", (row) => (row.members == null ? NOTHING : number(row.members)), "number"],
  ],
});
const screens = { overview, connections, channels, events, publish };
let current = "";
let source = null;
let apps = [];

async function start() {
  overview.start();
  events.start();
  publish.start();
  details.start(() => screens[current].load?.());
  $("leave").addEventListener("click", leave);
  $("app").addEventListener("change", () => go(current, $("app").value));
  addEventListener("hashchange", follow);
  try {
    apps = await ask("apps");
  } catch (error) {
    state("lost");
    toast(error.message, true);
    return;
  }
  $("app").append(...apps.map((app) => make("option", { value: app.id }, name(app))));
  follow();
}

const name = (app) => app.id + (app.enabled ? "" : " (disabled)");

/** The address says what is shown: #events/<application>. */
function follow() {
  const [screen, app] = location.hash.slice(1).split("/");
  choose(apps.find(({ id }) => encodeURIComponent(id) === app) ?? apps.find(({ id }) => id === shown.id) ?? apps[0]);
  const next = Object.hasOwn(screens, screen) ? screen : "overview";
  for (const link of document.querySelectorAll("nav a")) {
    link.href = `#${link.dataset.screen}/${encodeURIComponent(shown.id)}`;
    if (link.dataset.screen === next) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (next === current) return;
  details.close();
  screens[current]?.hide?.();
  if (current) $(current).hidden = true;
  const isFirst = !current;
  current = next;
  $(current).hidden = false;
  document.title = `${$(current).querySelector("h1").textContent} · antiphon console`;
  screens[current].show?.();
  scrollTo(0, 0);
  if (!isFirst) $("main").focus({ preventScroll: true });
}

function go(screen, app) {
  location.hash = `#${screen}/${encodeURIComponent(app)}`;
}

function choose(app) {
  if (app.id === shown.id) return;
  details.close();
  shown.id = app.id;
  shown.isCluster = app.cluster;
  $("app").value = app.id;
  for (const note of document.querySelectorAll("[data-cluster]")) note.hidden = !app.cluster;
  $("cluster").hidden = true;
  for (const screen of [overview, connections, channels, events]) screen.reset();
  listen();
  if (current) {
    screens[current].hide?.();
    screens[current].show?.();
  }
}

function listen() {
  source?.close();
  source = stream();
  state("waiting");
  source.onmessage = ({ data }) => {
    state("live");
    const { rows = [], dropped = 0, samples = [] } = JSON.parse(data);
    if (samples.length) overview.take(samples);
    if (rows.length || dropped) events.take(rows, dropped);
  };
  source.onerror = () => {
    state("lost");
    if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
    source.close();
    setTimeout(again, 2000);
  };
}

async function again() {
  try {
    apps = await ask("apps"); // or the log-in screen, if the session is over
    if (apps.some(({ id }) => id === shown.id)) listen();
    else location.reload(); // it is served no longer
  } catch {
    setTimeout(again, 2000);
  }
}

function state(now) {
  const live = $("live");
  if (live.dataset.state === now) return;
  live.dataset.state = now;
  live.textContent = { waiting: "Connecting", live: "Live", lost: "Connection lost" }[now];
}

async function leave() {
  try {
    await act("logout");
  } catch (error) {
    toast(error.message, true);
    return;
  }
  source?.close();
  location.reload();
}

// A page that is left tells the server at once.
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => event.persisted && location.reload());

start();
