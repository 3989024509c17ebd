// All neurons in one order (part, layer, unit), and which of them a reader asks for.

import { format, guess } from "./address.js";

/** Every neuron of the index: `{part, layer, unit, address, name, label, studied}`. */
export function list(index) {
  return index.parts.flatMap((part) =>
    index.labels[part.part].flatMap((labels, layer) => {
      const studied = new Set(index.studied[part.part]?.[layer]);
      return labels.map((label, unit) => describe(part, part.layers === null ? null : layer, unit, label, studied));
    }),
  );
}

function describe({ part }, layer, unit, label, studied) {
  const name = layer === null ? `${part.toUpperCase()} N${unit}` : `L${layer}.${unit}`;
  return { part, layer, unit, label, name, address: format({ part, layer, unit }), studied: studied.has(unit) };
}

/** Neurons that fit, best first when words are looked for, and how many were left out for having no examples. */
export function find(neurons, { q = "", part = "", layer = "", all = "" }) {
  const inPart = neurons.filter(
    (neuron) => (!part || neuron.part === part) && (layer === "" || neuron.layer === Number(layer)),
  );
  if (!q.trim()) return split(inPart, all);
  const meant = guess(q);
  if (meant && (!meant.part || neurons.some((neuron) => neuron.part === meant.part)))
    return { found: order(inPart.filter((neuron) => fits(neuron, meant))), without: 0 };
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  const scored = inPart.map((neuron) => [score(neuron.label.toLowerCase(), words), neuron]).filter(([s]) => s > 0);
  scored.sort(([a], [b]) => b - a);
  return split(
    scored.map(([, neuron]) => neuron),
    all,
  );
}

const fits = (neuron, meant) => Object.entries(meant).every(([key, value]) => neuron[key] === value);
const order = (found) => [...found.filter((n) => n.studied), ...found.filter((n) => !n.studied)];

function split(found, all) {
  const studied = found.filter((neuron) => neuron.studied);
  return all ? { found: order(found), without: 0 } : { found: studied, without: found.length - studied.length };
}

/** 2 for each word that stands alone in the label, 1 for a part of one, 0 when one is missing. */
function score(label, words) {
  const parts = new Set(label.split(/[^\p{L}\p{N}]+/u));
  const each = words.map((word) => (parts.has(word) ? 2 : label.includes(word) ? 1 : 0));
  return each.includes(0) ? 0 : each.reduce((sum, value) => sum + value, 0);
}

/** The neighbour `step` places on among `among`, round the end; from the nearest if `here` is not among them. */
export function neighbour(all, among, here, step) {
  if (!among.length) return null;
  const at = among.indexOf(here);
  if (at >= 0) return among[(at + step + among.length) % among.length];
  const rank = new Map(all.map((neuron, place) => [neuron, place]));
  const sorted = [...among].sort((a, b) => rank.get(a) - rank.get(b));
  const after = sorted.findIndex((neuron) => rank.get(neuron) > rank.get(here));
  const next = after < 0 ? sorted.length : after;
  return sorted[(next + (step > 0 ? 0 : -1) + sorted.length) % sorted.length];
}

/** Another one of `among`, by chance. */
export function random(among, here) {
  const others = among.filter((neuron) => neuron !== here);
  return others.length ? others[Math.floor(Math.random() * others.length)] : null;
}
