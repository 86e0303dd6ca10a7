// The line above a conversation. "Last seen" is reckoned here, where the reader's clock and zone are.
import { computed, onBeforeUnmount, ref } from "vue";

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const midnight = (at) => new Date(at).setHours(0, 0, 0, 0);

function lastSeen(at, now) {
  if (now - at < 60_000) return "last seen just now";
  const days = Math.round((midnight(now) - midnight(at)) / 86_400_000);
  if (days <= 0) return `last seen at ${clock.format(at)}`;
  if (days === 1) return `last seen yesterday at ${clock.format(at)}`;
  return `last seen ${days < 7 ? day.format(at) : date.format(at)}`;
}

export default {
  emits: ["back"],
  props: {
    title: String, initials: String, color: String, line: String, typing: Boolean, online: Boolean, seen: Number,
  },
  template: `
    <header class="ch">
      <button type="button" class="ch-back" aria-label="Back to the conversations" @click="$emit('back')">
        <i class="material-icons notranslate" aria-hidden="true">arrow_back</i>
      </button>
      <span class="ap-avatar" aria-hidden="true" :class="{ 'ap-online': online }"
        :style="{ '--size': '40px', background: color }">{{ initials }}</span>
      <div class="ch-text">
        <h2 class="ch-title" dir="auto">{{ title }}</h2>
        <div class="ch-line" :class="{ typing }" role="status" aria-live="polite">
          <span dir="auto">{{ below }}</span><span v-if="typing" class="ch-dots" aria-hidden="true"><i></i><i></i><i></i></span>
        </div>
      </div>
    </header>`,
  setup(props) {
    const now = ref(Date.now());
    const below = computed(() => props.line || (props.seen ? lastSeen(props.seen, now.value) : ""));
    const minutes = setInterval(() => (now.value = Date.now()), 30_000);
    onBeforeUnmount(() => clearInterval(minutes));
    return { below };
  },
};
