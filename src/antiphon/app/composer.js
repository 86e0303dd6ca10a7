// The box one writes in. Text stays in the tab's session storage until Python has taken it.
import { computed, nextTick, onBeforeUnmount, onMounted, reactive, ref, watch } from "vue";

const AGAIN = 5000; // ms until a message that nobody took is offered again
const KEYSTROKE = 500; // ms between two; a second of silence means that one has stopped
const LINES = 6; // the box grows to
const ACROSS = 10; // emoji in a row
const EMOJI = {
  "😀": "grinning", "😃": "happy", "😄": "laughing eyes", "😁": "beaming", "😂": "tears of joy",
  "🤣": "rolling on the floor", "😊": "smiling", "🙂": "slight smile", "😉": "wink", "😍": "heart eyes",
  "🥰": "in love", "😘": "kiss", "😋": "yummy", "😜": "cheeky", "🤗": "hug",
  "🤔": "thinking", "🤨": "doubtful", "😐": "neutral", "🙄": "rolling eyes", "😏": "smirk",
  "😴": "asleep", "😎": "cool", "🤓": "nerd", "🥳": "party", "😮": "surprised",
  "😢": "sad", "😭": "crying", "😅": "sweat", "😬": "grimace", "😱": "scream",
  "😡": "angry", "🤯": "mind blown", "🥺": "pleading", "😇": "angel", "🤒": "ill",
  "👍": "thumbs up", "👎": "thumbs down", "👌": "OK", "✌️": "victory", "🤞": "fingers crossed",
  "👏": "applause", "🙌": "raised hands", "🙏": "thank you", "💪": "strong", "👋": "wave",
  "🤝": "handshake", "👀": "eyes", "🧠": "brain", "❤️": "red heart", "💙": "blue heart",
  "💚": "green heart", "💔": "broken heart", "🔥": "fire", "✨": "sparkles", "⭐": "star",
  "🎉": "tada", "🎂": "cake", "🎁": "gift", "☕": "coffee", "🍕": "pizza",
  "🍻": "cheers", "🚀": "rocket", "💡": "idea", "✅": "done", "❌": "no",
  "⚠️": "warning", "❓": "question", "❗": "important", "💯": "hundred", "🌈": "rainbow",
};

const bytes = (text) => new TextEncoder().encode(text).length;
const number = (n) => n.toLocaleString();

