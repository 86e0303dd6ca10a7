// The messages of one conversation. Python sends batches of operations; all rows are kept as plain
// data, and Vue gets a window of them, so that the page stays small however long the conversation.
import { computed, nextTick, onBeforeUnmount, onMounted, reactive, ref } from "vue";

const IN_PAGE = 600; // rows in the page at the most
const STEP = 200; // rows the window moves by
const KEPT = 3000; // rows kept; beyond them the oldest go when the reader is at the end
const GROUP = 5 * 60_000; // ms between two messages that still belong together
const NEAR = 400; // px from an edge at which more is wanted

const STATUS = {
  sending: ["schedule", "Sending"],
  sent: ["done", "Sent"],
  delivered: ["done_all", "Delivered"],
  read: ["done_all", "Read"],
  failed: ["error", "Not sent"],
};
const LINK = /\bhttps?:\/\/[^\s<>"']+/gi;
const FEW_EMOJI = /^(?:\p{RGI_Emoji}\s*){1,3}$/v;

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const thisYear = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const otherYear = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const fromToday = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

const midnight = (at) => new Date(at).setHours(0, 0, 0, 0);

function dayLabel(at, today) {
  const days = Math.round((midnight(at) - today) / 86_400_000);
  if (days === 0 || days === -1) {
    const word = fromToday.format(days, "day");
    return word[0].toLocaleUpperCase() + word.slice(1);
  }
  const sameYear = new Date(at).getFullYear() === new Date(today).getFullYear();
  return (sameYear ? thisYear : otherYear).format(at);
}

// Text and links, in order. A link ends before the punctuation of the sentence around it.
function partsOf(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    let url = match[0].replace(/[.,;:!?*_~]+$/, "");
    while (url.endsWith(")") && url.split(")").length > url.split("(").length)
      url = url.slice(0, -1).replace(/[.,;:!?]+$/, "");
    if (!URL.canParse(url)) continue;
    parts.push({ text: text.slice(end, match.index) }, { text: url, href: url });
    end = match.index + url.length;
  }
  return [...parts, { text: text.slice(end) }].filter((part) => part.text);
}

function initialsOf(name) {
  const words = name.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word));
  const ends = words.length > 1 ? [words[0], words.at(-1)] : words;
  return ends.map((word) => word.match(/[\p{L}\p{N}]/u)[0].toLocaleUpperCase()).join("") || "?";
}

function hueOf(id) {
  let hash = 7;
  for (const char of id) hash = (hash * 31 + char.codePointAt(0)) % 3600;
  return (hash * 137) % 360;
}

