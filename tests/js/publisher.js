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
  trigger: async ({ name, channels, event, data, params }) =>
    read(await publishers[name].trigger(channels, event, data, params)),
  trigger_batch: async ({ name, batch }) => read(await publishers[name].triggerBatch(batch)),
  send_to_user: async ({ name, user, event, data }) =>
    read(await publishers[name].sendToUser(user, event, data)),
  // Signing is done by the same library.
  authorize: ({ name, socket_id, channel, presence }) =>
    publishers[name].authorizeChannel(socket_id, channel, presence ?? undefined),
  authenticate: ({ name, socket_id, user }) =>
    publishers[name].authenticateUser(socket_id, user),
  validate_webhook({ name, headers, body }) {
    const webhook = publishers[name].webhook({ headers, rawBody: body });
    return webhook.isValid() ? webhook.getData() : null;
  },
  sign_webhook: ({ name, body }) => publishers[name].config.token.sign(body),
  decrypt({ name, channel, nonce, ciphertext }) {
    const key = new Uint8Array(publishers[name].channelSharedSecret(channel));
    const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
    const opened = nacl.secretbox.open(bytes(ciphertext), bytes(nonce), key);
    return opened && Buffer.from(opened).toString("utf8");
  },
  get: async ({ name, path, params }) => read(await publishers[name].get({ path, params })),
});
