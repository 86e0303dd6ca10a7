// One connection, or one channel, at the side of the screen.

import { act, ask, ofApp } from "./api.js";
import { $, make, number, pretty, several, sureButton, toast } from "./dom.js";

const EVERY = 2000;
const dialog = $("details");
let timer = 0;
let drawn = "";
let onChange = () => {};

export function start(changed) {
  onChange = changed;
  $("details-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the curtain around it
  });
  dialog.addEventListener("close", () => clearTimeout(timer));
}

export const close = () => dialog.close();

export function openConnection(id) {
  open(id, () => ask(ofApp(`connections/${encodeURIComponent(id)}`)), connection);
}

export function openChannel(name) {
  open(name, () => ask(ofApp("channel"), { name }), channel);
}

function open(title, load, draw) {
  $("details-title").textContent = title;
  $("details-body").replaceChildren();
  drawn = "";
  clearTimeout(timer);
  if (!dialog.open) dialog.showModal();
  const again = async () => {
    clearTimeout(timer);
    try {
      const found = await load();
      if ($("details-title").textContent !== title) return;
      const text = JSON.stringify(found);
      const busy = $("details-body").querySelector(".sure, :disabled");
      if (text !== drawn && !busy) {
        drawn = text;
        $("details-body").replaceChildren(...draw(found, again));
      }
    } catch (error) {
      if ($("details-title").textContent !== title) return;
      if (error.status === 404) {
        drawn = "";
        $("details-body").replaceChildren(make("p", { class: "empty" }, error.message));
        return;
      }
      toast(error.message, true);
    }
    if (dialog.open) timer = setTimeout(again, EVERY);
  };
  again();
}

function connection(found, again) {
  const since = new Date(found.since * 1000);
  return [
    facts([
      ["Connected", `${since.toLocaleString("en-GB")} (${age(found.since)})`],
      ["Address", found.address || "not known"],
      ["Origin", found.origin || "none: it is no browser"],
      ["User", found.user_id || "nobody has signed in"],
    ]),
    found.user_info == null ? "" : block("User info", JSON.stringify(found.user_info)),
    list(
      `Channels (${number(found.in.length)})`,
      found.in,
      (each) => [
        make("button", { class: "link", click: () => openChannel(each.name) }, each.name),
        make("span", { class: "soft" }, each.user_id ? `as user ${each.user_id}` : each.kind),
      ],
      (each) =>
        sureButton("Take out", "Really take out?", async () => {
          await act(ofApp("kick"), { channel: each.name, socket_id: found.socket_id });
          toast(`${found.socket_id} was taken out of ${each.name}.`);
          done(again);
        }),
      "It is in no channel.",
    ),
    make(
      "div",
      { class: "final" },
      sureButton("Terminate connection", "Really terminate?", async () => {
        await act(ofApp(`connections/${encodeURIComponent(found.socket_id)}/terminate`));
        toast(`${found.socket_id} was terminated.`);
        done(() => dialog.close());
      }),
      make("p", { class: "soft" }, "It is closed with 4009, so its client does not come back by itself."),
    ),
  ];
}

function channel(found, again) {
  const kick = (who, words) =>
    sureButton("Take out", "Really take out?", async () => {
      await act(ofApp("kick"), { channel: found.name, ...who });
      toast(`${words} was taken out of ${found.name}.`);
      done(again);
    });
  return [
    facts([
      ["Kind", found.kind + (found.cache ? ", keeps its last event" : "")],
      ["Subscribers", number(found.subscribers)],
      found.members == null ? null : ["Members", number(found.members)],
    ]),
    found.members == null
      ? ""
      : list(
          `Members (${number(found.members)})`,
          found.users,
          (user) => [
            make("strong", {}, user.id),
            user.info == null ? "" : make("code", {}, JSON.stringify(user.info)),
            make("span", { class: "soft" }, connections(user.here)),
          ],
          (user) => kick({ user_id: user.id }, `User ${user.id}`),
          "Nobody is a member.",
          found.members,
        ),
    list(
      `Subscribers (${number(found.subscribers)})`,
      found.in,
      (each) => [
        make("button", { class: "link", click: () => openConnection(each.socket_id) }, each.socket_id),
        each.user_id ? make("span", { class: "soft" }, `user ${each.user_id}`) : "",
      ],
      (each) => kick({ socket_id: each.socket_id }, each.socket_id),
      "Nobody has subscribed on this node.",
      found.subscribers,
    ),
    found.kept == null ? "" : block("Kept event", found.kept),
  ].filter(Boolean);
}

const connections = (count) =>
  count === 0 ? "on another node" : `${several(count, "connection")} here`;

function done(next) {
  onChange();
  setTimeout(next, 100); // what was done is there by then
}

function facts(pairs) {
  return make(
    "dl",
    { class: "facts" },
    ...pairs
      .filter(Boolean)
      .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
  );
}

function block(title, text) {
  return make("section", {}, make("h3", {}, title), make("pre", { tabindex: "0" }, pretty(text)));
}

function list(title, items, words, button, empty, total = items.length) {
  return make(
    "section",
    {},
    make("h3", {}, title),
    items.length === 0 ? make("p", { class: "soft" }, empty) : "",
    make(
      "ul",
      { class: "people" },
      ...items.map((item) => make("li", {}, make("div", {}, ...words(item)), button(item))),
    ),
    total > items.length
      ? make("p", { class: "soft" }, `and ${number(total - items.length)} more`)
      : "",
  );
}

/** How long ago a moment is, in words. */
export function age(since) {
  const seconds = Math.max(0, Math.round(Date.now() / 1000 - since));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}
