// Tables whose numbers are also seen as bars.

import { el, number, visible } from "./dom.js";

const share = (value) => `${Math.round(value * 1000) / 10}%`;

function track(value, [low, high], rule) {
  const at = (v) => (high > low ? Math.min(Math.max((v - low) / (high - low), 0), 1) : 0);
  const zero = at(Math.max(low, 0));
  const [from, to] = [Math.min(zero, at(value)), Math.max(zero, at(value))];
  const style = { "--from": share(from), "--width": share(to - from) };
  const fill = el("span", { className: value < 0 ? "fill minus" : "fill", style });
  const mark = rule === undefined ? null : el("span", { className: "rule", style: { "--at": share(at(rule)) } });
  return el("span", { className: "track", "aria-hidden": "true" }, fill, mark);
}

/** A table of `[name, value]` with a bar each, on one scale from `low` (0 unless values are negative) to `high`. */
export function bars(rows, { caption, name, value, range, rule }) {
  const values = rows.map(([, v]) => v);
  const ends = range ?? [Math.min(0, ...values), Math.max(0, ...values)];
  const heads = el(
    "tr",
    {},
    ...[name, value].map((text) => el("th", { scope: "col", textContent: text })),
    el("td", { "aria-hidden": "true" }),
  );
  const body = rows.map(([label, v]) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", textContent: label }),
      el("td", { className: "number", textContent: number(v) }),
      el("td", { className: "bar" }, v === null ? null : track(v, ends, rule)),
    ),
  );
  return el("table", {}, el("caption", { textContent: caption }), el("thead", {}, heads), el("tbody", {}, ...body));
}

/** Tokens in order, each set apart and with what cannot be seen made visible. */
export function tokens(list) {
  return el(
    "p",
    { className: "tokens" },
    ...list.flatMap((token) => [el("span", { className: "token", textContent: visible(token) }), " "]),
  );
}
