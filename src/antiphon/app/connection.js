// What a technician wants to know of the connection: facts, and the last happenings as a list that
// can be filtered. Python sends what is new in batches; rows are plain data, newest first.
const KEPT = 100;

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});
const ICONS = { event: "bolt", state: "swap_horiz", channel: "tag", wait: "schedule", error: "error_outline" };
const KINDS = { event: "Event", state: "State", channel: "Channel", wait: "Attempt", error: "Error" };

// A selection is copied without asking for a permission, and on plain http, too.
function copy(text) {
  const area = document.createElement("textarea");
  const focused = document.activeElement;
  area.value = text;
  area.style.cssText = "position:fixed;opacity:0";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  focused?.focus();
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text; // it was cut, or never was JSON
  }
}

export default {
  template: `
    <div class="cn">
    <section class="ap-section" aria-label="Connection">
      <h2>Connection</h2>
      <div class="ap-card">
        <div class="cn-state" :class="facts.tone" role="status">
          <span class="cn-dot" aria-hidden="true"></span>
          <div class="ap-row-text"><b>{{ facts.state }}</b><small v-if="facts.problem">{{ facts.problem }}</small></div>
          <button v-if="facts.can_retry" type="button" class="cn-tool" @click="$emit('retry')">
            <q-icon name="refresh" aria-hidden="true" />Retry now
          </button>
        </div>
        <dl class="cn-facts">
          <div v-for="[name, value, mono] in facts.rows" :key="name">
            <dt>{{ name }}</dt><dd :class="{ 'ap-mono': mono }">{{ value }}</dd>
          </div>
        </dl>
      </div>
    </section>

    <section class="ap-section" aria-label="Channels">
      <h2>Channels <span class="cn-number">{{ facts.channels.length }}</span></h2>
      <div class="ap-card">
        <p v-if="!facts.channels.length" class="cn-empty">No channels yet.</p>
        <ul v-else class="cn-channels" tabindex="0">
          <li v-for="[name, state] in facts.channels" :key="name">
            <span class="ap-mono">{{ name }}</span><span class="cn-chip" :class="state">{{ state }}</span>
          </li>
        </ul>
      </div>
    </section>

    <section class="ap-section" aria-label="Inspector">
      <h2>Last {{ kept }} events</h2>
      <div class="ap-card">
        <div class="cn-tools">
          <label class="cn-filter">
            <q-icon name="search" aria-hidden="true" />
            <input v-model="filter" type="search" placeholder="Filter by name, channel or text"
              aria-label="Filter by name, channel or text" autocomplete="off" spellcheck="false" @keydown.esc="filter = ''" />
          </label>
          <button type="button" class="cn-tool" :class="{ on: frozen }" :aria-pressed="!!frozen" @click="pause">
            <q-icon :name="frozen ? 'play_arrow' : 'pause'" aria-hidden="true" />{{ frozen ? "Resume" : "Pause" }}
          </button>
          <button type="button" class="cn-tool" :disabled="!found.length" @click="copyAll">
            <q-icon :name="copied === 'all' ? 'check' : 'content_copy'" aria-hidden="true" />{{ copied === "all" ? "Copied" : "Copy all" }}
          </button>
          <button type="button" class="cn-tool" :disabled="!rows.length" @click="clear">
            <q-icon name="delete_sweep" aria-hidden="true" />Clear
          </button>
        </div>
        <p class="cn-count" role="status">{{ count }}</p>
        <p v-if="!found.length" class="cn-empty">{{ filter ? "Nothing matches the filter." : "Nothing has happened yet." }}</p>
        <ul v-else class="cn-list" ref="list" @keydown.down.prevent="step(1)" @keydown.up.prevent="step(-1)">
          <li v-for="row in found" :key="row.n" :class="row.kind">
            <button type="button" class="cn-row" :aria-expanded="open.has(row.n)" @click="toggle(row.n)">
              <q-icon :name="icons[row.kind]" aria-hidden="true" />
              <span class="ap-visually-hidden">{{ kinds[row.kind] }}</span>
              <time :datetime="new Date(row.at).toISOString()">{{ clock(row.at) }}</time>
              <span class="cn-name">{{ row.name }}</span>
              <span class="cn-channel">{{ row.channel }}</span>
              <span class="cn-preview">{{ row.text.slice(0, 160) }}</span>
            </button>
            <div v-if="open.has(row.n)" class="cn-data">
              <pre tabindex="0" :aria-label="'Data of ' + row.name">{{ pretty(row) }}</pre>
              <button type="button" class="cn-tool" @click="copyOne(row)">
                <q-icon :name="copied === row.n ? 'check' : 'content_copy'" aria-hidden="true" />{{ copied === row.n ? "Copied" : "Copy" }}
              </button>
            </div>
          </li>
        </ul>
      </div>
    </section>
    </div>
  `,
  props: { first: Object },
  data() {
    return {
      facts: this.first.facts, rows: this.first.rows.toReversed(),
      filter: "", frozen: null, open: new Set(), copied: null, kept: KEPT, icons: ICONS, kinds: KINDS,
    };
  },
  computed: {
    found() {
      const word = this.filter.trim().toLowerCase();
      const rows = this.frozen ?? this.rows;
      if (!word) return rows;
      return rows.filter((row) => `${row.name}\n${row.channel}\n${row.text}`.toLowerCase().includes(word));
    },
    count() {
      const all = (this.frozen ?? this.rows).length;
      const text = `${this.filter ? `${this.found.length} of ${all}` : all} shown`;
      if (!this.frozen) return text;
      const newest = this.frozen[0]?.n ?? -1;
      const waiting = this.rows.filter((row) => row.n > newest).length;
      return `${text} · paused${waiting ? `, ${waiting === KEPT ? "100 or more" : waiting} new` : ""}`;
    },
  },
  mounted() {
    // Frames and pings are not told one by one; who looks, asks.
    this.asking = setInterval(() => document.hidden || this.$emit("look"), 5000);
  },
  unmounted() {
    clearInterval(this.asking);
    clearTimeout(this.forgetting);
  },
  methods: {
    put(facts, rows) {
      this.facts = facts;
      if (!rows.length) return;
      this.rows = [...rows.toReversed(), ...this.rows].slice(0, KEPT);
      if (this.open.size) {
        const known = new Set([...this.rows, ...(this.frozen ?? [])].map((row) => row.n));
        this.open = new Set([...this.open].filter((n) => known.has(n)));
      }
    },
    clock: (at) => clock.format(at),
    pretty(row) {
      const data = parsed(row.text);
      return (typeof data === "string" ? data : JSON.stringify(data, null, 2)) + (row.cut ? `\n… ${row.cut} more characters` : "");
    },
    toggle(n) {
      this.open.delete(n) || this.open.add(n);
    },
    pause() {
      this.frozen = this.frozen ? null : this.rows;
    },
    clear() {
      this.rows = [];
      this.frozen &&= [];
      this.open.clear();
      this.$emit("clear");
    },
    step(by) {
      const buttons = [...this.$refs.list.querySelectorAll(".cn-row")];
      const row = document.activeElement.closest("li")?.querySelector(".cn-row");
      buttons[Math.min(buttons.length - 1, Math.max(0, buttons.indexOf(row) + by))]?.focus();
    },
    plain: (row) => ({
      time: new Date(row.at).toISOString(), kind: row.kind, name: row.name,
      channel: row.channel || undefined, data: parsed(row.text),
    }),
    copyOne(row) {
      this.say(row.n, this.plain(row));
    },
    copyAll() {
      this.say("all", this.found.map(this.plain));
    },
    say(what, data) {
      copy(JSON.stringify(data, null, 2));
      this.copied = what;
      clearTimeout(this.forgetting);
      this.forgetting = setTimeout(() => (this.copied = null), 2000);
    },
  },
};
