// One head: its score in every run, as a strip and as a table.

function startHeads() {
  drawHeadControls();
  on("group run", drawHeadControls);
  on("group run filter head theme print width", drawHead);
}

function drawHeadControls() {
  const task = chosenRun()?.task ?? group()?.tasks[0];
  if (!task) return;
  const { layer, head } = state.head;
  refill($("head-controls"),
    labelledNumber("layer", "Layer", layer, task.layers - 1, (value) => chooseHead(value, state.head.head)),
    labelledNumber("head", "Head", head, task.heads - 1, (value) => chooseHead(state.head.layer, value)));
}

/** What the head scores in every run that is shown, in references and untuned models. */
function scoresOf({ layer, head }) {
  const many = tasksShown().length > 1;
  const rows = runsShown().map(({ task, run }) => {
    const index = layer * task.heads + head;
    return {
      name: run.name, task: task.task, setting: run.setting, kind: run.kind, seed: run.seed, score: run.map[index],
      above: run.above.includes(index), f1: run.measures.f1 ?? null, row: many ? `${task.task}: ${run.kind}` : run.kind,
    };
  });
  for (const task of tasksShown()) {
    if (!task.reference) continue;
    const index = layer * task.heads + head;
    rows.push({
      name: "reference", task: task.task, setting: "reference", kind: "reference", seed: null, score: task.reference.map[index],
      above: task.reference.above.includes(index), f1: null, row: many ? `${task.task}: reference` : "reference",
    });
  }
  return rows.sort((a, b) => (b.score ?? -1) - (a.score ?? -1));
}

let stripDrawn = "";
const headOrder = {}; // of the table, kept while it is drawn anew

async function drawHead() {
  const found = chosenRun();
  if (!tasksShown().length) return;
  const place = headShown();
  const rows = scoresOf(place);
  $("head-title").textContent = `Layer ${place.layer}, head ${place.head}: its score in every run`;
  $("head-words").textContent = found ? headWords(found, place, rows) : "No run passes the filters.";
  if ($("layer") && document.activeElement !== $("layer")) $("layer").value = place.layer;
  if ($("head") && document.activeElement !== $("head")) $("head").value = place.head;
  const cells = rows.map((row) => [row.name, row.score, row.above ? "yes" : "no", row.f1, row.setting, row.kind, row.task]);
  const columns = ["run", "score", "above tau", "F1", "setting", "kind", "task"];
  const mark = (row) => row[0] === state.run?.name && row[6] === state.run?.task;
  const onRow = (row) => chooseRun(row[6], row[0]);
  const leads = (row) => row[5] !== "reference";
  refill($("head-table"), tableOf({ title: "", columns, rows: cells, onRow, mark, leads, order: headOrder }));
  if (rows.length) await drawStrip(rows);
  else await clearStrip();
}

function headWords({ task, run }, { layer, head }, rows) {
  const index = layer * task.heads + head;
  const of = (set) => (set ? fixed(set.map[index]) : "-");
  const runs = rows.filter((row) => row.kind !== "reference" && row.kind !== "untuned");
  const above = runs.filter((row) => row.above).length;
  return `Layer ${layer}, head ${head}: ${of(run)} in this run, ${of(task.reference)} in the reference, ` +
    `${of(task.untuned)} before tuning; above tau in ${above} of ${plural(runs.length, "tuned run")} shown.`;
}

async function drawStrip(rows) {
  const figure = $("strip");
  const names = [...new Set(rows.map((row) => row.row))];
  const ordered = tasksShown().flatMap((task) =>
    KIND_ORDER().map((kind) => (tasksShown().length > 1 ? `${task.task}: ${kind}` : kind))).filter((name) => names.includes(name));
  const key = [ordered.join("\n"), roomIn(figure), isDark(), state.group].join("\n");
  if (stripDrawn !== key || !drawn.get(figure.querySelector(".plot"))) {
    stripDrawn = key;
    if (!figure.querySelector(".plot")) figure.append(make("div", { class: "plot" }), make("figcaption"));
    const view = await draw(figure.querySelector(".plot"), stripSpec(ordered, roomIn(figure)), "score of one head in every run");
    if (!view) return null;
    view.addEventListener("click", (_, item) => {
      if (item?.datum?.name && item.datum.kind !== "reference") chooseRun(item.datum.task, item.datum.name);
    });
    figure.querySelector("figcaption").textContent =
      "A mark a run. The reference is what real data give, the ceiling; the untuned model is the null. Orange dashes: tau.";
    return drawHead();
  }
  const view = drawn.get(figure.querySelector(".plot"));
  const shown = rows.filter((row) => row.score !== null).map((row, index) => ({ ...row, jitter: (index * 0.618) % 1, text: fixed(row.score, 4) }));
  const own = shown.filter((row) => row.name === state.run?.name && row.task === state.run?.task);
  return view.data("scores", shown).data("own", own).run();
}

async function clearStrip() {
  const view = await drawn.get($("strip").querySelector(".plot"));
  view?.data("scores", []).data("own", []).run();
}

function stripSpec(names, room) {
  const top = Math.max(...tasksShown().map(topOf));
  const kinds = KIND_ORDER();
  const colours = kindColours();
  const x = { field: "score", type: "quantitative", title: "score", scale: { domain: [0, top], nice: false, padding: 8 } };
  const y = { field: "row", type: "nominal", title: null, sort: names, scale: { domain: names }, axis: { grid: false, domain: false, ticks: false } };
  const yOffset = { field: "jitter", type: "quantitative", scale: { domain: [-0.3, 1.3] } };
  const colour = { field: "kind", type: "nominal", legend: null, scale: { domain: kinds, range: kinds.map((kind) => colours[kind]) } };
  const longest = Math.max(...names.map((name) => name.length));
  return {
    width: Math.max(150, Math.min(620, room - 40 - 6.2 * longest)),
    height: Math.max(60, 30 * names.length),
    layer: [
      {
        data: { values: [...new Set(tasksShown().map((task) => task.tau))].map((at) => ({ at })) },
        mark: { type: "rule", color: tint("#D55E00"), strokeDash: [4, 2], size: 1.3 },
        encoding: { x: { field: "at", type: "quantitative" } },
      },
      {
        name: "scores",
        data: { name: "scores", values: [] },
        mark: { type: "point", filled: true, size: 48, opacity: 0.8, cursor: "pointer" },
        encoding: { x, y, yOffset, color: colour, tooltip: [{ field: "name", title: "run" }, { field: "text", title: "score" }, { field: "setting" }] },
      },
      {
        data: { name: "own", values: [] },
        mark: { type: "point", size: 190, strokeWidth: 2, color: tint("#222222"), opacity: 1 },
        encoding: { x, y, yOffset },
      },
    ],
  };
}
