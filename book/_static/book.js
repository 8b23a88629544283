// A page from a folder may not read its neighbours: the search then lists titles without extracts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// On paper: dark words on a light ground, and solutions unfolded.
const root = document.documentElement;
let before = null;
addEventListener("beforeprint", () => {
  if (before) return;
  before = { theme: root.dataset.theme, folded: document.querySelectorAll("details:not([open])") };
  root.dataset.theme = "light";
  before.folded.forEach((e) => (e.open = true));
});
addEventListener("afterprint", () => {
  if (!before) return;
  root.dataset.theme = before.theme;
  before.folded.forEach((e) => (e.open = false));
  before = null;
});
