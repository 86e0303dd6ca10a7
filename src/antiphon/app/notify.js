// Whether the reader looks at this page, and what tells them of news while they do not: the title,
// the icon, and a desktop notification if this browser's settings want one.
const NOTIFY = "antiphon.notifications";

export default {
  template: "<template></template>",
  props: { title: String, icon: String, unread: Number },
  mounted() {
    for (const name of ["focus", "blur"]) window.addEventListener(name, this.look);
    document.addEventListener("visibilitychange", this.look);
    this.look();
    this.show();
  },
  unmounted() {
    for (const name of ["focus", "blur"]) window.removeEventListener(name, this.look);
    document.removeEventListener("visibilitychange", this.look);
    clearTimeout(this.later);
  },
  watch: { title: "show", unread: "show" },
  methods: {
    look() {
      clearTimeout(this.later);
      if (!window.did_handshake) {
        // NiceGUI would keep each event for later by itself, and one could overtake another.
        this.later = setTimeout(this.look, 10);
        return;
      }
      const looks = document.visibilityState === "visible" && document.hasFocus();
      if (looks === this.looks) return;
      this.looks = looks;
      this.$emit("look", looks);
    },
    show() {
      const count = this.unread > 99 ? "99+" : this.unread;
      document.title = this.unread ? `(${count}) ${this.title}` : this.title;
      const dot = '<circle cx="37" cy="11" r="10" fill="#d93025" stroke="#fff" stroke-width="2"/></svg>';
      const drawing = this.unread ? this.icon.replace("</svg>", dot) : this.icon;
      document.querySelector("link[rel~=icon]").href = "data:image/svg+xml," + encodeURIComponent(drawing);
    },
    notify(title, body, tag) {
      const wanted = localStorage.getItem(NOTIFY) === "on";
      if (this.looks || !wanted || !("Notification" in window) || Notification.permission !== "granted") return;
      try {
        const shown = new Notification(title, { body, tag, icon: "data:image/svg+xml," + encodeURIComponent(this.icon) });
        shown.onclick = () => {
          window.focus();
          shown.close();
          this.$emit("open", tag);
        };
      } catch {
        // phones allow it to service workers only
      }
    },
  },
};