// What a row shows is made here, once per change, and not at each rendering.
function fill(row, item) {
  Object.assign(row, item);
  row.sender ||= "Unknown";
  row.text ??= "";
  row.parts = partsOf(row.text);
  row.large = row.text.length < 40 && FEW_EMOJI.test(row.text.trim());
  row.time = typeof row.at === "number" ? row.at : Date.parse(row.at);
  const dated = !Number.isNaN(new Date(row.time).getTime());
  row.day = dated ? midnight(row.time) : null;
  row.clock = dated ? clock.format(row.time) : "";
  row.moment = dated ? moment.format(row.time) : "";
  row.initials = initialsOf(row.sender);
  row.hue = hueOf(String(row.sender_id ?? row.sender));
  row.who = row.own ? "me" : `${row.sender_id ?? row.sender}`;
  row.tick = row.own ? STATUS[row.status] : undefined;
  row.label = [row.own ? "You" : row.sender, row.text, row.clock, row.tick?.[1]]
    .filter(Boolean)
    .join(", ");
  row.version = (row.version ?? 0) + 1;
  return row;
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure origin or the permission there is only the old way.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export default {
  emits: ["older", "seen", "retry", "discard"],
  template: `
    <div class="ml">
      <div ref="scroller" class="ml-scroll" role="log" aria-label="Messages" :aria-busy="state.busy"
          @scroll.passive="scrolled" @keydown="keyed">
        <div class="ml-top">
          <span v-if="state.loading" class="ml-spin" role="img" aria-label="Loading older messages"></span>
          <template v-else-if="view.length && !state.hasOlder && !state.first">
            Beginning of the conversation
          </template>
        </div>
        <div><div v-for="{ row, day, fresh, starts, ends } in view" :key="row.key" class="ml-row"
            v-memo="[row.version, day, fresh, starts, ends, row.key === current, row.key === state.copied]">
          <div v-if="day" class="ml-day"><span>{{ day }}</span></div>
          <div v-if="fresh" class="ml-fresh"><span>New messages</span></div>
          <div class="ml-message" :class="{ own: row.own, starts, ends }" :style="{ '--hue': row.hue }"
              :data-key="row.key" role="article" :aria-label="row.label"
              :tabindex="row.key === current ? 0 : -1" @focusin="state.active = row.key">
            <div v-if="!row.own" class="ml-avatar" aria-hidden="true">
              <span v-if="ends">{{ row.initials }}</span>
            </div>
            <div class="ml-bubble" :class="{ failed: row.status === 'failed', large: row.large }">
              <div v-if="starts && !row.own" class="ml-name" dir="auto">{{ row.sender }}</div>
              <div class="ml-text" dir="auto"><template v-for="part in row.parts"><a v-if="part.href"
                  :href="part.href" target="_blank" rel="noopener noreferrer"
                  :tabindex="row.key === current ? 0 : -1">{{ part.text }}</a><template
                  v-else>{{ part.text }}</template></template><span class="ml-meta"><time
                  v-if="row.clock" :title="row.moment">{{ row.clock }}</time><i v-if="row.tick"
                  class="ml-tick material-icons notranslate" :class="row.status" role="img"
                  :title="row.tick[1]" :aria-label="row.tick[1]" :data-icon="row.tick[0]"></i></span></div>
            </div>
            <button type="button" class="ml-copy" :tabindex="row.key === current ? 0 : -1"
                :aria-label="row.key === state.copied ? 'Copied' : 'Copy message'" title="Copy"
                @click="copy(row)">
              <i class="material-icons notranslate" aria-hidden="true"
                :data-icon="row.key === state.copied ? 'done' : 'content_copy'"></i>
            </button>
          </div>
          <div v-if="row.own && row.status === 'failed'" class="ml-failed">
            <span dir="auto">{{ row.error || "This message could not be sent." }}</span>
            <span class="ml-choices">
              <button type="button" @click="$emit('retry', row.key)">Retry</button>
              <button type="button" @click="$emit('discard', row.key)">Discard</button>
            </span>
          </div>
        </div></div>
        <div v-if="state.shown && !view.length && !state.hasOlder" class="ml-empty">
          <i class="material-icons notranslate" aria-hidden="true" data-icon="forum"></i>
          <strong>No messages yet</strong>
          <span>What you write appears here.</span>
        </div>
      </div>
      <button v-show="state.far" type="button" class="ml-jump" @click="jump"
          :aria-label="state.missed ? 'To the latest, ' + state.missed + ' new' : 'To the latest'">
        <i class="material-icons notranslate" aria-hidden="true" data-icon="keyboard_arrow_down"></i>
        <span v-if="state.missed" class="ml-count" aria-hidden="true">{{
          state.missed > 99 ? "99+" : state.missed }}</span>
      </button>
    </div>`,

  setup(_, { emit }) {
    let rows = []; // every row kept, oldest first
    let byKey = new Map();
    let gone = new Set(); // keys of rows let go of; they come back as older ones
    let seen = null; // key of the last one reported
    let seeing = 0;
    let unasked = true; // no answer without news since the reader scrolled
    let asked; // with which first key older ones were asked for; undefined once that is answered

    const scroller = ref(null);
    const state = reactive({
      version: 0, // of `rows`, which Vue does not watch
      first: 0, // the window: rows[first] up to, and without, rows[last]
      last: 0,
      shown: false,
      busy: false, // what changes now is no news for a screen reader
      hasOlder: false,
      loading: false,
      atEnd: true,
      far: false,
      missed: 0,
      fresh: null, // key below the "New messages" line
      active: null, // key of the message with the focus
      copied: null,
      today: midnight(Date.now()),
    });

    const view = computed(() => {
      void state.version;
      const shown = [];
      let day = null;
      for (let i = state.first; i < state.last; i++) {
        const row = rows[i];
        const newDay = row.day !== null && row.day !== day;
        if (newDay) day = row.day;
        const fresh = row.key === state.fresh;
        const before = rows[i - 1];
        const starts =
          newDay || fresh || before?.who !== row.who || Math.abs(row.time - before.time) > GROUP;
        if (shown.length) shown.at(-1).ends = starts;
        shown.push({ row, day: newDay ? dayLabel(day, state.today) : "", fresh, starts, ends: true });
      }
      return shown;
    });

    const current = computed(() => {
      const shown = view.value;
      return shown.some(({ row }) => row.key === state.active) ? state.active : shown.at(-1)?.row.key;
    });

    const firstKey = () => rows[0]?.key ?? null;
    const indexOf = (key) => rows.indexOf(byKey.get(key));
    const elements = () => scroller.value.getElementsByClassName("ml-message");
    const toEnd = () => (scroller.value.scrollTop = scroller.value.scrollHeight);

    // Change rows or window, and leave what is being read where it is on the screen.
    async function change(mutate) {
      const list = scroller.value;
      const reading = [];
      if (!state.atEnd) {
        const { top, bottom } = list.getBoundingClientRect();
        for (const element of elements()) {
          const box = element.getBoundingClientRect();
          if (box.top >= bottom) break;
          if (box.bottom > top) reading.push([element, box.top]);
        }
      }
      mutate();
      state.version++;
      await nextTick();
      if (state.atEnd) return toEnd();
      // The middle one: the first may lose its name or day to an older message above it.
      reading.unshift(...reading.splice(reading.length >> 1));
      const [element, top] = reading.find(([element]) => element.isConnected) ?? [];
      if (element) list.scrollTop += element.getBoundingClientRect().top - top;
    }

    function windowToEnd() {
      state.last = rows.length;
      if (state.last - state.first > IN_PAGE) state.first = state.last - IN_PAGE + STEP;
      if (rows.length <= KEPT) return;
      const dropped = rows.splice(0, rows.length - KEPT + STEP);
      for (const { key } of dropped) byKey.delete(key), gone.add(key);
      state.first -= dropped.length;
      state.last -= dropped.length;
      state.hasOlder = true;
    }

    function placeOf(item) {
      if (item.after === undefined) return rows.length;
      if (item.after === null) return gone.size ? -1 : 0;
      const before = byKey.get(item.after);
      if (before) return rows.indexOf(before) + 1;
      // It stands behind one that is not here: among the older ones, or its neighbour was removed.
      const isOlder = state.hasOlder && rows.length && fill({}, item).time < rows[0].time;
      return isOlder ? -1 : rows.length;
    }

    function insert(item) {
      const place = placeOf(item);
      if (place < 0) return;
      const isWhole = state.last === rows.length;
      const row = fill({}, item);
      rows.splice(place, 0, row);
      byKey.set(row.key, row);
      if (place < state.first) state.first++, state.last++;
      else if (place < state.last || (isWhole && state.last - state.first < IN_PAGE)) state.last++;
      if (row.own) {
        state.fresh = null;
        if (row.status === "sending") state.atEnd = true; // one sees what one sends
        return;
      }
      if (!state.atEnd) state.missed++;
      if (!document.hasFocus() && indexOf(state.fresh) <= indexOf(seen)) state.fresh = row.key;
    }

    const operations = {
      show(items, hasOlder, fresh) {
        rows = [];
        byKey = new Map();
        gone = new Set();
        seen = null;
        asked = undefined;
        for (const item of items) if (!byKey.has(item.key)) byKey.set(item.key, fill({}, item));
        rows = [...byKey.values()];
        const start = indexOf(fresh);
        Object.assign(state, {
          shown: true, hasOlder, loading: false, missed: 0, active: null, far: false,
          fresh: start < 0 ? null : fresh,
          atEnd: start < 0,
          first: Math.max(0, (start < 0 ? rows.length : start) - STEP),
        });
        state.last = Math.min(rows.length, state.first + IN_PAGE);
        if (start >= 0) {
          nextTick(() => {
            const list = scroller.value;
            const { top } = list.querySelector(".ml-fresh").getBoundingClientRect();
            list.scrollTop += top - list.getBoundingClientRect().top - list.clientHeight / 4;
          });
        }
      },
      put(items) {
        for (const item of items) {
          const row = byKey.get(item.key);
          if (row) fill(row, item);
          else if (!gone.has(item.key)) insert(item);
        }
        if (state.atEnd) windowToEnd();
      },
      remove(key) {
        const place = indexOf(key);
        if (place < 0) return;
        rows.splice(place, 1);
        byKey.delete(key);
        if (place < state.first) state.first--;
        if (place < state.last) state.last--;
        if (state.fresh === key) state.fresh = rows[place]?.key ?? null;
      },
      older(items, hasOlder, before) {
        if (before !== asked) return; // it was asked for before `show`
        asked = undefined;
        state.loading = false;
        unasked = true;
        if (before !== firstKey()) return; // there would be a gap: it is asked for again
        const fresh = items.filter(({ key }) => !byKey.has(key)).map((item) => fill({}, item));
        for (const row of fresh) byKey.set(row.key, row), gone.delete(row.key);
        rows.unshift(...fresh);
        state.first = Math.max(0, state.first + fresh.length - STEP);
        state.last = Math.min(state.last + fresh.length, state.first + IN_PAGE);
        state.hasOlder = hasOlder;
        unasked = fresh.length > 0;
      },
    };

    // Called from Python, with what came within one 20th of a second.
    async function batch(calls) {
      state.busy = calls.some(([name]) => name === "show" || name === "older");
      await change(() => calls.forEach(([name, ...args]) => operations[name](...args)));
      await nextTick(); // where `show` scrolls to its line
      measure();
      if (state.busy) requestAnimationFrame(() => (state.busy = false));
    }

    function scrolled() {
      unasked = true;
      measure();
    }

    function measure() {
      const list = scroller.value;
      if (!list?.clientHeight) return; // hidden
      const below = list.scrollHeight - list.scrollTop - list.clientHeight;
      const isWhole = state.last === rows.length;
      state.atEnd = isWhole && below < 40;
      state.far = !isWhole || below > 240;
      if (state.atEnd) state.missed = 0;
      if (list.scrollTop < NEAR) up();
      else if (!isWhole && below < NEAR) down();
      if (!seeing) seeing = setTimeout(report, 200);
    }

    function up() {
      if (state.first > 0) {
        change(() => {
          state.first = Math.max(0, state.first - STEP);
          state.last = Math.min(state.last, state.first + IN_PAGE);
        });
      } else if (state.shown && state.hasOlder && !state.loading && unasked) {
        state.loading = true;
        asked = firstKey();
        emit("older", asked);
      }
    }

    function down() {
      change(() => {
        state.last = Math.min(rows.length, state.last + STEP);
        state.first = Math.max(state.first, state.last - IN_PAGE);
      });
    }

    // The newest message of others that a person has before their eyes.
    function report() {
      seeing = 0;
      const list = scroller.value;
      if (!list?.clientHeight || document.visibilityState !== "visible" || !document.hasFocus()) return;
      const { bottom } = list.getBoundingClientRect();
      const shown = elements();
      for (let i = shown.length - 1; i >= 0; i--) {
        const row = byKey.get(shown[i].dataset.key);
        if (!row || row.own || shown[i].getBoundingClientRect().top + 24 > bottom) continue;
        if (indexOf(row.key) <= indexOf(seen)) return;
        seen = row.key;
        emit("seen", row.key);
        return;
      }
    }

    async function jump() {
      state.atEnd = true;
      await change(() => {
        state.first = Math.max(state.first, rows.length - STEP);
        windowToEnd();
      });
      measure();
    }

    async function focus(key) {
      state.active = key;
      await nextTick();
      [...elements()].find(({ dataset }) => dataset.key === key)?.focus();
    }

    async function keyed(event) {
      if (!event.target.classList.contains("ml-message")) return;
      const place = view.value.findIndex(({ row }) => row.key === current.value);
      const copies = event.key === "c" && (event.ctrlKey || event.metaKey);
      if (copies && getSelection().isCollapsed) copy(view.value[place].row);
      else if (event.ctrlKey || event.metaKey || event.altKey) return;
      else if (event.key === "ArrowUp") focus(view.value[Math.max(0, place - 1)].row.key);
      else if (event.key === "ArrowDown") focus(view.value[Math.min(view.value.length - 1, place + 1)].row.key);
      else if (event.key === "Home") focus(view.value[0].row.key);
      else if (event.key === "End") await jump(), focus(rows.at(-1).key);
      else return;
      event.preventDefault();
    }

    async function copy(row) {
      const focused = document.activeElement;
      await toClipboard(row.text);
      focused?.focus();
      state.copied = row.key;
      setTimeout(() => state.copied === row.key && (state.copied = null), 1500);
    }

    // Also when the box below grows, a phone's keyboard opens, or a font arrives late.
    const sizes = new ResizeObserver(() => {
      if (state.atEnd) toEnd();
      measure();
    });
    const days = setInterval(() => (state.today = midnight(Date.now())), 60_000);

    onMounted(() => {
      sizes.observe(scroller.value);
      window.addEventListener("focus", measure);
      document.addEventListener("visibilitychange", measure);
    });
    onBeforeUnmount(() => {
      sizes.disconnect();
      clearInterval(days);
      clearTimeout(seeing);
      window.removeEventListener("focus", measure);
      document.removeEventListener("visibilitychange", measure);
    });

    return { batch, copy, current, jump, keyed, scrolled, scroller, state, view };
  },
};

document.head.append(
  Object.assign(document.createElement("style"), {
    textContent: `
.ml { position: relative; flex: 1 1 0; min-height: 0; width: 100%;
  --page: var(--ap-bg, #f2f4f8); --theirs: var(--ap-surface, #fff); --text: var(--ap-text, #1b1d21);
  --meta: var(--ap-muted, #575e6e); --line: var(--ap-line, #dfe3ea); --accent: var(--ap-accent, #1b5fbf);
  --error: var(--ap-negative, #b3261e); --chip: var(--ap-inset, #e3e7ee);
  --name: 0.46; --shadow: 0 1px 1.5px #0000001f; --own: #1b5fbf; --on-own: #fff; --on-own-meta: #e2ebf8; --read: #8df0ff;
  background: var(--page); color: var(--text); font-size: 15px; line-height: 1.4; }
.body--dark .ml { --page: var(--ap-bg, #111318); --theirs: var(--ap-inset, #23272f); --text: var(--ap-text, #e5e7ec);
  --meta: var(--ap-muted, #a4acba); --line: var(--ap-line, #313641); --accent: var(--ap-accent, #a8c7fa);
  --error: var(--ap-negative, #ffb4ab); --chip: var(--ap-inset, #262a33); --name: 0.8; --shadow: none; }
/* The app's primary colour, as dark as the white text on it needs. */
@supports (color: oklch(from red l c h)) {
  .ml { --own: oklch(from var(--q-primary, #1b5fbf) min(l, 0.49) min(c, 0.17) h); }
  .body--dark .ml { --own: oklch(from var(--q-primary, #1b5fbf) min(l, 0.44) min(c, 0.17) h); }
}
.ml-scroll { position: absolute; inset: 0; overflow: hidden auto; overflow-anchor: none;
  overscroll-behavior: contain; padding: 0 max(12px, calc(50% - 420px)) 12px; display: flex;
  flex-direction: column; scrollbar-width: thin; scrollbar-color: var(--line) transparent; }
.ml-scroll > * { flex: none; }
.ml-row { contain: layout style; }
.ml-top { height: 44px; margin-bottom: auto; display: flex; align-items: center; justify-content: center;
  color: var(--meta); font-size: 13px; }
.ml-spin { width: 22px; height: 22px; border: 3px solid var(--line); border-top-color: var(--accent);
  border-radius: 50%; animation: ml-spin 0.8s linear infinite; }
@keyframes ml-spin { to { transform: rotate(1turn); } }
.ml-day, .ml-fresh { display: flex; align-items: center; justify-content: center; margin: 14px 0 8px;
  font-size: 12.5px; font-weight: 500; }
.ml-day span { padding: 3px 12px; border-radius: 12px; background: var(--chip); color: var(--meta); }
.ml-fresh { gap: 12px; color: var(--accent); }
.ml-fresh::before, .ml-fresh::after { content: ""; flex: 1; border-top: 1px solid currentcolor; opacity: 0.4; }
.ml-message { display: flex; align-items: flex-end; gap: 8px; margin-top: 2px; border-radius: 12px; outline: none; }
.ml-message.starts { margin-top: 10px; }
.ml-message.own { flex-direction: row-reverse; }
.ml-avatar { flex: none; width: 32px; }
.ml-avatar span { display: grid; place-items: center; width: 32px; height: 32px; border-radius: 50%;
  background: oklch(0.5 0.1 var(--hue)); color: #fff; font-size: 12.5px; font-weight: 600; }
.ml-bubble { max-width: min(78%, 620px); padding: 6px 12px 7px; border-radius: 18px; background: var(--theirs);
  box-shadow: var(--shadow); min-width: 0; }
.own .ml-bubble { background: var(--own); color: var(--on-own); }
.ml-message:not(.own) .ml-bubble { border-start-start-radius: 6px; border-end-start-radius: 6px; }
.ml-message.own .ml-bubble { border-start-end-radius: 6px; border-end-end-radius: 6px; }
.ml-message.starts:not(.own) .ml-bubble { border-start-start-radius: 18px; }
.ml-message.starts.own .ml-bubble { border-start-end-radius: 18px; }
.ml-message.ends:not(.own) .ml-bubble { border-end-start-radius: 3px; }
.ml-message.ends.own .ml-bubble { border-end-end-radius: 3px; }
.ml-message:focus-visible .ml-bubble { outline: 2px solid var(--accent); outline-offset: 2px; }
.ml-name { font-size: 13px; font-weight: 600; color: oklch(var(--name) 0.12 var(--hue)); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.ml-text { display: flow-root; white-space: pre-wrap; overflow-wrap: anywhere; text-align: start; }
.ml-text a { color: var(--accent); text-decoration: underline; text-underline-offset: 2px; border-radius: 3px; }
.own .ml-text a { color: inherit; }
.ml-meta { float: right; float: inline-end; display: inline-flex; align-items: center; gap: 3px;
  margin: 5px 0 -4px; margin-inline: 10px -2px; font-size: 11.5px; line-height: 18px; color: var(--meta);
  white-space: nowrap; user-select: none; }
.own .ml-meta { color: var(--on-own-meta); }
.ml [data-icon]::before { content: attr(data-icon); }
.ml-tick { font-size: 16px; line-height: 18px; }
.ml-tick.read { color: var(--read); }
.ml-bubble.large .ml-text { font-size: 34px; line-height: 1.2; }
.ml-bubble.large .ml-meta { margin-top: 26px; }
.ml-copy, .ml-jump, .ml-failed button { border: 0; cursor: pointer; font: inherit; }
.ml-copy { flex: none; align-self: center; width: 32px; height: 32px; border-radius: 50%; background: none;
  color: var(--meta); visibility: hidden; }
.ml-copy i { font-size: 17px; vertical-align: middle; }
.ml-message:hover .ml-copy, .ml-message:focus-within .ml-copy { visibility: visible; }
.ml-copy:hover { background: var(--chip); }
.ml-failed { display: flex; flex-wrap: wrap; align-items: center; justify-content: flex-end; gap: 2px 4px;
  margin: 2px 4px 6px 15%; font-size: 13px; color: var(--error); text-align: end; overflow-wrap: anywhere; }
.ml-choices { white-space: nowrap; }
.ml-failed button { padding: 4px 10px; border-radius: 14px; background: none; color: var(--accent); font-weight: 600; }
.ml-failed button:hover { background: var(--chip); }
.ml-bubble.failed { background: none; color: var(--text); box-shadow: inset 0 0 0 1.5px var(--error); }
.ml-bubble.failed .ml-meta, .ml-bubble.failed .ml-tick { color: var(--error); }
.ml-bubble.failed .ml-text a { color: var(--accent); }
.ml-empty { margin: 0 auto auto; display: flex; flex-direction: column; align-items: center; gap: 4px; color: var(--meta); }
.ml-empty i { font-size: 56px; opacity: 0.6; }
.ml-empty strong { color: var(--text); font-size: 17px; font-weight: 500; }
.ml-jump { position: absolute; right: max(16px, calc(50% - 440px)); bottom: 16px; width: 44px; height: 44px;
  border-radius: 50%; background: var(--theirs); color: var(--meta); box-shadow: 0 2px 8px #00000040; }
.ml-jump i { font-size: 26px; vertical-align: middle; }
.ml-count { position: absolute; top: -6px; right: -4px; min-width: 20px; padding: 0 6px; border-radius: 10px;
  background: var(--own); color: var(--on-own); font-size: 12px; font-weight: 600; line-height: 20px; }
.ml button:focus-visible, .ml a:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.own .ml-bubble:not(.failed) a:focus-visible { outline-color: #fff; }
@media (max-width: 600px) { .ml-bubble { max-width: 84%; } .ml-avatar, .ml-avatar span { width: 28px; }
  .ml-avatar span { height: 28px; font-size: 11.5px; } .ml-message { gap: 6px; }
  .ml-copy { width: 28px; height: 28px; margin-inline: -6px; } }
@media (prefers-reduced-motion: reduce) { .ml-spin { animation-duration: 3s; } }
`,
  }),
);