export default {
  emits: ["send", "keystroke"],
  props: { conversation: String, maxCharacters: Number, maxBytes: Number },
  template: `
    <form class="mc" @submit.prevent="send">
      <p v-if="trouble" class="mc-trouble" role="alert">{{ trouble }}</p>
      <div v-if="state.picking" ref="picker" class="mc-picker" role="menu" aria-label="Emoji" @keydown="steer"
          @focusout="left">
        <button v-for="(name, emoji) in EMOJI" :key="emoji" type="button" role="menuitem" tabindex="-1"
          :title="name" :aria-label="name" @click="insert(emoji)">{{ emoji }}</button>
      </div>
      <div class="mc-box" :class="{ off: !conversation }">
        <button ref="opener" type="button" class="mc-icon" aria-label="Emoji" aria-haspopup="menu"
            :aria-expanded="state.picking" :disabled="!conversation" @click="pick">
          <i class="material-icons notranslate" aria-hidden="true">sentiment_satisfied</i>
        </button>
        <textarea ref="area" rows="1" dir="auto" aria-label="Message" placeholder="Message"
          enterkeyhint="send" autocomplete="off" :disabled="!conversation" :aria-invalid="!!over"
          @beforeinput="guard" @input="typed" @keydown.enter="entered"></textarea>
        <span v-if="left_ !== null" class="mc-left" :class="{ over }">{{ left_ }}</span>
        <button type="submit" class="mc-icon mc-send" aria-label="Send" :disabled="!sendable">
          <i class="material-icons notranslate" aria-hidden="true">send</i>
        </button>
      </div>
    </form>`,

  setup(props, { emit }) {
    const area = ref(null);
    const picker = ref(null);
    const opener = ref(null);
    const state = reactive({ text: "", notice: "", picking: false });
    let waiting = []; // [{ id, text }] sent and not taken, oldest first
    let timer = 0;
    let typedAt = 0;

    const size = computed(() => bytes(state.text));
    const over = computed(() => {
      const characters = state.text.length - props.maxCharacters;
      if (characters > 0) return `This is too long by ${number(characters)} characters.`;
      const surplus = size.value - props.maxBytes;
      return surplus > 0 ? `This is too long by ${number(surplus)} bytes.` : "";
    });
    const left_ = computed(() => {
      const left = Math.min(
        props.maxCharacters - state.text.length,
        Math.floor((props.maxBytes - size.value) / Math.max(1, size.value / (state.text.length || 1))),
      );
      return left <= props.maxCharacters / 10 ? left : null;
    });
    const trouble = computed(() => state.notice || over.value);
    const sendable = computed(() => props.conversation && state.text.trim() && !over.value);

    const drawer = (conversation) => `antiphon.composer.${conversation}`;

    function kept(conversation) {
      try {
        const { text, waiting } = JSON.parse(sessionStorage[drawer(conversation)]);
        if (typeof text === "string" && Array.isArray(waiting)) return { text, waiting };
      } catch {} // nothing there, no storage, or not ours: begin anew
      return { text: "", waiting: [] };
    }

    function keep(conversation = props.conversation, text = state.text, unsent = waiting) {
      if (!conversation) return;
      try {
        if (text || unsent.length)
          sessionStorage[drawer(conversation)] = JSON.stringify({ text, waiting: unsent });
        else delete sessionStorage[drawer(conversation)];
      } catch {
        state.notice = "This browser keeps no drafts: what you write is lost if the page closes.";
      }
    }

    function write(text) {
      state.text = area.value.value = text;
      nextTick(grow);
    }

    function grow() {
      const box = area.value;
      if (!box) return;
      box.style.height = "auto";
      const line = parseFloat(getComputedStyle(box).lineHeight);
      box.style.height = `${Math.min(box.scrollHeight, LINES * line + 16)}px`;
      box.style.overflowY = box.scrollHeight > LINES * line + 16 ? "auto" : "hidden";
    }

    function open() {
      clearTimeout(timer);
      const { text, waiting: unsent } = kept(props.conversation);
      waiting = unsent;
      Object.assign(state, { notice: "", picking: false });
      write(text);
      offer();
    }

    // One at a time, so that they arrive in the order they were written.
    function offer() {
      clearTimeout(timer);
      if (!waiting.length || !props.conversation) return;
      emit("send", props.conversation, waiting[0].id, waiting[0].text);
      timer = setTimeout(offer, AGAIN);
    }

    function send() {
      if (!sendable.value) return;
      const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) =>
        b.toString(16).padStart(2, "0")).join("");
      waiting.push({ id, text: state.text.trim().toWellFormed() });
      write("");
      keep();
      if (waiting.length === 1) offer();
      area.value.focus();
    }

    // Called from Python, when a message needs no keeping any more.
    function taken(conversation, id) {
      const without = (messages) => messages.filter((message) => message.id !== id);
      if (conversation !== props.conversation) {
        const { text, waiting: unsent } = kept(conversation);
        keep(conversation, text, without(unsent));
        return;
      }
      waiting = without(waiting);
      keep();
      offer();
    }

    // Called from Python, when a message could not be taken: it is the writer's again.
    function refused(conversation, id, why) {
      if (conversation !== props.conversation) return;
      const back = waiting.find((message) => message.id === id);
      if (!back) return;
      write(state.text ? `${back.text}\n${state.text}` : back.text);
      state.notice = why || "This could not be sent. It is back in the box; try again.";
      taken(conversation, id);
    }

    const tooLong = (characters) =>
      `That is too long (${number(characters)} characters). A message has room for ` +
      `${number(props.maxCharacters)}; what you had is still here.`;

    // What is far too long never gets into the box; a little too long can be edited down.
    function guard(event) {
      const added = event.data ?? event.dataTransfer?.getData("text/plain") ?? "";
      const { value, selectionStart, selectionEnd } = area.value;
      const length = value.length - (selectionEnd - selectionStart) + added.length;
      if (length <= 2 * props.maxCharacters) return;
      event.preventDefault();
      state.notice = tooLong(added.length);
    }

    function typed() {
      const { value } = area.value;
      if (value.length > 2 * props.maxCharacters) {
        write(state.text);
        state.notice = tooLong(value.length);
        return;
      }
      state.text = value;
      state.notice = "";
      grow();
      keep();
      if (value && Date.now() - typedAt >= KEYSTROKE) {
        typedAt = Date.now();
        emit("keystroke");
      }
    }

    function entered(event) {
      // Within an input method Enter picks a word.
      if (event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      send();
    }

    async function pick() {
      state.picking = !state.picking;
      await nextTick();
      picker.value?.firstElementChild.focus();
    }

    function close() {
      state.picking = false;
      area.value.focus();
    }

    function insert(emoji) {
      close();
      area.value.setRangeText(emoji, area.value.selectionStart, area.value.selectionEnd, "end");
      typed();
    }

    function steer(event) {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -ACROSS, ArrowDown: ACROSS }[event.key];
      const buttons = [...picker.value.children];
      if (event.key === "Escape") close();
      else if (step) buttons[buttons.indexOf(document.activeElement) + step]?.focus();
      else if (event.key === "Home") buttons[0].focus();
      else if (event.key === "End") buttons.at(-1).focus();
      else return;
      event.preventDefault();
      event.stopPropagation();
    }

    function left({ relatedTarget }) {
      if (picker.value?.contains(relatedTarget) || opener.value?.contains(relatedTarget)) return;
      state.picking = false;
    }

    const focus = () => area.value.focus();

    watch(() => props.conversation, open);
    onMounted(open);
    onBeforeUnmount(() => clearTimeout(timer));

    return { EMOJI, area, entered, focus, guard, insert, left, left_, opener, over, pick, picker, refused,
      send, sendable, state, steer, taken, trouble, typed };
  },
};

