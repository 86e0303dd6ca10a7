// The banner under the header while there is no connection. Seconds are counted here, so that the
// server has nothing to say until something changes.
export default {
  template: `
    <div class="ap-banner" role="status" :class="[look.kind, { open: look.text }]">
      <div class="ap-banner-fold">
        <div v-if="look.text" class="ap-banner-row">
          <q-icon :name="look.icon" aria-hidden="true" />
          <span class="ap-banner-text">
            <b>{{ look.text }}</b> <span v-if="look.more">{{ look.more }}</span>
            <span v-if="left" aria-hidden="true" class="ap-banner-count">{{ counted }}</span>
          </span>
          <button v-if="look.action" type="button" @click="act">{{ look.action }}</button>
        </div>
      </div>
    </div>
  `,
  props: { state: Object },
  data: () => ({ shown: null, left: 0 }),
  computed: {
    look() {
      const s = this.shown;
      if (!s) return { kind: "", text: "" };
      if (s.kind === "back") return { kind: "back", icon: "cloud_done", text: "Back online" };
      if (s.kind === "failed")
        return {
          kind: "failed",
          icon: "cloud_off",
          text: s.needs_login ? "You are logged out." : s.why ? `Not connected: ${s.why}.` : "Not connected.",
          more: "What you write is kept and sent later.",
          action: s.needs_login ? "Log in" : "Retry",
          emits: s.needs_login ? "login" : "retry",
        };
      const text = s.is_first ? "No connection yet." : "Connection lost.";
      if (this.left) return { kind: "away", icon: "cloud_off", text, action: "Retry now", emits: "retry" };
      return { kind: "away", icon: "sync", text: s.is_first ? "Connecting…" : "Reconnecting…" };
    },
    counted() {
      const { attempt, max_attempts } = this.shown;
      const of = max_attempts ? `, attempt ${attempt} of ${max_attempts}` : "";
      return `Trying again in ${this.left} s${of}`;
    },
  },
  watch: { state: { handler: "take", deep: true } },
  mounted() {
    this.take();
  },
  unmounted() {
    clearTimeout(this.later);
    clearInterval(this.ticking);
  },
  methods: {
    act() {
      this.$emit(this.look.emits);
      this.left = 0; // an attempt begins; what comes of it will be told
      clearInterval(this.ticking);
    },
    take() {
      const s = this.state;
      clearTimeout(this.later);
      clearInterval(this.ticking);
      const isShown = this.shown && this.shown.kind !== "back";
      if (s.kind === "online") {
        this.left = 0;
        this.shown = isShown ? { kind: "back" } : null;
        if (isShown) this.later = setTimeout(() => (this.shown = null), 2000);
      } else if (isShown || s.kind === "failed") {
        this.show(s, performance.now());
      } else {
        const since = performance.now(); // a moment's loss is nobody's business
        this.later = setTimeout(() => this.show(s, since), s.is_first && !s.seconds ? 1500 : 400);
      }
    },
    show(s, since) {
      this.shown = s;
      if (!s.seconds) return void (this.left = 0);
      const until = since + s.seconds * 1000;
      const tick = () => {
        this.left = Math.max(0, Math.ceil((until - performance.now()) / 1000));
        if (!this.left) clearInterval(this.ticking);
      };
      tick();
      this.ticking = setInterval(tick, 200);
    },
  },
};
