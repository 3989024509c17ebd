// A neuron's maps over its pictures: enlarged as the book enlarges them, drawn as a mask or as colours on one scale.

/** How bright a picture stays outside the mask; the chapters' value. */
export const DIMMED = 0.3;
export const MODES = ["mask", "map", "plain"];

// Inferno at nine places, dark to bright in even steps, as in the chapters.
const INFERNO = [
  [0, 0, 4],
  [31, 12, 72],
  [85, 15, 109],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
];

/** Bytes of all maps, from base64. */
export const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

/**
 * Bilinear enlargement to size × size, values at the centres of pixels and the border repeated
 * (torch: `interpolate(..., mode="bilinear", align_corners=False)`).
 */
export function enlarge(map, [rows, columns], size) {
  const large = new Float32Array(size * size);
  const along = (n) => Array.from({ length: size }, (_, i) => between(((i + 0.5) * n) / size - 0.5, n));
  const [down, across] = [along(rows), along(columns)];
  down.forEach(([top, bottom, y], row) =>
    across.forEach(([left, right, x], column) => {
      const upper = map[top * columns + left] * (1 - x) + map[top * columns + right] * x;
      const lower = map[bottom * columns + left] * (1 - x) + map[bottom * columns + right] * x;
      large[row * size + column] = upper * (1 - y) + lower * y;
    }),
  );
  return large;
}

/** The two neighbours of a place among n, and how far it is from the first to the second. */
function between(place, n) {
  const held = Math.min(Math.max(place, 0), n - 1);
  const first = Math.min(Math.floor(held), Math.max(n - 2, 0));
  return [first, Math.min(first + 1, n - 1), held - first];
}

/** The colour at a share from 0 to 1 of the scale. */
export function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (INFERNO.length - 1);
  const first = Math.min(Math.floor(place), INFERNO.length - 2);
  return INFERNO[first].map((value, i) => value + (INFERNO[first + 1][i] - value) * (place - first));
}

/** Draws one map over the picture that the canvas shows; `cut` is the threshold as a byte of the map's scale. */
export function draw(context, large, { mode, cut }) {
  if (mode === "plain") return;
  const { width, height } = context.canvas;
  const pixels = context.getImageData(0, 0, width, height);
  const paint = mode === "mask" ? dim : tint;
  for (let i = 0; i < large.length; i++) paint(pixels.data, i * 4, large[i], cut);
  context.putImageData(pixels, 0, 0);
}

function dim(data, at, value, cut) {
  if (value > cut) return;
  for (let i = at; i < at + 3; i++) data[i] *= DIMMED;
}

function tint(data, at, value) {
  const share = value / 255;
  const alpha = 0.15 + 0.65 * share;
  colour(share).forEach((c, i) => (data[at + i] = data[at + i] * (1 - alpha) + c * alpha));
}

/** The scale from low to high as a strip of colours. */
export function strip(canvas) {
  [canvas.width, canvas.height] = [128, 1];
  const context = canvas.getContext("2d");
  for (let i = 0; i < 128; i++) {
    context.fillStyle = `rgb(${colour(i / 127).map(Math.round)})`;
    context.fillRect(i, 0, 1, 1);
  }
}
