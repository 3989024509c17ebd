// The page: an address in, a view out. Keys and fields only change the address.

import { format, guess, link, route, searchLink } from "./address.js";
import { Failure, json, record } from "./data.js";
import { el, number } from "./dom.js";
import { failed, front, heading, results, unknown, unstudied } from "./front.js";
import { view } from "./neuron.js";
import { find, list, neighbour, random } from "./neurons.js";
import { nextMode } from "./pictures.js";

const at = (id) => document.getElementById(id);
const fields = { q: at("query"), part: at("part"), layer: at("layer"), all: at("all") };
const home = "Neuron explorer";
let state = null; // the index and what is made of it, once it is here
let search = {}; // what the neurons are filtered by
let turn = 0; // counts views, so that a slow one does not overwrite a later

async function start() {
  try {
    const index = await json("index.json");
    const neurons = list(index);
    state = { index, neurons, byAddress: new Map(neurons.map((neuron) => [neuron.address, neuron])) };
    state.index.parts.forEach((part) =>
      fields.part.append(el("option", { value: part.part, textContent: part.title })),
    );
    await show();
  } catch (error) {
    complain(error, start);
  }
}

/** Draws the view that the address asks for. */
async function show() {
  if (!state) return;
  const mine = ++turn;
  const asked = route(location.hash);
  if (asked.search) search = asked.search;
  fill();
  try {
    const { node, title, neuron } = await draw(asked);
    if (mine !== turn) return;
    place(node, title, { moved: !asked.search || !fields.q.matches(":focus"), neuron });
  } catch (error) {
    if (mine === turn) complain(error, show);
  }
}

async function draw(asked) {
  if (asked.search) return drawSearch(asked.search);
  const neuron = asked.neuron && state.byAddress.get(format(asked.neuron));
  if (!neuron) return { node: unknown(asked.unknown ?? format(asked.neuron), state.index), title: "Unknown neuron" };
  const part = state.index.parts.find(({ part: name }) => name === neuron.part);
  const found = await record(neuron, state.index.shard_size);
  const node = found ? await view(found, { part, index: state.index }) : unstudied();
  return {
    node: el("article", {}, title(neuron, part), node),
    title: `${neuron.name}${neuron.label && ` · ${neuron.label}`}`,
    neuron,
  };
}

function drawSearch(asked) {
  if (!Object.values(asked).some(Boolean)) return { node: front(state), title: "" };
  const outcome = find(state.neurons, asked);
  return {
    node: results(outcome, { search: asked, everywhere: searchLink({ ...asked, all: "1" }) }),
    title: heading(outcome.found.length, asked),
  };
}

function title(neuron, part) {
  const among = filtered();
  const place = among.indexOf(neuron);
  const selection = search.q ? `found for “${search.q}”` : search.all ? "neurons" : "with examples";
  const where = place < 0 ? "" : `${number(place + 1)} of ${number(among.length)} ${selection}`;
  const layer = neuron.layer === null ? "" : `, layer ${neuron.layer}`;
  const picks = state.index.picked.filter(({ address }) => address === neuron.address);
  return el(
    "header",
    {},
    el(
      "p",
      { className: "trail note" },
      el("a", {
        href: searchLink({ part: neuron.part, layer: neuron.layer ?? "" }),
        textContent: `${part.title}${layer}`,
      }),
      where && ` · ${where}`,
    ),
    el(
      "div",
      { className: "title" },
      el("h1", { textContent: neuron.name }),
      el(
        "nav",
        { className: "steps", "aria-label": "Neurons" },
        button("previous", "← Previous", () => step(-1)),
        button("random", "Random", jump),
        button("next", "Next →", () => step(1)),
      ),
    ),
    el("p", { className: "lead", textContent: neuron.label || "No name fits." }),
    ...picks.map(({ kind, why }) => el("p", {}, el("span", { className: "badge", textContent: kind }), ` ${why}`)),
  );
}

function button(id, text, act) {
  const node = el("button", { type: "button", id, textContent: text });
  node.addEventListener("click", act);
  return node;
}

/** Puts a view on the page, tells its title, and keeps the focus where a keyboard's user expects it. */
function place(node, text, { moved, neuron }) {
  const held = document.activeElement?.id;
  at("view").replaceChildren(node);
  document.title = text ? `${text} – ${home}` : home;
  at("told").textContent = text || home;
  document.body.dataset.neuron = neuron?.address ?? "";
  if (!moved) return;
  const again = held && document.activeElement?.id !== held ? at(held) : null;
  if (again) again.focus({ preventScroll: true });
  else if (!document.activeElement || document.activeElement === document.body)
    at("content").focus({ preventScroll: true });
  if (!again) scrollTo({ top: 0, behavior: "instant" });
}

function complain(error, again) {
  if (!(error instanceof Failure)) throw error;
  at("view").replaceChildren(failed(error, again));
  document.title = `The data did not arrive – ${home}`;
}

/** Shows in the fields what is looked for. */
function fill() {
  for (const [name, field] of Object.entries(fields))
    if (field !== document.activeElement) field.value = search[name] ?? "";
  const layers = state.index.parts.find(({ part }) => part === fields.part.value)?.layers ?? null;
  fields.layer.hidden = layers === null;
  const options = Array.from({ length: layers ?? 0 }, (_, layer) =>
    el("option", { value: String(layer), textContent: `layer ${layer}` }),
  );
  fields.layer.replaceChildren(el("option", { value: "", textContent: "all layers" }), ...options);
  fields.layer.value = search.layer ?? "";
}

/** The neurons that arrows step through: those looked for, else all with examples. */
function filtered() {
  return find(state.neurons, search).found;
}

function current() {
  const { neuron } = route(location.hash);
  return neuron ? state?.byAddress.get(format(neuron)) : undefined;
}

function go(neuron) {
  if (neuron) location.hash = link(neuron.address);
}

function step(by) {
  const here = current();
  const among = filtered();
  go(here ? neighbour(state.neurons, among, here, by) : among.at(by > 0 ? 0 : -1));
}

const jump = () => state && go(random(filtered(), current()));

/** A search typed or chosen: the first sign makes an address, the next ones change it: "back" leaves them all. */
function look() {
  const asked = {
    q: fields.q.value,
    part: fields.part.value,
    layer: fields.part.value === (search.part ?? "") ? fields.layer.value : "",
    all: fields.all.value,
  };
  const target = searchLink(asked);
  if (route(location.hash).search && location.hash.includes("?")) {
    history.replaceState(null, "", target);
    show();
  } else if (target !== "#/") location.hash = target;
}

/** Enter: the neuron that was named in full, else the first one found. */
function open(event) {
  event.preventDefault();
  if (!state) return;
  const { found } = find(state.neurons, { ...search, q: fields.q.value });
  fields.q.blur();
  if (found.length) go(found[0]);
  else location.hash = searchLink({ ...search, q: fields.q.value });
}

function leave() {
  if (document.activeElement?.matches("input, select")) document.activeElement.blur();
  else if (current()) location.hash = searchLink(search);
}

const KEYS = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  r: jump,
  m: nextMode,
  "/": () => fields.q.select(),
  "?": () => at("help").showModal(),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
  if (event.key === "Escape") return leave();
  if (event.target.matches("input, select, textarea") || !state || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
}

addEventListener("hashchange", show);
addEventListener("keydown", pressed);
at("find").addEventListener("submit", open);
at("find").addEventListener("input", look);
at("help-button").addEventListener("click", () => at("help").showModal());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part after # is the address of a neuron
  at("content").focus();
});
start();
