// A neuron's pictures with its maps, under one switch: mask, map or plain.

import { image, tiles } from "./data.js";
import { el, level, number } from "./dom.js";
import { bytes, draw, enlarge, MODES, strip } from "./maps.js";

const WORDS = { mask: "where it fires", map: "activation map", plain: "picture alone" };
let mode = MODES[0]; // kept from neuron to neuron

/** The panel of a record's pictures, drawn when their sheets arrive. */
export async function pictures(record, part) {
  const album = await tiles(part.pictures);
  const cells = record.examples.flatMap((group) =>
    group.picture.map((n, i) => cell(group, n, i, { record, part, album })),
  );
  const lost = el("p", { className: "notice", role: "alert", hidden: true });
  const redraw = () =>
    Promise.all(cells.map((one) => one.draw())).catch((error) => {
      [lost.hidden, lost.textContent] = [false, error.message];
    });
  const groups = record.examples.map((group) => {
    const own = cells.filter((one) => one.group === group).map((one) => one.node);
    const long = own.length > 4 ? "long" : ""; // two short groups stand side by side
    return el(
      "section",
      { className: long },
      el("h3", { textContent: group.title }),
      el("ul", { className: "pictures" }, ...own),
    );
  });
  redraw();
  return el("div", {}, tools(record, redraw), lost, el("div", { className: "groups" }, ...groups));
}

function cell(group, n, i, { record, part, album }) {
  const canvas = el("canvas", { width: album.tile, height: album.tile, role: "img" });
  const says = `activation ${level(group.activation[i])}`;
  canvas.setAttribute("aria-label", `${album.titles[n]}; ${says}`);
  const caption = el(
    "figcaption",
    {},
    el("span", { className: "number", textContent: level(group.activation[i]) }),
    ` ${album.titles[n]}`,
  );
  const large = group.maps && record.scale ? enlarged(group, i, part.grid, album.tile) : null;
  const paint = async () => {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    tile(context, await album.sheet(n), album.place(n), album.tile);
    if (large) draw(context, large, { mode, cut: cut(record) });
    canvas.dataset.mode = large ? mode : "plain";
  };
  return { group, draw: paint, node: el("li", {}, el("figure", {}, canvas, caption)) };
}

function enlarged({ maps }, i, grid, size) {
  const area = grid[0] * grid[1];
  return enlarge(bytes(maps).subarray(i * area, (i + 1) * area), grid, size);
}

const cut = ({ scale: [low, high], threshold }) => ((threshold - low) / (high - low)) * 255;

function tile(context, sheet, [x, y], size) {
  context.drawImage(sheet, x, y, size, size, 0, 0, size, size);
}

function tools(record, redraw) {
  if (!record.scale) return null;
  const legend = el("div", { className: "scale", id: "scale" });
  const buttons = MODES.map((name) => el("button", { type: "button", id: `mode-${name}`, textContent: WORDS[name] }));
  const show = () => {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(MODES[i] === mode)));
    legend.replaceChildren(...explain(record));
  };
  buttons.forEach((button, i) =>
    button.addEventListener("click", () => {
      mode = MODES[i];
      show();
      redraw();
    }),
  );
  show();
  return el(
    "div",
    { className: "bar-of-tools" },
    el("div", { role: "group", className: "steps", "aria-label": "Show on the pictures" }, ...buttons),
    legend,
  );
}

/** What the brightness or the colours mean; the scale is one for all pictures of the neuron. */
function explain({ scale: [low, high], threshold }) {
  if (mode === "plain") return ["the pictures as the model saw them"];
  if (mode === "mask")
    return [
      `bright: activation above ${level(threshold)}, the 95th percentile over all places of all pictures; ` +
        "the rest is dimmed",
    ];
  const colours = el("canvas", { "aria-hidden": "true" });
  strip(colours);
  return [
    el("span", { className: "number", textContent: level(low) }),
    colours,
    el("span", { className: "number", textContent: level(high) }),
    "activation, one scale for all pictures of this neuron",
  ];
}

/** Goes to the next of mask, map and plain. */
export function nextMode() {
  document.getElementById(`mode-${MODES[(MODES.indexOf(mode) + 1) % MODES.length]}`)?.click();
}

/** One tile of a sheet as a canvas: a picture grown for a neuron, or one of the album. */
export async function single(path, [x, y], size, label) {
  const canvas = el("canvas", { width: size, height: size, role: "img", "aria-label": label });
  tile(canvas.getContext("2d"), await image(path), [x, y], size);
  return canvas;
}
