// What this browser keeps for itself: the colours it wants, and whether it notifies. The server
// hears of the colours through the cookie with the next page, so that it is right from the start.
const NOTIFY = "antiphon.notifications";

export default {
  template: `
    <div class="pf">
      <section class="ap-section" aria-label="Appearance">
        <h2>Appearance</h2>
        <div class="ap-card"><div class="ap-row pf-row">
          <div class="ap-row-text" id="pf-theme">Theme</div>
          <div class="pf-choices" role="radiogroup" aria-labelledby="pf-theme">
            <label v-for="[value, label, icon] in themes" :key="value">
              <input type="radio" name="theme" :value="value" v-model="chosen" @change="choose" />
              <q-icon :name="icon" aria-hidden="true" />{{ label }}
            </label>
          </div>
        </div></div>
      </section>
      <section class="ap-section" aria-label="Notifications">
        <h2>Notifications</h2>
        <div class="ap-card"><div class="ap-row">
          <label class="ap-row-text" for="pf-notify">Desktop notifications
            <small id="pf-why" role="status">{{ why }}</small></label>
          <input class="pf-switch" type="checkbox" role="switch" id="pf-notify" aria-describedby="pf-why"
            :checked="notifies" :disabled="permission === 'denied' || permission === 'missing'" @change="toggle" />
        </div></div>
      </section>
    </div>
  `,
  props: { theme: String, cookie: String },
  data() {
    const permission = "Notification" in window && isSecureContext ? Notification.permission : "missing";
    return {
      chosen: this.theme,
      permission,
      notifies: permission === "granted" && localStorage.getItem(NOTIFY) === "on",
      themes: [["light", "Light", "light_mode"], ["dark", "Dark", "dark_mode"], ["system", "System", "contrast"]],
    };
  },
  computed: {
    why() {
      if (this.permission === "missing") return "This browser cannot show them here.";
      if (this.permission === "denied") return "Blocked in the browser. Allow them for this site in its settings.";
      return this.notifies ? "New messages are shown while you look elsewhere." : "Switch on to hear of new messages while you look elsewhere.";
    },
  },
  methods: {
    choose() {
      const secure = location.protocol === "https:" ? "; Secure" : "";
      document.cookie = `${this.cookie}=${this.chosen}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
      setDark(this.chosen === "system" ? null : this.chosen === "dark");
      // What lies around the body has its colours from the server, with the next page.
      requestAnimationFrame(() => {
        const { backgroundColor, colorScheme } = getComputedStyle(document.body);
        Object.assign(document.documentElement.style, { backgroundColor, colorScheme });
      });
    },
    async toggle(event) {
      const wanted = event.target.checked;
      if (wanted) this.permission = await Notification.requestPermission();
      this.notifies = wanted && this.permission === "granted";
      event.target.checked = this.notifies;
      localStorage.setItem(NOTIFY, this.notifies ? "on" : "off");
    },
  },
};
