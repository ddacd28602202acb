// Figures that were drawn in advance: their panels filtered and laid out for the width at hand.

const GAP = 20; // pixels between panels

/** The spec of a figure as filters, width and theme want it; null where nothing is left. */
function laidOut(figure, width) {
  const parts = figure.parts.filter((part) => part.kind === null || keep(part.setting, part.kind));
  const datasets = {};
  let before = 0;
  let after = 0;
  for (const [name, rows] of Object.entries(figure.datasets)) {
    datasets[name] = rows.filter((row) => keepsRow(figure, row));
    if (rows.some((row) => isFiltered(figure, row))) {
      before += rows.length;
      after += datasets[name].length;
    }
  }
  const panelled = figure.parts.some((part) => part.kind !== null);
  if (!parts.length || (before && !after) || (panelled && parts.every((part) => part.kind === null))) return null;
  const narrow = width < 560;
  const alone = parts.length === 1;
  const wide = Math.max(...parts.map(({ spec }) => (typeof spec.width === "number" ? spec.width : width)));
  const pairs = narrow && !alone && wide <= 200; // small panels stay side by side on a phone
  const columns = pairs ? 2 : columnsOf(parts.length, width, wide, figure.margin);
  const room = Math.floor((width - GAP * (columns - 1)) / columns) - (pairs ? 46 : figure.margin);
  const panels = parts.map((part) => fitted(part.spec, room, alone, narrow));
  const whole = alone ? panels[0] : { concat: panels, columns, spacing: GAP, resolve: { scale: { color: "shared" } } };
  return themed({ ...whole, datasets });
}

/** How many panels stand side by side: rows alike in length, and all in one row where that nearly fits. */
function columnsOf(count, width, wide, margin) {
  if (count <= 4 && (width - GAP * (count - 1)) / count - margin >= 0.7 * wide) return count;
  const most = Math.max(1, Math.min(count, Math.floor((width + GAP) / (wide + margin + GAP))));
  return count <= 2 * most ? Math.ceil(count / Math.ceil(count / most)) : most;
}

const settingIn = (text) => (typeof text === "string" ? text.replace(/ \(\d+\)$/, "") : text);
const isFiltered = (figure, row) => [...figure.settings, ...figure.kinds].some((name) => name in row);
const keepsRow = (figure, row) =>
  figure.settings.every((name) => !(name in row) || keep(settingIn(row[name]), row.kind ?? kindOf(row[name]))) &&
  figure.kinds.every((name) => !(name in row) || keep(null, row[name]));

/** The kind of a setting, where a row does not say: of the first that is called so. */
function kindOf(label) {
  const name = settingIn(label);
  for (const task of group().tasks) {
    const found = task.settings.find((setting) => setting.setting === name);
    if (found) return found.kind;
  }
  return null;
}

/** A panel with its width, titles and legends cut to what there is. */
function fitted(panel, room, alone, narrow) {
  const own = { ...panel };
  if (typeof own.width === "number") {
    own.width = Math.max(96, Math.round(Math.min(alone ? 560 : 1.4 * own.width, room)));
  }
  const letters = Math.max(18, Math.floor((typeof own.width === "number" ? own.width + 30 : room) / 5.6));
  if (own.title) {
    const title = typeof own.title === "string" ? { text: own.title } : own.title;
    const lines = [title.subtitle ?? []].flat().flatMap((line) => wrapped(line, letters));
    own.title = { ...title, fontSize: Math.max(11, title.fontSize ?? 12), subtitleFontSize: 10.5, subtitle: lines };
  }
  return narrow || !alone ? withLegends(own, narrow) : own;
}

function wrapped(line, letters) {
  const lines = [""];
  for (const word of line.split(" ")) {
    const last = lines[lines.length - 1];
    if (last && last.length + word.length + 1 > letters) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  return lines;
}

/** Legends of names above the panels; on narrow screens in rows of three, and those of numbers below. */
function withLegends(spec, narrow) {
  if (Array.isArray(spec)) return spec.map((each) => withLegends(each, narrow));
  if (!spec || typeof spec !== "object") return spec;
  const copy = Object.fromEntries(Object.entries(spec).map(([name, value]) => [name, withLegends(value, narrow)]));
  if (copy.legend && copy.type === "nominal") copy.legend = { ...copy.legend, title: null, orient: "top", ...(narrow ? { columns: 3 } : {}) };
  else if (copy.legend) copy.legend = { ...copy.legend, orient: "bottom" };
  return copy;
}
