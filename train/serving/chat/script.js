// The chat page's own script: what the browser alone can do.

// The theme a person chose, kept in this browser. Without a choice: as the system is set.
const slipwayTheme = "slipway-theme";

function slipwayToggleTheme() {
  Quasar.Dark.toggle();
  localStorage.setItem(slipwayTheme, Quasar.Dark.isActive ? "dark" : "light");
}

// Copies a text; also where the page is not served over HTTPS and browsers have no clipboard for it.
async function slipwayCopy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  Quasar.Notify.create({ message: "Copied", timeout: 900, position: "bottom" });
}

// A link of an answer opens beside the conversation, which a reload would lose.
document.addEventListener("click", (event) => {
  const link = event.target.closest(".answer a[href]");
  if (!link) return;
  event.preventDefault();
  window.open(link.href, "_blank", "noopener,noreferrer");
});

// The end of the conversation stays in view, unless somebody scrolled up to read.
addEventListener("load", () => {
  const chosen = localStorage.getItem(slipwayTheme);
  if (chosen) Quasar.Dark.set(chosen === "dark");
  let following = true;
  const scroller = () => document.querySelector(".scroller");
  document.addEventListener(
    "scroll",
    () => {
      const area = scroller();
      if (area) following = area.scrollHeight - area.scrollTop - area.clientHeight < 80;
    },
    true,
  );
  new MutationObserver((changes) => {
    const area = scroller();
    if (!area) return;
    const asked = changes.some((change) => [...change.addedNodes].some((node) => node.matches?.(".turn.user")));
    if (following || asked) area.scrollTop = area.scrollHeight;
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
});
