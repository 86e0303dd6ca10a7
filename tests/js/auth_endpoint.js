// The auth endpoint of a backend in JavaScript, with npm `pusher`, driven by lines.
//
// The bearer token is the user's id. Without one the answer is 401; "private-x.ali" is for ali
// alone, others get 403, and so does "nobody" who signs in.
"use strict";

const http = require("node:http");
const Pusher = require("pusher");
const { serve } = require("./lines.js");

let pusher;
let asked = [];

class Refusal extends Error {
  constructor(status) {
    super(http.STATUS_CODES[status]);
    this.status = status;
  }
}

function authorize(user, socket, channel) {
  const owner = channel.split(".")[1];
  if (owner && owner !== user) throw new Refusal(403);
  const member = { user_id: user, user_info: { name: `${user} 🎉` } };
  const presence = channel.startsWith("presence-") ? member : undefined;
  return pusher.authorizeChannel(socket, channel, presence);
}

function authenticate(user, socket) {
  if (user === "nobody") throw new Refusal(403);
  return pusher.authenticateUser(socket, { id: user, user_info: { name: `${user} 🎉` } });
}

// What pusher-js-auth, a plugin of pusher-js, sends and expects: one answer for each channel.
function authorizeAll(user, socket, channels) {
  const answers = {};
  for (const channel of channels) {
    try {
      answers[channel] = { status: 200, data: authorize(user, socket, channel) };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      answers[channel] = { status: error.status };
    }
  }
  return answers;
}

function answer(path, user, form) {
  const socket = form.get("socket_id");
  const channels = [...form].filter(([name]) => name.startsWith("channel_name")).map(([, v]) => v);
  asked.push({ path, user, channels });
  if (!user) throw new Refusal(401);
  if (path === "/auth") return authorize(user, socket, form.get("channel_name"));
  if (path === "/user-auth") return authenticate(user, socket);
  if (path === "/batch" && form.has("channel_name[0]")) return authorizeAll(user, socket, channels);
  throw new Refusal(404);
}

async function handle(request, response) {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) text += chunk;
  const user = (request.headers.authorization ?? "").replace(/^Bearer /, "");
  let status = 200;
  let body;
  try {
    body = answer(request.url, user, new URLSearchParams(text));
  } catch (error) {
    status = error.status ?? 500;
    body = { message: error.message };
  }
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
}

serve({
  listen: () =>
    new Promise((resolve) => {
      const server = http.createServer(handle);
      server.listen(0, "127.0.0.1", () => resolve(server.address().port));
    }),
  // Again with another encryptionMasterKeyBase64: the keys of encrypted channels change.
  use: ({ options }) => void (pusher = new Pusher(options)),
  asked: () => asked,
  forget: () => void (asked = []),
});
