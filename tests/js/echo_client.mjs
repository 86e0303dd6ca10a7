// laravel-echo over pusher-js, driven by lines: any number of clients, each under a name.
//
// An ES module because laravel-echo 2.5 is one: node cannot require() its CommonJS build.
import lines from "./lines.js";
import Pusher from "pusher-js";
import Echo from "laravel-echo";

const { serve, tell } = lines;

const clients = {};

// Echo's name for each kind of channel.
const METHODS = {
  public: "channel",
  private: "private",
  encrypted: "encryptedPrivate",
  presence: "join",
};

const callbacks = {};

// A function that tells when it is called.
const callback = (client, name) =>
  (callbacks[`${client} ${name}`] ??= (...words) => tell({ client, kind: "called", name, words }));

const find = (client, type, channel) => clients[client][METHODS[type]](channel);

serve({
  connect({ client, options }) {
    const echo = (clients[client] = new Echo({ ...options, Pusher }));
    echo.connector.onConnectionChange((current) => {
      tell({ client, kind: "state", current, socket_id: echo.socketId() ?? null });
    });
    echo.connector.pusher.connection.bind("error", (error) => {
      tell({ client, kind: "error", error });
    });
  },
  join({ client, type, channel, events = [], whispers = [] }) {
    const say = (kind, words) => tell({ client, kind, channel, ...words });
    const joined = find(client, type, channel);
    joined.subscribed(() => say("subscribed", {}));
    joined.error((error) => say("refused", { error }));
    for (const event of events) {
      joined.listen(event, (data) => say("event", { event, data }));
    }
    for (const name of whispers) {
      joined.listenForWhisper(name, (data, metadata) => {
        say("whisper", { event: name, data, user_id: metadata?.user_id ?? null });
      });
    }
    if (type === "presence") {
      joined.here((users) => say("here", { users }));
      joined.joining((user) => say("joining", { user }));
      joined.leaving((user) => say("leaving", { user }));
    }
  },
  whisper: ({ client, type, channel, event, data }) => {
    find(client, type, channel).whisper(event, data);
  },
  // Any method of a channel, or of Echo itself; `name` is of the callback that comes last.
  act({ client, type, channel, method, args = [], name }) {
    const actor = type ? find(client, type, channel) : clients[client];
    actor[method](...args, ...(name ? [callback(client, name)] : []));
  },
  sign_in({ client }) {
    const { connector } = clients[client];
    connector.pusher.user.bind_global((event, data) => tell({ client, kind: "user", event, data }));
    connector.signin();
  },
  leave: ({ client, channel }) => clients[client].leave(channel),
  status: ({ client }) => clients[client].connectionStatus(),
  disconnect: ({ client }) => clients[client].disconnect(),
});
