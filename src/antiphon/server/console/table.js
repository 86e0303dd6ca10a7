// A table that the server searches and cuts into pages, and that is asked for anew as long as
// it is looked at.

import { ask, ofApp } from "./api.js";
import { $, calmly, make, number } from "./dom.js";

const EVERY = 2000;

/** What stands in a cell that has nothing to say. */
export const NOTHING = "–";

/**
 * name: of the section, and of the server's list; columns: [title, cell(row), class];
 * key: what tells rows apart; open: called with a row that is chosen; empty: words for no rows.
 */
export function table({ name, columns, key, open, empty, noun }) {
  const place = $(`${name}-table`);
  const search = $(`${name}-search`);
  const count = $(`${name}-count`);
  const body = make("tbody");
  const note = make("p", { class: "empty" });
  const where = make("span");
  const back = make("button", { click: () => turn(-1) }, "Previous");
  const on = make("button", { click: () => turn(1) }, "Next");
  const pager = make("div", { class: "pager" }, back, where, on);
  const frame = make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...columns.map(([title, , style]) =>
      make("th", { scope: "col", class: style }, title)))),
    body,
  );
  place.append(make("div", { class: "card frame" }, frame, note), pager);
  let page = 0;
  let timer = 0;
  let asked = 0;
  let drawn = "";

  async function load() {
    clearTimeout(timer);
    const mine = ++asked;
    try {
      const list = await ask(ofApp(name), { search: search.value.trim(), page });
      if (mine !== asked) return;
      draw(list);
    } catch (error) {
      if (mine !== asked) return;
      note.textContent = error.message;
      note.hidden = false;
    }
    timer = setTimeout(load, document.hidden ? EVERY * 5 : EVERY);
  }

  function draw({ total, size, rows }) {
    const pages = Math.max(1, Math.ceil(total / size));
    if (page >= pages) {
      page = pages - 1;
      load();
      return;
    }
    count.textContent = `${number(total)} ${search.value.trim() ? "found" : noun}`;
    where.textContent = `Page ${number(page + 1)} of ${number(pages)}`;
    back.disabled = page === 0;
    on.disabled = page === pages - 1;
    pager.hidden = pages === 1;
    frame.hidden = rows.length === 0;
    note.hidden = rows.length > 0;
    note.textContent = search.value.trim() ? "Nothing is like that." : empty;
    // Anew every ten seconds, too: how long ago something was is among the words.
    const text = JSON.stringify([rows, Math.floor(Date.now() / 10_000)]);
    if (text === drawn) return; // what stands there keeps the focus and the selection
    drawn = text;
    const focused = body.contains(document.activeElement)
      ? document.activeElement.dataset.key
      : null;
    body.replaceChildren(...rows.map(line));
    if (focused != null) {
      [...body.querySelectorAll("button")].find((b) => b.dataset.key === focused)?.focus();
    }
  }

  function line(row) {
    const cells = columns.map(([title, cell, style], index) => {
      const content = cell(row);
      const inner =
        index === 0
          ? make("button", { class: "link", "data-key": key(row), click: () => open(row) }, content)
          : content;
      const classes = content === NOTHING ? `${style} nothing` : style;
      return make("td", { class: classes, "data-title": title }, inner);
    });
    const choose = (event) => {
      if (!event.target.closest("button") && !String(getSelection())) open(row);
    };
    return make("tr", { click: choose }, ...cells);
  }

  function turn(by) {
    page += by;
    load();
    place.scrollIntoView({ block: "nearest" });
  }

  search.addEventListener("input", calmly(() => {
    page = 0;
    load();
  }));

  return {
    load,
    show: load,
    hide() {
      clearTimeout(timer);
      asked += 1;
    },
    reset() {
      page = 0;
      search.value = "";
      drawn = "";
      body.replaceChildren();
      count.textContent = "";
    },
  };
}
