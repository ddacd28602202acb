// The one door to the plotting library.

const drawn = new Map(); // element -> its view, or the promise of one

/** Draws a spec in an element in place of what was there; gives Vega's view. */
async function draw(element, spec, label) {
  const turn = (element.turn = (element.turn ?? 0) + 1);
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    ast: true, // no code is made from text: the page forbids it
    actions: { export: true, source: false, compiled: false, editor: false },
    downloadFileName: (label ?? "figure").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, ""),
    config: figureConfig(),
    tooltip: { theme: isDark() ? "dark" : "light" },
    logLevel: 1, // errors alone
  };
  const holder = make("div", { class: "drawing" });
  const { view } = await vegaEmbed(holder, { $schema: "https://vega.github.io/schema/vega-lite/v6.json", ...spec }, options);
  if (turn !== element.turn) {
    view.finalize(); // something newer was drawn in the meantime
    return null;
  }
  const before = drawn.get(element);
  element.replaceChildren(holder);
  before?.finalize();
  drawn.set(element, view);
  const svg = holder.querySelector("svg");
  svg?.setAttribute("role", "img");
  if (label) svg?.setAttribute("aria-label", label);
  holder.querySelector("details > summary")?.setAttribute("aria-label", `Save ${label ?? "this figure"}`);
  return view;
}

/** The width that an element may fill, in pixels. */
function roomIn(element) {
  const style = getComputedStyle(element);
  return Math.floor(element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight));
}

/** Says in place of a figure that there is none. */
function drawNothing(element, words) {
  element.turn = (element.turn ?? 0) + 1;
  drawn.get(element)?.finalize();
  drawn.delete(element);
  element.replaceChildren(make("p", { class: "nothing", text: words }));
}
