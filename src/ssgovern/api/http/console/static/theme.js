// Before anything is drawn: the theme that was chosen, else the system's.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => { try { return localStorage.getItem("ssgovern-theme"); } catch { return null; } };
  const show = () => { root.dataset.theme = chosen() || (dark.matches ? "dark" : "light"); };
  show();
  dark.addEventListener("change", show);
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme")?.addEventListener("click", () => {
      const next = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("ssgovern-theme", next); } catch { /* private mode: for this page only */ }
      root.dataset.theme = next;
    });
  });
})();
