// npm `pusher`, the library of a backend, driven by lines.
"use strict";

const Pusher = require("pusher");
const nacl = require("tweetnacl"); // what `pusher` encrypts with
const { serve } = require("./lines.js");

const publishers = {};

const read = async (response) => ({ status: response.status, body: await response.json() });

serve({
  open({ name, options }) {
    publishers[name] = new Pusher(options);
  },
  open_url({ name, url }) {
    publishers[name] = Pusher.forURL(url);
  },
  cluster_host: ({ cluster, options }) =>
    Pusher.forCluster(cluster, options).config.host,
  trigger: async ({ name, channels, event, data, params }) =>
    read(await publishers[name].trigger(channels, event, data, params)),
  trigger_batch: async ({ name, batch }) => read(await publishers[name].triggerBatch(batch)),
  send_to_user: async ({ name, user, event, data }) =>
    read(await publishers[name].sendToUser(user, event, data)),
  terminate: async ({ name, user }) => read(await publishers[name].terminateUserConnections(user)),
  // Signing is done by the same library.
  authorize: ({ name, socket_id, channel, presence }) =>
    publishers[name].authorizeChannel(socket_id, channel, presence ?? undefined),
  authenticate: ({ name, socket_id, user }) =>
    publishers[name].authenticateUser(socket_id, user),
  validate_webhook({ name, headers, body }) {
    const webhook = publishers[name].webhook({ headers, rawBody: body });
    return webhook.isValid() ? webhook.getData() : null;
  },
  read_webhook({ name, headers, body }) {
    const webhook = publishers[name].webhook({ headers, rawBody: body });
    return {
      valid: webhook.isValid(),
      content_type: webhook.isContentTypeValid(),
      body: webhook.isBodyValid(),
      events: webhook.getEvents(),
      time: webhook.getTime().getTime(),
    };
  },
  sign_webhook: ({ name, body }) => publishers[name].config.token.sign(body),
  decrypt({ name, channel, nonce, ciphertext }) {
    const key = new Uint8Array(publishers[name].channelSharedSecret(channel));
    const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
    const opened = nacl.secretbox.open(bytes(ciphertext), bytes(nonce), key);
    return opened && Buffer.from(opened).toString("utf8");
  },
  post: async ({ name, path, body }) => read(await publishers[name].post({ path, body })),
  signed_query: ({ name, method, path, params }) =>
    publishers[name].createSignedQueryString({ method, path, params }),
  // The name that `authorizeChannel` had before.
  authenticate_channel: ({ name, socket_id, channel, presence }) =>
    publishers[name].authenticate(socket_id, channel, presence ?? undefined),
  surface() {
    const names = (kind) => Object.getOwnPropertyNames(kind.prototype);
    const webhook = new Pusher({ appId: "1", key: "k", secret: "s" }).webhook({ headers: {} });
    return {
      made: Object.keys(Pusher).filter((name) => name.startsWith("for")),
      pusher: names(Pusher),
      webhook: names(webhook.constructor),
    };
  },
  get: async ({ name, path, params }) => read(await publishers[name].get({ path, params })),
});
