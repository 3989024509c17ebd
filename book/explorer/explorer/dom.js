// Elements without markup: whatever a model or a file says becomes text, never HTML.

/** An element: `el("a", { href: "#/" }, "text", child)`. Properties with a dash are set as attributes. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "style") for (const [key, set] of Object.entries(value)) node.style.setProperty(key, set);
    else if (name.includes("-") || name === "role" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

const NAMED = { "\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\" };
// Control, format (bidirectional marks, zero widths), separators, private and unassigned characters.
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}\u00a0]/u;

/** A token as it is: spaces at its ends as ␣, what cannot be seen as an escape such as \x1b, nothing as ∅. */
export function visible(token) {
  if (token === "") return "∅";
  const edges = token.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
  return [...edges].map((sign) => NAMED[sign] ?? (UNSEEN.test(sign) ? escaped(sign) : sign)).join("");
}

function escaped(sign) {
  const hex = sign.codePointAt(0).toString(16);
  return hex.length <= 2 ? `\\x${hex.padStart(2, "0")}` : `\\u{${hex}}`;
}

/** A number for reading: three significant figures, a real minus sign, a dash where there is none. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const short = Number.isInteger(value) ? value : Number(value.toPrecision(3));
  const tiny = short !== 0 && Math.abs(short) < 0.001;
  const text = tiny ? short.toExponential() : short.toLocaleString("en", { maximumSignificantDigits: 17 });
  return text.replace(/-/g, "−");
}

/** An activation; next to nothing is none, for the non-linearity's tails are long. */
export const level = (value) => (Math.abs(value) < 0.005 ? "0" : number(value));
