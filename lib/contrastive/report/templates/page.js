// Every page's switches. What needs no script works without this one.
"use strict";
(() => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)");
  const key = "contrastive-theme"; // pages from disk may share their storage with anything else that is opened from there
  const remembered = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem(key, theme); } catch { /* private, or not allowed */ } };
  let theme = ["light", "dark"].includes(remembered()) ? remembered() : null;
  const isDark = () => theme ? theme === "dark" : dark.matches;

  // Before anything is drawn, so that nothing flashes.
  if (theme) root.dataset.theme = theme;

  function paint(paper = false) {
    if (theme) root.dataset.theme = theme;
    const media = paper ? "not all" : theme ? (theme === "dark" ? "screen" : "not all") : "screen and (prefers-color-scheme: dark)";
    for (const source of document.querySelectorAll("source.dark")) source.media = media;
    const button = document.getElementById("theme-switch");
    if (button) button.setAttribute("aria-pressed", String(isDark()));
  }

  document.addEventListener("DOMContentLoaded", () => {
    paint();
    addEventListener("beforeprint", () => paint(true)); // pictures do not ask again what they are shown on
    addEventListener("afterprint", () => paint());
    const themes = document.getElementById("theme-switch");
    if (themes) {
      themes.hidden = false;
      themes.addEventListener("click", () => { theme = isDark() ? "light" : "dark"; remember(theme); paint(); });
      dark.addEventListener("change", () => paint());
    }

    const codes = document.getElementById("code-switch"), cells = [...document.querySelectorAll("details.code")];
    if (codes && cells.length) {
      const show = () => codes.setAttribute("aria-pressed", String(cells.every((cell) => cell.open)));
      codes.hidden = false;
      codes.addEventListener("click", () => {
        const open = codes.getAttribute("aria-pressed") !== "true";
        for (const cell of cells) cell.open = open;
        show();
      });
      for (const cell of cells) cell.addEventListener("toggle", show);
    }

    for (const place of document.querySelectorAll("[data-copy]")) {
      const button = document.createElement("button"), text = place.textContent;
      button.type = "button";
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(text);
          button.textContent = "Copied";
        } catch { // not allowed here: the text is selected, to be copied by hand
          getSelection().selectAllChildren(place.querySelector("code") ?? place);
          button.textContent = "Selected";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
      place.append(" ", button);
    }

    // What scrolls sideways has to be reached by keyboard, and only that.
    const reach = () => {
      for (const box of document.querySelectorAll(".scroll, .canvas, .jp-OutputArea-child, pre, math")) {
        if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
        else box.removeAttribute("tabindex");
      }
    };
    reach();
    addEventListener("resize", reach);

    const details = document.querySelector("nav.contents details"), wide = matchMedia("(min-width: 75rem)");
    if (details) {
      const unfold = () => { details.open = wide.matches; };
      unfold();
      wide.addEventListener("change", unfold);
      const links = new Map([...details.querySelectorAll("a")].map((a) => [a.getAttribute("href").slice(1), a]));
      const follow = () => {
        let now = null;
        for (const id of links.keys()) {
          if (document.getElementById(id)?.getBoundingClientRect().top < innerHeight / 3) now = id;
        }
        for (const [id, link] of links) id === now ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
      };
      follow();
      addEventListener("scroll", follow, { passive: true });
      details.addEventListener("click", (e) => { if (e.target.closest("a") && !wide.matches) details.open = false; });
    }
  });
})();
