// The form that publishes an event, as a backend would.

import { act, ask, ofApp } from "./api.js";
import { $, make, several } from "./dom.js";

const field = (name) => $(`publish-${name}`);

export function start() {
  $("publish-form").addEventListener("submit", publish);
  field("data").addEventListener("input", () => complain("data", wrongData()));
  for (const name of ["channel", "event", "socket"]) {
    field(name).addEventListener("input", () => complain(name, ""));
  }
  $("publish-format").addEventListener("click", () => {
    const wrong = wrongData();
    complain("data", wrong);
    if (!wrong) field("data").value = JSON.stringify(JSON.parse(field("data").value), null, 2);
  });
}

export async function show() {
  try {
    const { rows } = await ask(ofApp("channels"));
    $("publish-channels").replaceChildren(...rows.map((row) => make("option", { value: row.name })));
  } catch {
    // Only suggestions; what is wrong is said elsewhere.
  }
}

async function publish(event) {
  event.preventDefault();
  const wrongs = {
    channel: field("channel").value.trim() ? "" : "Which channel?",
    event: field("event").value.trim() ? "" : "Which event?",
    data: wrongData(),
    socket: /^(\d+\.\d+)?$/.test(field("socket").value.trim()) ? "" : "An id is two numbers: 1234.5678",
  };
  for (const [name, wrong] of Object.entries(wrongs)) complain(name, wrong);
  const first = Object.keys(wrongs).find((name) => wrongs[name]);
  if (first) {
    field(first).focus();
    return;
  }
  const result = $("publish-result");
  const button = event.submitter ?? $("publish-form").querySelector(".primary");
  button.disabled = true;
  try {
    const channel = field("channel").value.trim();
    const { subscribers } = await act(ofApp("publish"), {
      channel,
      event: field("event").value.trim(),
      data: field("data").value,
      socket_id: field("socket").value.trim(),
    });
    result.className = "good";
    result.textContent =
      `Published at ${new Date().toLocaleTimeString("en-GB")}: ` +
      `${several(subscribers, "subscriber")} on this node.`;
  } catch (error) {
    result.className = "wrong";
    result.textContent = error.message;
  }
  button.disabled = false;
}

function wrongData() {
  try {
    JSON.parse(field("data").value);
    return "";
  } catch (error) {
    return `This is no JSON: ${error.message}`;
  }
}

function complain(name, words) {
  $(`publish-${name}-error`).textContent = words;
  field(name).setAttribute("aria-invalid", String(Boolean(words)));
}
