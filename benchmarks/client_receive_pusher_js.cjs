// node client_receive_pusher_js.cjs PORT COUNT: prints events per second of CPU.
const Pusher = require("../tests/js/node_modules/pusher-js");
const [port, count] = process.argv.slice(2).map(Number);
const pusher = new Pusher("k", {
  wsHost: "127.0.0.1", wsPort: port, forceTLS: false, cluster: "", enabledTransports: ["ws"],
});
let left = count;
let began;
pusher.subscribe("room").bind("App\\Events\\MessageSent", (data) => {
  if (left === count) began = process.cpuUsage();
  if (data.message.id !== "123") throw new Error("wrong data");
  if (--left === 0) {
    const used = process.cpuUsage(began);
    console.log(count / ((used.user + used.system) / 1e6));
    process.exit(0);
  }
});
