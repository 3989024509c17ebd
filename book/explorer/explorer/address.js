// Where a neuron lives: part, layer (none where a part has one layer), unit. `lm/L4/N217` after `#/`.

const ADDRESS = /^(\w+)(?:\/L(\d+))?\/N(\d+)$/;
const NAMES = [
  [/^L(\d+)[./\s]*N?(\d+)$/i, ([layer, unit]) => ({ layer, unit })],
  [/^(\w+)(?:[/\s]+L(\d+))?[/\s]+N?(\d+)$/i, ([part, layer, unit]) => ({ part: part.toLowerCase(), layer, unit })],
  [/^N?(\d+)$/i, ([unit]) => ({ unit })],
];

export const format = ({ part, layer, unit }) => `${part}/${layer === null ? "" : `L${layer}/`}N${unit}`;
export const link = (neuron) => `#/${typeof neuron === "string" ? neuron : format(neuron)}`;

/** `{part, layer, unit}` of an address as it is written, or null. */
export function parse(text) {
  const found = ADDRESS.exec(text);
  return found && { part: found[1], layer: found[2] === undefined ? null : Number(found[2]), unit: Number(found[3]) };
}

/** What a reader may mean by a name or number: some of part, layer, unit; or null if it is neither. */
export function guess(text) {
  const plain = text.trim().replace(/^.*#\//, "");
  for (const [pattern, read] of NAMES) {
    const found = pattern.exec(plain);
    if (!found) continue;
    const said = Object.entries(read(found.slice(1))).filter(([, value]) => value !== undefined);
    return Object.fromEntries(said.map(([key, value]) => [key, key === "part" ? value : Number(value)]));
  }
  return null;
}

/** The view that a location's hash asks for: `{neuron}`, `{search}` or `{unknown}`. */
export function route(hash) {
  const path = hash.replace(/^#\/?/, "");
  const [place, query] = path.split("?");
  if (place === "") return { search: Object.fromEntries(new URLSearchParams(query ?? "")) };
  const neuron = parse(decoded(place));
  return neuron ? { neuron } : { unknown: decoded(place) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % is part of a wrong address
  }
}

/** The address of a search; without anything to look for it is the front. */
export function searchLink(search) {
  const said = Object.entries(search).filter(([, value]) => value !== "" && value !== undefined);
  return said.length ? `#/?${new URLSearchParams(said)}` : "#/";
}
