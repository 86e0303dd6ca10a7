// The conversations: all of them as plain data, and elements only for those in sight.
import { computed, nextTick, onBeforeUnmount, onMounted, reactive, ref, shallowRef } from "vue";

const HEIGHT = 72; // px of a row; screens.css has the same
const BEYOND = 6; // rows kept ready above and below

const TICKS = {
  sending: ["schedule", "Sending"],
  sent: ["done", "Sent"],
  delivered: ["done_all", "Delivered"],
  read: ["done_all", "Read"],
  failed: ["error", "Not sent"],
};

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "short" });

const midnight = (at) => new Date(at).setHours(0, 0, 0, 0);

function when(at, today) {
  const days = Math.round((today - midnight(at)) / 86_400_000);
  if (days <= 0) return clock.format(at);
  if (days < 7) return weekday.format(at);
  return (new Date(at).getFullYear() === new Date(today).getFullYear() ? day : date).format(at);
}

const idOf = (row) => `cl-${encodeURIComponent(row.id)}`;
const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLocaleLowerCase();

export default {
  emits: ["open", "start"],
  props: { current: String },
  template: `
    <div class="cl">
      <div class="cl-search">
        <i class="material-icons notranslate" aria-hidden="true">search</i>
        <input type="search" v-model="state.search" aria-label="Search conversations" placeholder="Search"
          autocomplete="off" spellcheck="false" maxlength="200" @keydown="searching" @input="top">
      </div>
      <div ref="scroller" class="cl-scroll" @scroll.passive="measure">
        <div v-if="found.length" ref="list" class="cl-rows" role="listbox" tabindex="0" aria-label="Conversations"
            :aria-activedescendant="marked < 0 ? null : idOf(found[marked])" @keydown="keyed" @focus="entered"
            @blur="state.focused = false" :style="{ height: found.length * ${HEIGHT} + 'px' }">
          <div v-for="{ row, place } in shown" :key="row.id" :id="idOf(row)" class="cl-row" role="option"
              :class="{ current: row.id === current, marked: state.focused && place === marked }"
              :aria-selected="row.id === current" :aria-posinset="place + 1" :aria-setsize="found.length"
              :style="{ transform: 'translateY(' + place * ${HEIGHT} + 'px)' }" @mousedown.prevent @click="open(row)">
            <span class="ap-avatar" :class="{ 'ap-online': row.online }" aria-hidden="true"
              :style="{ '--size': '48px', background: row.color }">{{ row.initials }}</span>
            <span class="cl-title" dir="auto">{{ row.title }}<span v-if="row.online"
              class="ap-visually-hidden">, online</span></span>
            <time v-if="row.at !== null" class="cl-time">{{ when(row.at, state.today) }}</time>
            <span v-if="row.typing" class="cl-last cl-typing" dir="auto">{{ row.typing }}</span>
            <span v-else class="cl-last" dir="auto"><i v-if="TICKS[row.status]"
              class="cl-tick material-icons notranslate" :class="row.status" role="img"
              :aria-label="TICKS[row.status][1]" :data-icon="TICKS[row.status][0]"></i><b
              v-if="row.prefix">{{ row.prefix }}: </b>{{ row.text || "No messages yet" }}</span>
            <span v-if="row.unread" class="cl-unread">{{ row.unread > 99 ? "99+" : row.unread }}<span
              class="ap-visually-hidden"> unread</span></span>
          </div>
        </div>
        <div v-else-if="!state.loaded" class="cl-waiting" role="status" aria-label="Loading conversations">
          <div v-for="n in 7" :key="n" class="cl-row"><span></span><span></span><span></span></div>
        </div>
        <div v-else class="cl-empty">
          <i class="material-icons notranslate" aria-hidden="true">{{ state.search ? "search_off" : "forum" }}</i>
          <strong>{{ state.search ? "Nothing found" : "No conversations yet" }}</strong>
          <button type="button" @click="$emit('start')">Start a conversation</button>
        </div>
      </div>
      <p class="ap-visually-hidden" role="status">{{ state.search && found.length + " found" }}</p>
    </div>`,

  setup(props, { emit }) {
    const rows = shallowRef(new Map());
    const scroller = ref(null);
    const list = ref(null);
    const state = reactive({
      loaded: false,
      search: "",
      focused: false,
      active: null, // id of the row the arrows have reached
      from: 0,
      room: 20, // rows that fit
      today: midnight(Date.now()),
    });

    const sorted = computed(() =>
      [...rows.value.values()].sort((a, b) => b.order - a.order || (a.id < b.id ? 1 : -1)),
    );
    const found = computed(() => {
      const words = plain(state.search).split(/\s+/).filter(Boolean);
      if (!words.length) return sorted.value;
      return sorted.value.filter((row) => {
        row.plain ??= plain(`${row.title}\n${row.text}`);
        return words.every((word) => row.plain.includes(word));
      });
    });
    const marked = computed(() => {
      const wanted = state.active ?? props.current;
      const place = found.value.findIndex((row) => row.id === wanted);
      return place < 0 && state.focused ? 0 : place;
    });
    const shown = computed(() => {
      const from = Math.max(0, state.from - BEYOND);
      const window = found.value.slice(from, state.from + state.room + BEYOND);
      const places = window.map((row, n) => ({ row, place: from + n }));
      const place = marked.value; // what the focus is on stays in the page
      const isOut = place >= 0 && (place < from || place >= from + window.length);
      return isOut ? [...places, { row: found.value[place], place }] : places;
    });

    function measure() {
      const box = scroller.value;
      if (!box?.clientHeight) return;
      state.from = Math.floor(box.scrollTop / HEIGHT);
      state.room = Math.ceil(box.clientHeight / HEIGHT) + 1;
    }

    function take(news) {
      const next = new Map(rows.value);
      for (const row of news) {
        row.order = row.at ?? row.begun;
        next.set(row.id, row);
      }
      rows.value = next;
      state.loaded = true;
      nextTick(measure);
    }

    function show(all) {
      rows.value = new Map();
      state.loaded = false;
      take(all);
    }

    function open(row) {
      state.active = row.id;
      emit("open", row.id);
    }

    function move(place) {
      const row = found.value[Math.max(0, Math.min(found.value.length - 1, place))];
      if (!row) return;
      state.active = row.id;
      const box = scroller.value;
      const top = found.value.indexOf(row) * HEIGHT;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + HEIGHT > box.scrollTop + box.clientHeight) box.scrollTop = top + HEIGHT - box.clientHeight;
      measure();
    }

    function entered() {
      state.focused = true;
      state.active = props.current ?? found.value[0]?.id ?? null;
      move(marked.value);
    }

    function keyed(event) {
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: state.room - 2, PageUp: 2 - state.room };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in steps) move(marked.value + steps[event.key]);
      else if (event.key === "Home") move(0);
      else if (event.key === "End") move(found.value.length - 1);
      else if ((event.key === "Enter" || event.key === " ") && marked.value >= 0) open(found.value[marked.value]);
      else return;
      event.preventDefault();
    }

    async function searching(event) {
      if (event.isComposing) return;
      if (event.key === "ArrowDown") list.value?.focus();
      else if (event.key === "Enter" && found.value.length && state.search) open(found.value[0]);
      else if (event.key === "Escape") state.search = "";
      else return;
      event.preventDefault();
    }

    function top() {
      scroller.value.scrollTop = 0;
      state.active = null;
    }

    const sizes = new ResizeObserver(measure);
    const days = setInterval(() => (state.today = midnight(Date.now())), 60_000);
    onMounted(() => sizes.observe(scroller.value));
    onBeforeUnmount(() => {
      sizes.disconnect();
      clearInterval(days);
    });

    return {
      TICKS, entered, found, idOf, keyed, list, marked, measure, open, put: take, scroller, searching, show, shown,
      state, top, when,
    };
  },
};
