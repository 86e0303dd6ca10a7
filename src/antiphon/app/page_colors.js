// The colours this page has. NiceGUI's own element sets them anew at every update of the page, and
// the browser then computes every style anew: 20 ms for each message, on a page with 150 of them.
export default {
  props: { value: { type: Boolean, default: null } }, // null: as the system has it
  mounted() {
    setDark(this.value);
  },
};