document.head.append(
  Object.assign(document.createElement("style"), {
    textContent: `
.mc { position: relative; flex: none; width: 100%; padding: 8px max(12px, calc(50% - 420px)) 12px;
  --page: var(--ap-bg, #f2f4f8); --box: var(--ap-surface, #fff); --text: var(--ap-text, #1b1d21);
  --meta: var(--ap-muted, #575e6e); --line: var(--ap-line, #d6dbe4); --error: var(--ap-negative, #b3261e);
  --hover: var(--ap-inset, #e9edf4); --accent: var(--ap-accent, #1b5fbf);
  background: var(--page); color: var(--text); font-size: 15px; }
.body--dark .mc { --page: var(--ap-bg, #111318); --box: var(--ap-surface, #23272f); --text: var(--ap-text, #e5e7ec);
  --meta: var(--ap-muted, #a4acba); --line: var(--ap-line, #3b414d); --error: var(--ap-negative, #ffb4ab);
  --hover: var(--ap-inset, #313641); --accent: var(--ap-accent, #a8c7fa); }
.mc-box { display: flex; align-items: flex-end; gap: 2px; padding: 3px 4px; border-radius: 24px;
  background: var(--box); border: 1px solid var(--line); }
.mc-box:focus-within { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
.mc-box.off { opacity: 0.6; }
.mc textarea { flex: 1; min-width: 0; padding: 8px 4px; border: 0; outline: 0; resize: none; background: none;
  color: inherit; font: inherit; font-size: 16px; line-height: 24px; overflow-y: hidden; text-align: start; }
.mc textarea::placeholder { color: var(--meta); opacity: 1; }
.mc-icon { flex: none; display: grid; place-items: center; width: 40px; height: 40px; border: 0; border-radius: 50%;
  background: none; color: var(--meta); cursor: pointer; }
.mc-icon i { font-size: 24px; }
.mc-icon:hover:enabled { background: var(--hover); }
.mc-icon:disabled { cursor: default; }
.mc-send:enabled { color: var(--accent); }
.mc button:focus-visible { outline: 2px solid var(--accent); outline-offset: -1px; }
.mc-left { padding: 0 4px; font-size: 12.5px; line-height: 40px; color: var(--meta);
  font-variant-numeric: tabular-nums; }
.mc-left.over, .mc-trouble { color: var(--error); }
.mc-trouble { margin: 0 16px 6px; font-size: 13px; }
.mc-picker { position: absolute; bottom: calc(100% - 4px); left: max(12px, calc(50% - 420px)); z-index: 10;
  display: grid; grid-template-columns: repeat(10, 1fr); width: min(400px, calc(100% - 24px)); padding: 8px;
  border-radius: 16px; background: var(--box); box-shadow: 0 4px 20px #00000040; }
.mc-picker button { aspect-ratio: 1; padding: 0; border: 0; border-radius: 8px; background: none; color: inherit;
  cursor: pointer; font-size: 22px; line-height: 1; }
.mc-picker button:hover, .mc-picker button:focus { background: var(--hover); }
`,
  }),
);
