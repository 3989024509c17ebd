// The view of one neuron: panels in the order in which one asks. A field that the data lacks has no panel.

import { bars, tokens } from "./bars.js";
import { shardPath, tiles } from "./data.js";
import { el, level, number } from "./dom.js";
import { pictures, single } from "./pictures.js";

const panel = (title, ...content) => {
  const shown = content.filter(Boolean);
  return shown.length ? el("section", { className: "panel" }, el("h2", { textContent: title }), ...shown) : null;
};
const percent = (share) => (share === null || share === undefined ? null : `${number(share * 100)} %`);
const note = (text) => text && el("p", { className: "note", textContent: text });

/** Everything below the title; sheets of pictures are drawn when they arrive. */
export async function view(record, { part, index }) {
  const waiting = record.examples?.length && part.pictures ? [pictures(record, part)] : [];
  const [drawings] = await Promise.all(waiting);
  const fires = panel("What makes it fire", drawings ?? pairs(record) ?? none(record));
  const says = el(
    "div",
    { className: "columns" },
    panel("Formulas", ...formulas(record)),
    panel("What it says of the pair", weights(record)),
    panel("What it writes", ...written(record)),
    panel("What it wants to see", grown(record)),
    panel("Words it answers", answered(record)),
    panel("Three faces", ...faces(record)),
    panel("Where it is strongest", ...strongest(record, part)),
  );
  return el(
    "div",
    {},
    facts(record),
    ...(record.formulas ? [says, fires] : [fires, says]),
    panel("In the book", mentioned(record, index)),
    panel("Behind this page", definitions(part), downloads(record, { part, index })),
  );
}

function facts(record) {
  const { attribution, ablation } = record;
  const known = [
    attribution && [
      "attribution, mean",
      number(attribution.mean),
      `place ${number(attribution.rank)} of all units; highest ${number(attribution.max)}`,
    ],
    attribution && [
      "among an image's best",
      `${number(attribution.n_top)} of ${number(attribution.n_images)}`,
      "images among whose 20 best units it is",
    ],
    ablation && [
      "silenced: logits lost",
      number(ablation.mean),
      `place ${number(ablation.rank)}; highest ${number(ablation.max)}, ${number(ablation.n_images)} images`,
    ],
    record.threshold !== undefined && [
      "fires above",
      number(record.threshold),
      "95th percentile over all places of all pictures",
    ],
    record.firing !== undefined && ["fires on", percent(record.firing), "of the pairs"],
    record.accuracy !== undefined && [
      "right when it fires",
      percent(record.accuracy),
      `of the pairs; ${percent(record.accuracy_overall)} of all`,
    ],
  ].filter(Boolean);
  const shown = known.map(([name, value, small]) =>
    el("div", {}, el("dt", { textContent: name }), el("dd", {}, value, el("small", { textContent: small }))),
  );
  return shown.length ? el("dl", { className: "facts" }, ...shown) : null;
}

const NONE =
  "No pictures were kept for this neuron: the book studies a part of all neurons closely. Of the others it has words.";
const none = ({ examples }) => (examples?.length ? null : note(NONE));

function pairs({ examples }) {
  if (!examples?.some((group) => group.pair)) return null;
  return el(
    "div",
    { className: "groups" },
    ...examples.map((group) =>
      el(
        "section",
        { className: group.pair.length > 4 ? "long" : "" },
        el("h3", { textContent: group.title }),
        el("ul", { className: "pairs" }, ...group.pair.map((pair, i) => one(pair, group.activation[i]))),
      ),
    ),
  );
}

function one({ premise, hypothesis, label, guess }, activation) {
  const verdict =
    guess === undefined ? label : guess === label ? `${label}, and guessed so` : `${label}, guessed ${guess}`;
  return el(
    "li",
    {},
    el("span", { className: "number", title: "activation", textContent: level(activation) }),
    el(
      "div",
      {},
      el("p", { textContent: premise }),
      el("p", {}, el("strong", { textContent: hypothesis })),
      el("p", { className: "note", textContent: verdict }),
    ),
  );
}

function written({ tokens: both, interpretable }) {
  return [
    both && el("h3", { textContent: "tokens that it makes likelier" }),
    both && tokens(both.positive),
    both && el("h3", { textContent: "tokens that it makes less likely" }),
    both && tokens(both.negative),
    interpretable !== undefined &&
      note(
        interpretable
          ? "Most of the likelier tokens are English words: interpretable, as the paper counts."
          : "Too few of the likelier tokens are English words to count as interpretable.",
      ),
  ];
}

const answered = ({ words }) =>
  words?.length &&
  bars(words, { caption: "Written words that excite it most, above the mean over words", name: "word", value: "SD" });

