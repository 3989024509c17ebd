// Runs before anything is drawn, and without modules, so that it also works from a disk: the book's choice of
// colours, and what to say where modules cannot load.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("mode") || "auto";
    } catch {
      return "auto"; // a browser that keeps nothing
    }
  };
  const apply = (mode) => {
    root.dataset.mode = mode;
    root.dataset.theme = mode === "auto" ? (dark.matches ? "dark" : "light") : mode;
  };
  const names = { auto: "as the system", light: "light", dark: "dark" };
  const next = { auto: "light", light: "dark", dark: "auto" };
  const label = (button) => button.setAttribute("aria-label", `Colours: ${names[root.dataset.mode]}`);
  const choose = (mode) => {
    apply(mode);
    try {
      localStorage.setItem("mode", mode); // the keys that the book's pages read
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // The choice then holds for this page only.
    }
  };

  apply(chosen());
  dark.addEventListener("change", () => apply(root.dataset.mode));
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    label(button);
    button.addEventListener("click", () => {
      choose(next[root.dataset.mode]);
      label(button);
    });
    if (location.protocol === "file:") document.getElementById("view").replaceChildren(served());
  });

  function served() {
    const notice = document.createElement("div");
    const lines = [
      ["h1", "This page needs a server"],
      ["p", "Browsers do not let a page opened from a disk read the files beside it. In the folder of this page, run"],
      ["pre", "python -m http.server"],
      ["p", "and open http://localhost:8000/explorer.html. Any static host will do as well."],
    ];
    for (const [tag, text] of lines) notice.append(Object.assign(document.createElement(tag), { textContent: text }));
    notice.className = "notice";
    return notice;
  }
})();
