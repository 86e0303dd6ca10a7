// pusher-js, driven by lines: any number of clients, each under a name.
"use strict";

const { serve, tell } = require("./lines.js");
const Pusher = require("pusher-js");

const builds = {
  node: () => Pusher,
  // A build for browsers, whose workers have a `self`; node's build lends it its WebSocket.
  "with-encryption"() {
    globalThis.self ??= globalThis;
    globalThis.WebSocket ??= Pusher.Runtime.getWebSocketAPI();
    return require("pusher-js/worker/with-encryption");
  },
};

const clients = {};

function members(found) {
  const all = {};
  found.each((member) => (all[member.id] = member.info));
  return { count: found.count, me: found.me?.id ?? null, members: all };
}

function readable(event, data) {
  return event === "pusher:subscription_succeeded" && data?.members ? members(data) : data;
}

serve({
  connect({ client, key, options, build = "node" }) {
    const pusher = (clients[client] = new (builds[build]())(key, options));
    pusher.connection.bind("state_change", ({ previous, current }) => {
      const socket_id = pusher.connection.socket_id ?? null;
      tell({ client, kind: "state", previous, current, socket_id });
    });
    pusher.connection.bind("error", (error) => tell({ client, kind: "error", error }));
    pusher.bind_global((event, data) => tell({ client, kind: "global", event, data }));
    pusher.user.bind_global((event, data) => tell({ client, kind: "user", event, data }));
    pusher.user.watchlist.bind_global((event, data) => {
      tell({ client, kind: "watchlist", event, data });
    });
  },
  subscribe({ client, channel, events = [] }) {
    const subscription = clients[client].subscribe(channel);
    subscription.bind_global((event, data) => {
      if (event.startsWith("pusher:")) {
        tell({ client, kind: "channel", channel, event, data: readable(event, data) });
      }
    });
    for (const event of events) {
      subscription.bind(event, (data, metadata) => {
        tell({ client, kind: "event", channel, event, data, user_id: metadata?.user_id ?? null });
      });
    }
  },
  unsubscribe: ({ client, channel }) => clients[client].unsubscribe(channel),
  trigger: ({ client, channel, event, data }) =>
    clients[client].channel(channel).trigger(event, data),
  members: ({ client, channel }) => members(clients[client].channel(channel).members),
  member: ({ client, channel, user }) => clients[client].channel(channel).members.get(user),
  signin: ({ client }) => clients[client].signin(),
  signed_in: ({ client }) => clients[client].user.user_data?.id ?? null,
  state: ({ client }) => clients[client].connection.state,
  disconnect: ({ client }) => clients[client].disconnect(),
});
