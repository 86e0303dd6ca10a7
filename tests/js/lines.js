// One JSON object a line: commands come in on standard input, answers and events go out.
//
// When the input ends nothing is forced: node ends by itself once no socket and no timer is left.
"use strict";

const readline = require("node:readline");

// SPEED=20 makes the timers of whatever is loaded after this file run twenty times as fast:
// pusher-js waits 15 seconds after a refused connection before it dials again.
const speed = Number(process.env.SPEED ?? 1);
if (speed !== 1) {
  const { setTimeout, setInterval } = globalThis;
  globalThis.setTimeout = (work, delay, ...rest) => setTimeout(work, delay / speed, ...rest);
  globalThis.setInterval = (work, delay, ...rest) => setInterval(work, delay / speed, ...rest);
}

// Whatever a library logs must not get between the lines.
console.log = console.info = console.debug = console.error;

function tell(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

function serve(commands) {
  readline.createInterface({ input: process.stdin }).on("line", async (line) => {
    const { id, command, ...words } = JSON.parse(line);
    try {
      tell({ id, result: (await commands[command](words)) ?? null });
    } catch (error) {
      // npm `pusher` keeps the server's words in `body`.
      const words = [error?.message ?? error, error?.body].filter(Boolean).join(": ");
      tell({ id, error: words, status: error?.status ?? null });
    }
  });
}

module.exports = { serve, tell };
