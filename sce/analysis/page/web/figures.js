// The figures that were drawn in advance, each with its caption and the numbers behind it.

let watcher = null;
let plates = []; // {figure, element, plot}

function startFigures() {
  buildFigures();
  on("group", buildFigures);
  on("filter", () => {
    showPlates();
    redraw();
  });
  on("theme width", redraw);
  on("print", () => plates.filter(({ element }) => !element.hidden).forEach(drawPlate));
}

function buildFigures() {
  watcher?.disconnect();
  watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const plate = plates.find(({ plot }) => plot === entry.target);
      plate.near = entry.isIntersecting;
      if (plate.near && plate.stale) drawPlate(plate);
    }
  }, { rootMargin: "500px 0px" });
  plates = [];
  const keys = [...new Set((group()?.figures ?? []).map((figure) => figure.key))];
  $("figure-list").replaceChildren(...keys.map((key) => {
    const own = group().figures.filter((figure) => figure.key === key);
    const heading = make("h3", { id: `about-${key}`, text: own[0].heading });
    return make("section", { class: "question", "data-key": key, "aria-labelledby": `about-${key}` },
      heading, make("div", { class: "grid" }, ...own.map(plateOf)));
  }));
  $("contents").replaceChildren(make("ul", {}, ...keys.map((key) =>
    make("li", { "data-key": key }, make("a", { href: `#about-${key}`, text: group().figures.find((each) => each.key === key).heading })))));
  showPlates();
}

function plateOf(figure) {
  const name = figure.task ?? "all tasks pooled";
  const plot = make("div", { class: "plot", role: "region", tabindex: "0", "aria-label": `${figure.heading} ${name}` });
  const details = make("details", { class: "numbers" }, make("summary", { text: "The numbers" }));
  const many = group().tasks.length > 1;
  const element = make("figure", { class: figure.parts.length > 3 ? "figure wide" : "figure", "data-task": figure.task ?? "" },
    many ? make("h4", { text: name }) : null,
    plot, make("figcaption", { text: figure.caption.filter(Boolean).join(" ") }), details);
  const plate = { figure, element, plot, stale: true, near: false, fill: tablesWithin(details, () => figure.tables) };
  plates.push(plate);
  watcher.observe(plot);
  return element;
}

function showPlates() {
  for (const { element, figure } of plates) {
    element.hidden = state.task !== "" && figure.task !== state.task;
  }
  for (const section of $("figure-list").children) {
    section.hidden = [...section.querySelectorAll("figure")].every((each) => each.hidden);
    const link = [...$("contents").querySelectorAll("li")].find((each) => each.dataset.key === section.dataset.key);
    if (link) link.hidden = section.hidden;
  }
}

function redraw() {
  for (const plate of plates) {
    plate.stale = true;
    plate.fill();
    if (plate.near && !plate.element.hidden) drawPlate(plate);
  }
}

async function drawPlate(plate) {
  plate.stale = false;
  const { figure, plot } = plate;
  if (!figure.parts.length) return drawNothing(plot, "Nothing to draw: the numbers are in the table.");
  const spec = laidOut(figure, roomIn(plot));
  if (!spec) return drawNothing(plot, "Nothing of this passes the filters.");
  return draw(plot, spec, `${figure.heading} ${figure.task ?? "all tasks pooled"}`);
}
