// What is seen without a neuron: the parts, neurons to begin with, and what a search finds.

import { link } from "./address.js";
import { el, number } from "./dom.js";

const PAGE = 60;

/** A neuron as an entry of a list. */
function entry(neuron, { kind, why } = {}) {
  return el(
    "li",
    {},
    el(
      "a",
      { href: link(neuron.address) },
      el("strong", { textContent: neuron.name }),
      el("span", { className: "label", textContent: neuron.label }),
      kind && el("span", { className: "why" }, el("span", { className: "badge", textContent: kind }), ` ${why}`),
    ),
  );
}

export function front({ index, byAddress }) {
  return el(
    "div",
    {},
    el("h1", { textContent: "Every neuron of the book" }),
    el("p", {
      className: "lead",
      textContent:
        "What makes a neuron fire, what it writes, and what follows when it is silenced, for the neurons that the " +
        "chapters study. Search by word or number, or begin with one of those below.",
    }),
    el(
      "section",
      { "aria-label": "Parts" },
      el("ul", { className: "neurons parts" }, ...index.parts.map((part) => card(part, index))),
    ),
    ...index.left_out.map(({ part, why }) =>
      el("p", { className: "notice", textContent: `${part} is left out. ${why}` }),
    ),
    el("h2", { textContent: "Where to begin, the failures too" }),
    ...index.parts.map((part) => picked(part, index.picked, byAddress)),
    el("p", { className: "note", textContent: origin(index) }),
  );
}

function picked({ part, title }, picks, byAddress) {
  const own = picks.filter(({ address }) => byAddress.get(address)?.part === part);
  if (!own.length) return null;
  return el(
    "section",
    {},
    el("h3", { textContent: title }),
    el("ul", { className: "neurons" }, ...own.map((pick) => entry(byAddress.get(pick.address), pick))),
  );
}

function origin({ made, profile, package: version }) {
  return `Made from the ${made ? `run of ${made.slice(0, 10)}, ` : ""}profile ${profile}, package ${version}.`;
}

function card({ part, title, about, count }, { studied }) {
  const close = studied[part].flat().length;
  return el(
    "li",
    {},
    el(
      "a",
      { href: `#/?part=${part}` },
      el("strong", { textContent: title }),
      el("span", { className: "why", textContent: about }),
      el("span", { className: "why", textContent: `${number(count)} neurons, ${number(close)} with examples` }),
    ),
  );
}

/** The list of what was found, the first of it at once and more on demand. */
export function results({ found, without }, { search, everywhere }) {
  const list = el("ul", { className: "neurons" });
  const more = el("button", { type: "button", textContent: "Show more" });
  const add = () => {
    list.append(...found.slice(list.children.length, list.children.length + PAGE).map((neuron) => entry(neuron)));
    more.hidden = list.children.length >= found.length;
  };
  more.addEventListener("click", add);
  add();
  return el(
    "div",
    {},
    el("h1", { textContent: heading(found.length, search) }),
    without > 0 &&
      el(
        "p",
        { className: "note" },
        `${number(without)} more without examples. `,
        el("a", { href: everywhere, textContent: "Show them too" }),
      ),
    list,
    more,
  );
}

export function heading(n, { q }) {
  const what = q?.trim() ? ` for “${q.trim()}”` : "";
  return `${number(n)} ${n === 1 ? "neuron" : "neurons"}${what}`;
}

/** What to say of an address that leads nowhere. */
export function unknown(address, { parts }) {
  const spans = parts.map(({ part, title, layers, n_units: units }) =>
    el("li", {
      textContent: `${title} – ${part}/${layers === null ? "" : `L0 to L${layers - 1}, `}N0 to N${units - 1}`,
    }),
  );
  return el(
    "div",
    { className: "notice" },
    el("h1", { textContent: "There is no such neuron" }),
    el("p", {}, "Nothing has the address ", el("code", { textContent: address }), ". There are:"),
    el("ul", {}, ...spans),
    el("p", {}, "Search above by word or number, or ", el("a", { href: "#/", textContent: "begin at the front" }), "."),
  );
}

/** What to say of a neuron without a record. */
export function unstudied() {
  return el("p", {
    className: "notice",
    textContent: "This run of the book did not look at this neuron. The arrows lead to those that it did.",
  });
}

/** What to say when data did not come. */
export function failed(error, again) {
  const button = el("button", { type: "button", textContent: "Try again" });
  button.addEventListener("click", again);
  return el(
    "div",
    { className: "notice", role: "alert" },
    el("h1", { textContent: "The data did not arrive" }),
    el("p", { textContent: error.message }),
    el("p", { textContent: "If the book was just built, its folder explorer/data must lie beside this page." }),
    button,
  );
}
