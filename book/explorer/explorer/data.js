// Everything is fetched once, when it is first needed, from the files beside the page.

const ROOT = new URL("data/", import.meta.url);
const kept = new Map();

export class Failure extends Error {}
class Missing extends Failure {}

const url = (path) => new URL(path, ROOT);

/** The outcome of `load`, kept under a path; a failure is not kept, so that it can be tried again. */
function once(path, load) {
  if (!kept.has(path)) {
    const coming = load(path);
    kept.set(path, coming);
    coming.catch(() => kept.delete(path));
  }
  return kept.get(path);
}

async function readJson(path) {
  const response = await fetch(url(path)).catch((cause) => {
    throw new Failure(`${path} did not arrive: the server cannot be reached.`, { cause });
  });
  if (response.status === 404) throw new Missing(`${path} did not arrive: it is not there.`);
  if (!response.ok) throw new Failure(`${path} did not arrive: the server answered ${response.status}.`);
  return response.json().catch((cause) => {
    throw new Failure(`${path} arrived, but it is not JSON.`, { cause });
  });
}

async function readImage(path) {
  const image = new Image();
  image.src = url(path);
  await image.decode().catch((cause) => {
    throw new Failure(`The pictures in ${path} did not arrive.`, { cause });
  });
  return image;
}

export const json = (path) => once(path, readJson);
export const image = (path) => once(path, readImage);
export const shardPath = ({ part, layer, unit }, size) =>
  `${part}/${layer === null ? "" : `L${layer}/`}${Math.floor(unit / size)}.json`;

/** One neuron's record out of its shard, or null for one that the run did not look at. */
export async function record(neuron, size) {
  const shard = await json(shardPath(neuron, size)).catch((error) => {
    if (error instanceof Missing && !neuron.label) return null; // no shard was written where nothing was studied
    throw error;
  });
  return shard?.neurons[neuron.unit - shard.first] ?? null;
}

/** A part's pictures: what each shows, how large it is, and on which sheet and where it lies. */
export async function tiles(path) {
  const { tile, columns, per_sheet: perSheet, sheets, titles } = await json(path);
  return {
    titles,
    tile,
    sheet: (n) => image(sheets[Math.floor(n / perSheet)]),
    place: (n) => [(n % perSheet) % columns, Math.floor((n % perSheet) / columns)].map((step) => step * tile),
  };
}
