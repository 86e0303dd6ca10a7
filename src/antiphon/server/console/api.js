// What the page asks of its own server, and of nobody else.

const BASE = new URL("../", import.meta.url);
const TOKEN = document.querySelector('meta[name="console-token"]').content;

/** The application that is shown. */
export const shown = { id: "", isCluster: false };

/** The answer to a question; a session that has ended leads to the log-in screen. */
export async function ask(path, query = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return answer(await fetch(url, { headers: { Accept: "application/json" } }));
}

/** Has the server do something. */
export async function act(path, body = {}) {
  return answer(
    await fetch(new URL(path, BASE), {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Console-Token": TOKEN },
      body: JSON.stringify(body),
    }),
  );
}

export const ofApp = (path) => `apps/${encodeURIComponent(shown.id)}/${path}`;

/** What happens in the application that is shown. */
export const stream = () => new EventSource(new URL(ofApp("stream"), BASE));

async function answer(response) {
  if (response.status === 401) {
    location.reload();
    return new Promise(() => {});
  }
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    // A proxy's page; its status says enough.
  }
  if (response.ok) return body;
  const error = new Error(body?.error ?? `The server answered ${response.status}.`);
  error.status = response.status;
  throw error;
}
