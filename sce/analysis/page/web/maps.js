// Maps of head scores, layer by head: pointing at a head previews it, a click or the keys choose it.

const FAINT = 0.02; // of the largest score: what scores less has the colour of nothing

function startMaps() {
  on("run group", drawMaps);
  on("theme print width", drawMaps);
  on("head", () => ringMaps());
}

let mapsNow = [];

async function drawMaps() {
  const found = chosenRun();
  const box = $("maps");
  if (!found) {
    mapsNow = [];
    $("map-key").replaceChildren();
    return box.replaceChildren(make("p", { class: "nothing", text: "No run passes the filters." }));
  }
  const { task, run } = found;
  const sets = [
    { id: "map-run", title: "this run", words: `${run.above.length} heads above tau`, ...run },
    task.reference && { id: "map-reference", title: "reference", words: `${task.reference.above.length} heads; n = ${task.reference.examples} examples`, ...task.reference },
    task.untuned && { id: "map-untuned", title: "untuned", words: `${task.untuned.above.length} heads, before any tuning`, ...task.untuned },
  ].filter(Boolean);
  const top = topOf(task);
  while (box.children.length > sets.length || box.querySelector(":scope > p")) box.lastChild.remove();
  while (box.children.length < sets.length) box.append(make("figure", { class: "figure map" }));
  const [layers, heads] = [task.layers, task.heads];
  mapsNow = await Promise.all(sets.map((set, index) => {
    const figure = box.children[index];
    figure.id = set.id;
    return headMap(figure, { ...set, layers, heads, top, showPlace: headShown, choose: chooseHead, preview: previewHead });
  }));
  drawKey($("map-key"), top, `tau = ${task.tau}`);
  ringMaps();
}

/** The largest score of a task: colours mean the same in all of its maps. */
function topOf(task) {
  task.top ??= Math.max(1e-9, ...[task.reference, task.untuned, ...task.runs].filter(Boolean).map((set) => Math.max(...set.map.map((score) => score ?? 0))));
  return task.top;
}

function ringMaps() {
  const { layer, head } = headShown();
  for (const view of mapsNow) view?.data("ring", [{ layer, head }]).run();
}

/** One map in a figure; gives its view. Drawn once for a size and theme, then fed. */
async function headMap(figure, { title, words, map, above, layers, heads, top, showPlace, choose, preview }) {
  const room = roomIn(figure);
  const key = [layers, heads, top, room, isDark()].join();
  let view = figure.mapKey === key ? drawn.get(figure.querySelector(".plot")) : null;
  if (!view) {
    figure.replaceChildren(make("figcaption"), make("div", { class: "plot" }));
    const plot = figure.querySelector(".plot");
    view = await draw(plot, mapSpec(layers, heads, top, room), `map of heads ${title}`);
    if (!view) return null;
    figure.mapKey = key;
    const place = (item) => (item?.datum?.layer === undefined ? null : item.datum);
    view.addEventListener("mousemove", (_, item) => preview?.(place(item)));
    plot.addEventListener("mouseleave", () => preview?.(null));
    view.addEventListener("click", (_, item) => place(item) && choose(item.datum.layer, item.datum.head));
    Object.entries({
      tabindex: "0", role: "application",
      "aria-label": `Map of ${layers} layers by ${heads} heads, ${title}. Arrow keys go from head to head.`,
    }).forEach(([name, value]) => plot.setAttribute(name, value));
    plot.addEventListener("keydown", (event) => stepOnMap(event, showPlace(), layers, heads, choose));
  }
  figure.querySelector("figcaption").replaceChildren(make("strong", { text: title }), ` ${words}`);
  const inside = new Set(above ?? []);
  const rows = map.map((score, index) => ({
    layer: Math.floor(index / heads), head: index % heads, score: score ?? 0, above: inside.has(index),
  }));
  view.data("cells", rows).data("above", rows.filter((row) => row.above)).run();
  return view;
}

function stepOnMap(event, { layer, head }, layers, heads, choose) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] }[event.key];
  if (!step) return;
  event.preventDefault();
  choose(Math.max(0, Math.min(layers - 1, layer + step[0])), Math.max(0, Math.min(heads - 1, head + step[1])));
}

function mapSpec(layers, heads, top, room) {
  const every = (count) => Array.from({ length: count }, (_, index) => index);
  const step = (count) => Math.max(1, Math.ceil(count / 8));
  const ticks = (count) => every(count).filter((index) => index % step(count) === 0);
  const axis = (count) => ({ values: ticks(count), labelAngle: 0, ticks: false, domain: false });
  const width = Math.max(120, Math.min(380, room - 46));
  const height = Math.round(Math.max(150, Math.min(330, (width * layers) / heads, 14 * layers)));
  const x = { field: "head", type: "ordinal", scale: { domain: every(heads), paddingInner: 0.06 }, axis: axis(heads) };
  const y = { field: "layer", type: "ordinal", scale: { domain: every(layers).reverse(), paddingInner: 0.06 }, axis: axis(layers) };
  const score = { field: "score", type: "quantitative", legend: null, scale: { domain: [FAINT, 0.15, 0.4, 0.7, 1].map((share) => share * top), range: heat(), interpolate: "rgb", clamp: true } };
  const frame = (name, mark) => ({ name, data: { name, values: [] }, mark: { type: "rect", filled: false, tooltip: null, ...mark }, encoding: { x, y } });
  return {
    width, height,
    layer: [
      {
        name: "cells",
        data: { name: "cells", values: [] },
        mark: { type: "rect", cursor: "pointer" },
        encoding: { x, y, color: score, tooltip: [{ field: "layer" }, { field: "head" }, { field: "score", format: ".4f" }] },
      },
      frame("above", { stroke: tint("#555555"), strokeWidth: 0.8 }),
      frame("ring", { stroke: tint("#0072B2"), strokeWidth: 2.6 }),
    ],
    config: { view: { stroke: tint("#DDDDDD") } },
  };
}

/** What the colours mean. */
function drawKey(element, top, words) {
  const stops = heat().map((colour, index) => `${colour} ${[0, 15, 40, 70, 100][index]}%`).join(", ");
  element.replaceChildren(
    make("span", { text: "score 0" }),
    make("span", { class: "gradient", style: `background: linear-gradient(to right, ${stops})`, "aria-hidden": "true" }),
    make("span", { text: fixed(top, 2) }),
    make("span", { class: "quiet", text: `Framed: above ${words}. Blue frame: the chosen head.` }));
}
