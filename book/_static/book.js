// What the theme's pages lack for a reader with a keyboard or a screen reader.
function makeScrollersFocusable() {
  // What scrolls takes the focus, so that the arrow keys move it: long outputs, and figures on a phone.
  for (const box of document.querySelectorAll(".tag_output_scroll > .cell_output, .bd-content figure")) {
    if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

document.addEventListener("DOMContentLoaded", () => {
  // Docutils puts a role without a future into the list of references; in a list there are items.
  for (const entry of document.querySelectorAll('[role="doc-biblioentry"]')) entry.setAttribute("role", "listitem");
});
for (const event of ["load", "resize"]) addEventListener(event, makeScrollersFocusable);
