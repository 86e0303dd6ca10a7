// Elements are made here and nowhere else, and text is only ever text: what strangers
// have written (names of channels, data, origins) cannot become markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** An element with attributes (functions are listeners) and children, strings among them. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for what stands in an <svg>. */
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== ""));
  return element;
}

let hiding = 0;

/** A short word at the edge of the screen, above an open dialog too. */
export function toast(text, isError = false) {
  const box = $("toast");
  clearTimeout(hiding);
  if (box.matches(":popover-open")) box.hidePopover(); // to come up above all else again
  box.textContent = text;
  box.className = isError ? "error" : "";
  box.showPopover();
  hiding = setTimeout(() => box.hidePopover(), isError ? 7000 : 3500);
}

/** A button that asks once more before it does what cannot be taken back. */
export function sureButton(words, question, act) {
  const button = make("button", { class: "danger" }, words);
  let back = 0;
  const calm = () => {
    button.textContent = words;
    button.classList.remove("sure");
  };
  button.addEventListener("click", async () => {
    clearTimeout(back);
    if (!button.classList.contains("sure")) {
      button.textContent = question;
      button.classList.add("sure");
      back = setTimeout(calm, 4000);
      return;
    }
    button.disabled = true;
    try {
      await act();
    } catch (error) {
      toast(error.message, true);
    }
    button.disabled = false;
    calm();
  });
  return button;
}

/** Calls a function once its caller has been quiet for a moment. */
export function calmly(call, delay = 200) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(call, delay);
  };
}

/** Text as indented JSON, or as it is where it is none. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export const number = (value) => value.toLocaleString("en");

export const several = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

export async function copy(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Without TLS there is no clipboard but this one.
  const area = make("textarea", { class: "offscreen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("The browser did not allow the copy.");
}
