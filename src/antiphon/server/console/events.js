// What happens, as it happens: the last 500 rows, newest first.

import { $, calmly, copy, make, number, pretty, toast } from "./dom.js";

const KEPT = 500;
const KINDS = {
  connected: "Connected",
  disconnected: "Disconnected",
  refused: "Refused",
  signed_in: "Signed in",
  subscribed: "Subscribed",
  unsubscribed: "Unsubscribed",
  subscription_refused: "Not let in",
  member_added: "Member added",
  member_removed: "Member removed",
  published: "Published",
  client_event: "Client event",
  error: "Error",
};
const GROUPS = {
  Published: ["published"],
  "Client events": ["client_event"],
  Subscriptions: ["subscribed", "unsubscribed"],
  Members: ["member_added", "member_removed"],
  Connections: ["connected", "disconnected", "signed_in"],
  Errors: ["refused", "subscription_refused", "error"],
};
const list = $("events-list");
const wanted = new Set();
let rows = []; // oldest first
let waiting = []; // what has come during a pause
let dropped = 0;
let isPaused = false;
let isShown = false;

export function start() {
  for (const [name, kinds] of Object.entries(GROUPS)) {
    const chip = make("button", { class: "chip", "aria-pressed": "false" }, name);
    chip.addEventListener("click", () => {
      const isOn = chip.getAttribute("aria-pressed") === "true";
      chip.setAttribute("aria-pressed", String(!isOn));
      for (const kind of kinds) isOn ? wanted.delete(kind) : wanted.add(kind);
      draw();
    });
    $("events-kinds").append(chip);
  }
  for (const id of ["events-text", "events-channel"]) {
    $(id).addEventListener("input", calmly(draw, 120));
  }
  $("events-pause").addEventListener("click", pause);
  $("events-clear").addEventListener("click", () => {
    rows = [];
    waiting = [];
    dropped = 0;
    draw();
  });
  $("events-copy").addEventListener("click", async () => {
    const chosen = rows.filter(passes()).map(told);
    try {
      await copy(JSON.stringify(chosen, null, 2));
      toast(`${number(chosen.length)} ${chosen.length === 1 ? "event was" : "events were"} copied.`);
    } catch (error) {
      toast(error.message, true);
    }
  });
}

export function reset() {
  rows = [];
  waiting = [];
  dropped = 0;
  draw();
}

/** New rows, oldest first, and how many are missing before them. */
export function take(news, missing) {
  dropped += missing;
  if (isPaused) {
    waiting = [...waiting, ...news].slice(-KEPT);
    status();
    return;
  }
  add(news);
}

export function show() {
  isShown = true;
  draw();
}

export function hide() {
  isShown = false;
  list.replaceChildren();
}

function pause() {
  isPaused = !isPaused;
  $("events-pause").textContent = isPaused ? "Go on" : "Pause";
  $("events-pause").setAttribute("aria-pressed", String(isPaused));
  const news = waiting;
  waiting = [];
  add(news);
}

function add(news) {
  rows = [...rows, ...news].slice(-KEPT);
  if (!isShown) return;
  const fresh = news.slice(-KEPT).filter(passes());
  list.prepend(...fresh.reverse().map(item));
  while (list.children.length > KEPT) list.lastChild.remove();
  // A filter shows less than is kept: what is kept no longer goes all the same.
  const oldest = rows[0];
  while (list.lastChild && oldest && list.lastChild.row.at < oldest.at) list.lastChild.remove();
  status();
}

function draw() {
  if (isShown) list.replaceChildren(...rows.filter(passes()).reverse().map(item));
  status();
}

function status() {
  const shown = list.children.length;
  const ofAll = shown === rows.length ? "" : ` of ${number(rows.length)}`;
  const new_ = isPaused ? ` · paused, ${number(waiting.length)}${waiting.length === KEPT ? "+" : ""} new` : "";
  $("events-count").textContent = `${number(shown)}${ofAll}${new_}`;
  $("events-dropped").hidden = dropped === 0;
  $("events-dropped").textContent =
    `${number(dropped)} more happened than can be shown here; the newest are kept.`;
  $("events-empty").hidden = shown > 0;
  $("events-empty").textContent = rows.length
    ? "Nothing of what happened is like that."
    : "Nothing has happened yet. What happens from now on appears here.";
}

/** Tells whether a row is wanted. */
function passes() {
  const text = $("events-text").value.trim().toLowerCase();
  const channel = $("events-channel").value.trim().toLowerCase();
  return (row) =>
    (wanted.size === 0 || wanted.has(row.kind)) &&
    (!channel || (row.channel ?? "").toLowerCase().includes(channel)) &&
    (!text ||
      [row.kind, row.channel, row.event, row.data, row.socket_id, row.user_id].some((each) =>
        (each ?? "").toLowerCase().includes(text),
      ));
}

/** A row as it is copied: data as JSON where it is JSON. */
function told(row) {
  const copied = { ...row, at: new Date(row.at).toISOString() };
  try {
    if (row.data && !row.size) copied.data = JSON.parse(row.data);
  } catch {
    // It is text.
  }
  return copied;
}

function item(row) {
  const fold = make(
    "details",
    {},
    make(
      "summary",
      {},
      make("time", {}, clock(row.at)),
      make("span", { class: `kind ${row.kind}` }, KINDS[row.kind] ?? row.kind),
      make("span", { class: "what" }, ...summary(row)),
      row.socket_id ? make("span", { class: "who" }, row.socket_id) : "",
    ),
  );
  fold.addEventListener("toggle", () => {
    if (fold.open && fold.children.length === 1) fold.append(inside(row));
  });
  const line = make("li", {}, fold);
  line.row = row;
  return line;
}

function summary(row) {
  const words = [];
  if (row.event) words.push(make("strong", {}, row.event));
  if (row.channel) words.push(make("span", { class: "channel" }, row.channel));
  if (row.user_id) words.push(make("span", { class: "soft" }, `user ${row.user_id}`));
  if (row.data) words.push(make("code", {}, row.data.slice(0, 160)));
  if (words.length === 0) words.push(make("span", { class: "soft" }, "by itself or its network"));
  return words;
}

function inside(row) {
  const told_ = [
    ["Channel", row.channel],
    ["Event", row.event],
    [row.kind === "published" ? "Not to" : "Connection", row.socket_id],
    ["User", row.user_id],
    ["Receivers", row.receivers == null ? "" : `${number(row.receivers)} on this node`],
    ["Time", new Date(row.at).toISOString()],
  ];
  return make(
    "div",
    { class: "inside" },
    make(
      "dl",
      { class: "facts" },
      ...told_
        .filter(([, value]) => value)
        .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
    ),
    row.data ? make("pre", { tabindex: "0" }, row.size ? row.data : pretty(row.data)) : "",
    row.size ? make("p", { class: "soft" }, `The first part of ${number(row.size)} characters.`) : "",
  );
}

function clock(at) {
  const time = new Date(at);
  return `${time.toLocaleTimeString("en-GB")}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}