function strongest({ categories, families, concepts, attribution }, part) {
  return [
    categories?.length &&
      bars(categories, {
        caption: "Mean over pictures with the category above the mean over all",
        name: "category",
        value: "SD",
      }),
    concepts?.length &&
      bars(concepts, {
        caption: "Share of its strongest pictures, by main concept",
        name: "concept",
        value: "share",
        range: [0, 1],
      }),
    families?.length &&
      bars(families, {
        caption: "Share of its strongest pictures, by family",
        name: "family",
        value: "share",
        range: [0, 1],
      }),
    attribution?.picture !== null &&
      attribution?.picture !== undefined &&
      part.pictures &&
      later(best(attribution, part)),
  ];
}

/** A place that is filled when a picture has come. */
function later(coming) {
  const place = el("div", {});
  coming.then(
    (node) => place.append(node),
    () => place.append(note("Its picture did not arrive.")),
  );
  return place;
}

async function best({ picture, max }, part) {
  const album = await tiles(part.pictures);
  const sheets = await album.sheet(picture);
  const canvas = await single(sheets.src, album.place(picture), album.tile, album.titles[picture]);
  return el(
    "figure",
    { className: "vision small" },
    canvas,
    el("figcaption", {
      className: "note",
      textContent: `Its highest attribution, ${number(max)}: ${album.titles[picture]}`,
    }),
  );
}

function faces({ auroc }) {
  if (!auroc) return [];
  const rows = ["photo", "drawing", "text"].filter((facet) => facet in auroc).map((facet) => [facet, auroc[facet]]);
  const verdict = auroc.multimodal
    ? "It tells the concept on all three faces."
    : "It does not tell the concept on all three faces.";
  return [
    bars(rows, {
      caption: `AUROC for “${auroc.concept}” on each facet; the line marks chance`,
      name: "facet",
      value: "AUROC",
      range: [0, 1],
      rule: 0.5,
    }),
    auroc.multimodal !== undefined && note(verdict),
  ];
}

const grown = ({ visualisation }) => visualisation && later(wanted(visualisation));

async function wanted(visualisation) {
  const { sheet, tile, columns, number: n, activation_sd: reached } = visualisation;
  const place = [(n % columns) * tile, Math.floor(n / columns) * tile];
  const label = "A picture grown from noise to raise this neuron";
  const canvas = await single(sheet, place, tile, label);
  const answer =
    reached === undefined || reached === null ? "" : `; the answer to it is ${number(reached)} standard deviations`;
  return el(
    "figure",
    { className: "vision" },
    canvas,
    el("figcaption", { className: "note", textContent: `${label}${answer}.` }),
  );
}

function formulas({ formulas: found }) {
  if (!found?.length) return [];
  const longest = found.at(-1);
  const rows = found.map(({ length, formula, iou }) => [`${length} · ${formula}`, iou]);
  return [
    el("p", { className: "formula" }, el("code", { textContent: longest.formula })),
    bars(rows, {
      caption: "Agreement of the formula with firing, by its length",
      name: "length · formula",
      value: "IoU",
      range: [0, 1],
    }),
  ];
}

function weights({ weights: by }) {
  if (!by) return null;
  const entries = Object.entries(by);
  const most = Math.max(...entries.map(([, v]) => Math.abs(v)));
  return bars(entries, {
    caption: "Weight from the neuron to each answer",
    name: "answer",
    value: "weight",
    range: [-most, most],
    rule: 0,
  });
}

function mentioned({ address }, { mentions, chapters }) {
  const names = mentions[address] ?? [];
  if (!names.length) return note("No chapter names this neuron.");
  return el(
    "ul",
    {},
    ...names
      .filter((name) => chapters[name])
      .map((name) => el("li", {}, el("a", { href: chapters[name].href, textContent: chapters[name].title }))),
  );
}

function definitions({ definitions: said, activation }) {
  const rows = Object.entries({ activation, ...said }).filter(([, text]) => text);
  if (!rows.length) return null;
  const list = rows.flatMap(([name, text]) => [el("dt", { textContent: name }), el("dd", { textContent: text })]);
  return el("details", {}, el("summary", { textContent: "What the numbers are" }), el("dl", {}, ...list));
}

let offered = ""; // the last record's address as a file

function downloads(record, { part, index }) {
  const { profile, package: version, made } = index;
  const text = JSON.stringify({ ...record, profile, package: version, made }, null, 1);
  const name = `${record.address.replaceAll("/", "-")}.json`;
  URL.revokeObjectURL(offered);
  offered = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const unit = Number(record.address.split("N").at(-1));
  const layer = part.layers === null ? null : Number(/\/L(\d+)\//.exec(record.address)[1]);
  const shard = `explorer/data/${shardPath({ part: part.part, layer, unit }, index.shard_size)}`;
  return el(
    "p",
    { className: "steps" },
    el("a", {
      className: "button",
      id: "download",
      href: offered,
      download: name,
      textContent: "Download this neuron's data (JSON)",
    }),
    el("a", {
      className: "button",
      href: shard,
      download: shard.split("data/")[1].replaceAll("/", "-"),
      textContent: `with its ${index.shard_size} neighbours`,
    }),
  );
}
