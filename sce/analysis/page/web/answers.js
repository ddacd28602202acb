// The findings in sentences, by task, with the correlation that matters most beside them.

const FIRST = 3; // sentences of a task that stand there before "more"

function startAnswers() {
  const found = report.groups.flatMap((each) => each.tasks);
  const heads = found[0] ? `${found[0].layers} × ${found[0].heads} heads` : "";
  const models = [...new Set(report.groups.map((each) => each.model))].join(", ");
  const tasks = [...new Set(found.map((task) => task.task))].join(", ");
  const runs = plural(report.num_runs, "run") + (report.num_left_out ? ` (${report.num_left_out} more left out)` : "");
  $("about").textContent = [runs, models && `model ${models}`, tasks, heads, `sce ${report.version}`]
    .filter(Boolean).join(" · ");
  drawWarnings();
  drawAnswers();
  on("filter group", drawAnswers);
  on("print", () => $("answers").querySelectorAll("details").forEach((each) => (each.open = true)));
}

function drawWarnings() {
  const list = (texts) => make("ul", {}, ...texts.map((text) => make("li", { text })));
  const own = report.groups.flatMap((each) => each.tasks.flatMap((task) => task.warnings.map((text) => `${task.task}: ${text}`)));
  const folded = own.length
    ? make("details", {}, make("summary", { text: `${plural(own.length, "warning")} about these runs` }), list(own))
    : null;
  $("warnings").hidden = !report.warnings.length && !own.length;
  $("warnings").replaceChildren(...[report.warnings.length ? list(report.warnings) : null, folded].filter(Boolean));
}

function drawAnswers() {
  const own = group();
  if (!own) return drawNothing($("answers"), "No runs.");
  const names = own.tasks.map((task) => task.task);
  const by = new Map([...names, null].map((name) => [name, []]));
  for (const sentence of own.answers) {
    const name = names.find((each) => sentence.startsWith(`${each}: `)) ?? null;
    by.get(name).push(name === null ? sentence.replace(/^all tasks pooled: /, "") : sentence.slice(name.length + 2));
  }
  const wanted = state.task ? [state.task] : [null, ...names];
  const cards = wanted.filter((name) => by.get(name)?.length).map((name) => card(own, name, by.get(name)));
  $("answers").replaceChildren(make("div", { class: "cards" }, ...cards));
}

function card(own, name, sentences) {
  const items = (texts) => make("ul", {}, ...texts.map((text) => make("li", { text: upper(text) })));
  const rest = sentences.slice(FIRST);
  const more = rest.length ? make("details", {}, make("summary", { text: `${rest.length} more` }), items(rest)) : null;
  return make("article", { class: "card" },
    make("h3", { text: name ?? "All tasks" }), tiles(own, name), items(sentences.slice(0, FIRST)), more);
}

/** Rho of the measures that matter most, over synthetic settings. */
function tiles(own, name) {
  const found = ["recall", "recall_learned", "cosine_learned", "answer_nll"]
    .map((measure) => own.rhos.find((rho) => rho.task === name && rho.measure === measure && rho.points === "synthetic"))
    .filter((rho) => rho?.rho);
  if (!found.length) return null;
  const tile = (rho) => make("div", { class: "tile" },
    make("dt", { text: report.short[rho.measure] ?? rho.measure }),
    make("dd", {}, make("data", { value: rho.rho[0], text: rho.rho[0].toFixed(2) }),
      make("span", { class: "bounds", text: bounds(rho.rho) })));
  const n = found[0].n;
  return make("div", {},
    make("p", { class: "quiet", text: `Spearman rho with F1 and its 95% interval, n = ${n} synthetic, limited and mixed settings` }),
    make("dl", { class: "tiles" }, ...found.map(tile)));
}

const bounds = ([, low, high]) => (low === null || high === null ? "" : `${low.toFixed(2)} to ${high.toFixed(2)}`);
const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);
