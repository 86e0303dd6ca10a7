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
const handlers = {};

// A client or one of its channels, and a function that tells when it is called.
const target = (client, channel) => (channel ? clients[client].channel(channel) : clients[client]);
const handler = (client, name) =>
  (handlers[`${client} ${name}`] ??= (...words) => tell({ client, kind: "called", name, words }));

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
  bind: ({ client, channel, event, name }) => {
    target(client, channel).bind(event, handler(client, name));
  },
  unbind: ({ client, channel, event, name }) => {
    target(client, channel).unbind(event, name && handler(client, name));
  },
  bind_global: ({ client, channel, name }) => {
    target(client, channel).bind_global(handler(client, name));
  },
  unbind_global: ({ client, channel, name }) => {
    target(client, channel).unbind_global(name && handler(client, name));
  },
  unbind_all: ({ client, channel }) => {
    target(client, channel).unbind_all();
  },
  channels: ({ client }) => clients[client].allChannels().map(({ name }) => name),
  send_event: ({ client, event, data, channel }) =>
    clients[client].send_event(event, data, channel),
  uses_tls: ({ client }) => clients[client].shouldUseTLS(),
  connect_again: ({ client }) => clients[client].connect(),
  signin: ({ client }) => clients[client].signin(),
  signed_in: ({ client }) => clients[client].user.user_data?.id ?? null,
  state: ({ client }) => clients[client].connection.state,
  disconnect: ({ client }) => clients[client].disconnect(),
});
