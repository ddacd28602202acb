// Numbers as people read them; the number itself stays in the element's value.

function fixed(value, digits = 3) {
  if (value === null || value === undefined) return "-";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) >= 1) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && size < 0.5 * 10 ** -digits) return value.toExponential(0);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? Math.min(1, digits) : digits);
}

/** "0.41 [0.30, 0.52]" of [value, low, high, n]. */
function interval(found, digits = 2) {
  if (!found) return "-";
  const [value, low, high] = found;
  const text = value.toFixed(digits);
  return low === null || high === null ? text : `${text} [${low.toFixed(digits)}, ${high.toFixed(digits)}]`;
}

/** A cell's content: text, number, or [value, low, high, n]. */
function shown(cell) {
  if (cell === null || cell === undefined) return [make("span", { class: "none", text: "-" })];
  if (Array.isArray(cell)) {
    const [value, low, high, n] = cell;
    const bounds = low === null || high === null ? "" : ` [${fixed(low)}, ${fixed(high)}]`;
    return [
      make("data", { value, text: fixed(value), title: n ? `n = ${n}` : null }),
      make("span", { class: "bounds", text: bounds }),
    ];
  }
  if (typeof cell === "number") return [make("data", { value: cell, text: fixed(cell) })];
  return [document.createTextNode(String(cell))];
}

const isNumeric = (cell) => typeof cell === "number" || Array.isArray(cell);
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const valueOf = (measures, name) => (measures[name] ? measures[name][0] : null);
