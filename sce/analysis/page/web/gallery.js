// The maps of all runs, small: a wall to look at, and a button each.

function startGallery() {
  $("all-maps").addEventListener("toggle", drawGallery);
  on("filter group theme print", drawGallery);
  on("run", markGallery);
}

function drawGallery() {
  if (!$("all-maps").open) return;
  const f1 = ({ run }) => valueOf(run.measures, "f1") ?? -1;
  const found = runsShown().sort((a, b) => f1(b) - f1(a));
  $("gallery").replaceChildren(...found.map(({ task, run }) => {
    const canvas = make("canvas", { width: task.heads, height: task.layers, "aria-hidden": "true" });
    paint(canvas, run.map, task);
    const words = `F1 ${interval(run.measures.f1)?.slice(0, 4)}, ${plural(run.above.length, "head")}`;
    return make("button", {
      type: "button", class: "thumb", "data-run": `${task.task}\n${run.name}`, on: { click: () => showRun(task.task, run.name) },
    }, canvas, make("strong", { text: run.setting }), make("span", { text: `${tasksShown().length > 1 ? `${task.task}, ` : ""}${words}${seedOf(run)}` }));
  }));
  markGallery();
}

function markGallery() {
  const own = state.run ? `${state.run.task}\n${state.run.name}` : "";
  for (const thumb of $("gallery").children) thumb.setAttribute("aria-current", String(thumb.dataset.run === own));
}

/** A pixel a head, layer 0 at the bottom. */
function paint(canvas, map, task) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(task.heads, task.layers);
  const colours = heat().map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
  const stops = [FAINT, 0.15, 0.4, 0.7, 1];
  map.forEach((score, index) => {
    const share = Math.max(FAINT, Math.min(1, (score ?? 0) / topOf(task)));
    const upper = Math.max(1, stops.findIndex((stop) => share <= stop));
    const part = (share - stops[upper - 1]) / (stops[upper] - stops[upper - 1]);
    const row = task.layers - 1 - Math.floor(index / task.heads);
    const at = 4 * (row * task.heads + (index % task.heads));
    for (let channel = 0; channel < 3; channel += 1) {
      image.data[at + channel] = colours[upper - 1][channel] * (1 - part) + colours[upper][channel] * part;
    }
    image.data[at + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}
