// Heads against F1, a point a run: a click or the arrow keys choose one.

function startScatter() {
  const has = (name) => report.groups.some((each) => each.tasks.some((task) => task.runs.some((run) => run.measures[name])));
  const order = [...report.first_measures, ...Object.keys(report.labels)];
  const names = [...new Set(order)].filter((name) => !["f1", "exact_match", "substring_exact_match"].includes(name) && has(name));
  state.measure = names[0] ?? "recall";
  const options = names.map((name) => [name, report.labels[name] ?? name]);
  const choose = (measure) => {
    state.measure = measure;
    drawScatters();
  };
  $("scatter-controls").append(labelledSelect("measure", "Measure", options, state.measure, choose));
  on("filter group theme print width", drawScatters);
  on("run", markChosen);
}

function drawScatters() {
  const tasks = tasksShown();
  const box = $("scatters");
  const figures = tasks.map((task) => {
    const id = `scatter-${group().tasks.indexOf(task)}`;
    const old = document.getElementById(id);
    if (old?.dataset.group === String(state.group)) return old;
    return make("figure", { class: "figure", id, "data-group": state.group },
      make("h3", { text: task.task }), make("div", { class: "plot" }), make("figcaption"));
  });
  if (figures.length !== box.children.length || figures.some((each, index) => box.children[index] !== each)) {
    box.replaceChildren(...figures);
  }
  return Promise.all(tasks.map((task, index) => drawScatter(task, figures[index])));
}

function pointsOf(task) {
  return task.runs
    .filter((run) => run.point && keep(run.setting, run.kind) && run.measures[state.measure] && run.measures.f1)
    .map((run) => {
      const [x, low, high, n] = run.measures[state.measure];
      const [y, bottom, top, examples] = run.measures.f1;
      const own = { x_low: low ?? x, x_high: high ?? x, y_low: bottom ?? y, y_high: top ?? y };
      return {
        name: run.name, setting: run.setting, kind: run.kind, seed: run.seed, x, y, n, examples, ...own,
        across: interval(run.measures[state.measure]), up: interval(run.measures.f1),
      };
    })
    .sort((a, b) => a.x - b.x || a.y - b.y);
}

async function drawScatter(task, figure) {
  const plot = figure.querySelector(".plot");
  const rows = pointsOf(task);
  figure.querySelector("figcaption").textContent = rows.length ? scatterWords(task, rows) : "";
  for (const name of ["tabindex", "role", "aria-label"]) plot.removeAttribute(name);
  plot.onkeydown = null;
  if (!rows.length) return drawNothing(plot, task.reference ? "No run passes the filters." : "No reference, so nothing to compare with.");
  const view = await draw(plot, scatterSpec(task, rows, roomIn(figure)), `${task.task} heads and F1`);
  if (!view) return null;
  view.addEventListener("click", (_, item) => item?.datum?.name && chooseRun(task.task, item.datum.name));
  plot.setAttribute("tabindex", "0");
  plot.setAttribute("role", "application");
  plot.setAttribute("aria-label", `${task.task}: ${rows.length} runs. Left and right arrow keys go from run to run.`);
  plot.onkeydown = (event) => stepThrough(event, rows.map((row) => row.name), state.run?.name, (name) => chooseRun(task.task, name));
  return markChosen();
}

/** Arrow keys, Home and End among names. */
function stepThrough(event, names, current, choose) {
  const at = names.indexOf(current);
  const goal = {
    ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at < 0 ? 0 : at - 1, ArrowDown: at < 0 ? 0 : at - 1,
    Home: 0, End: names.length - 1,
  }[event.key];
  if (goal === undefined) return;
  event.preventDefault();
  choose(names[Math.max(0, Math.min(names.length - 1, goal))]);
}

function markChosen() {
  for (const figure of $("scatters").children) {
    const task = group().tasks[Number(figure.id.slice(8))];
    const view = drawn.get(figure.querySelector(".plot"));
    if (!task || !view) continue;
    const found = state.run?.task === task.task ? pointsOf(task).filter((row) => row.name === state.run.name) : [];
    view.data("ring", found).run();
  }
}

function scatterWords(task, rows) {
  const name = report.labels[state.measure] ?? state.measure;
  const rho = group().rhos.filter((each) => each.task === task.task && each.measure === state.measure);
  const said = rho.filter((each) => each.rho).map((each) => {
    const p = each.p === null ? "" : `, p = ${fixed(each.p, 4)}`;
    const least = each.least === null ? "" : `; |rho| below ${each.least.toFixed(2)} could not have been shown`;
    return `${each.points === "all" ? "with real and untuned" : "synthetic, limited and mixed settings"}: rho ${interval(each.rho)}${p}, n = ${each.n}${least}`;
  });
  const n = [...new Set(rows.map((row) => row.examples))].join(", ");
  return [
    `${plural(rows.length, "run")}: F1 against ${name}. Bars: 95% intervals over examples${n ? ` (n = ${n} for F1)` : ""}.`,
    task.ceiling[state.measure]
      ? "Green dashes and band: what real runs share with real data that they took no part in, the ceiling."
      : "There is no ceiling: too few real runs, or none for this measure.",
    task.nulls[state.measure] ? "Grey dots: chance within layers, the null." : "Chance is not defined here.",
    said.length ? `Over settings, whatever is filtered: ${said.map(upper).join(". ")}.` : "",
  ].join(" ");
}

function scatterSpec(task, rows, room) {
  const kinds = KIND_ORDER().filter((kind) => task.runs.some((run) => run.point && run.kind === kind));
  const colours = kindColours();
  const top = task.ceiling[state.measure];
  const high = task.ceiling.f1;
  const null_ = task.nulls[state.measure];
  const all = [...rows.flatMap((row) => [row.x_low, row.x_high]), ...[top, null_].filter(Boolean).map((each) => each[0])];
  const [low, most] = [Math.min(...all), Math.max(...all)];
  const bounded = most <= 1 && low >= -1;
  const stretched = task.stretched[state.measure];
  const right = stretched ? 1 : bounded ? (most > 0.96 ? 1.02 : 1) : most + 0.04 * (most - low || 1);
  const left = stretched || (low >= 0 && low < 0.35 && bounded) ? 0 : low - 0.04 * (right - low || 1);
  const up = 1.06 * Math.max(...rows.map((row) => row.y_high), high?.[0] ?? 0, 0.05);
  const width = Math.max(200, Math.min(640, room - 60));
  const x = { field: "x", type: "quantitative", title: report.labels[state.measure] ?? state.measure, scale: { domain: [left, right], nice: false } };
  if (stretched) {
    x.title += " (stretched towards 1)";
    x.scale = { ...x.scale, type: "pow", exponent: stretched.power };
    x.axis = { values: stretched.ticks, labelOverlap: false, format: ".2~f" };
  }
  const y = { field: "y", type: "quantitative", title: "F1", scale: { domain: [0, up], nice: false } };
  const colour = { field: "kind", type: "nominal", title: null, scale: { domain: kinds, range: kinds.map((kind) => colours[kind]) }, legend: { orient: "top", columns: width < 420 ? 3 : 6 } };
  const shape = { ...colour, scale: { domain: kinds, range: kinds.map((kind) => report.shapes[kind]) } };
  const bar = { type: "rule", opacity: 0.35, tooltip: null };
  return {
    width, height: Math.round(Math.min(400, Math.max(260, width * 0.62))),
    data: { values: rows },
    layer: [
      ...lines(top, "x", "#009E73", [6, 3], "ceiling"),
      ...lines(high, "y", "#009E73", [6, 3], "F1 of real data"),
      ...lines(null_ && [null_[0], null, null, 0], "x", "#777777", [2, 2], "chance"),
      { mark: bar, encoding: { x: { ...x, field: "x_low" }, x2: { field: "x_high" }, y, color: colour } },
      { mark: bar, encoding: { x, y: { ...y, field: "y_low" }, y2: { field: "y_high" }, color: colour } },
      {
        data: { name: "ring", values: [] },
        mark: { type: "point", size: 330, strokeWidth: 2.2, color: tint("#222222"), opacity: 1 },
        encoding: { x: { field: "x", type: "quantitative" }, y: { field: "y", type: "quantitative" } },
      },
      {
        name: "points",
        mark: { type: "point", filled: true, size: 85, opacity: 1, stroke: tint("white"), strokeWidth: 0.7, cursor: "pointer" },
        encoding: {
          x, y, color: colour, shape,
          tooltip: [
            { field: "name", title: "run" }, { field: "across", title: report.short[state.measure] ?? state.measure },
            { field: "up", title: "F1" }, { field: "examples", title: "n" },
          ],
        },
      },
    ],
  };
}

/** A line across the plot at [value, low, high, n], with its band and its name. */
function lines(found, channel, colour, dash, text) {
  if (!found) return [];
  const [at, low, high] = found;
  const other = `${channel}2`;
  const across = channel === "x";
  const field = (name) => ({ field: name, type: "quantitative" });
  const band = low !== null && high !== null && high > low
    ? [{ data: { values: [{ low, high }] }, mark: { type: "rect", color: tint(colour), opacity: 0.12 }, encoding: { [channel]: field("low"), [other]: { field: "high" } } }]
    : [];
  const place = across
    ? { angle: 270, align: "left", baseline: "bottom", dx: 5, dy: -3 }
    : { align: "left", baseline: "bottom", dx: 5, dy: -2 };
  const values = [{ at, text }];
  return [
    ...band,
    { data: { values }, mark: { type: "rule", color: tint(colour), strokeDash: dash, size: 1.4 }, encoding: { [channel]: field("at") } },
    {
      data: { values },
      mark: { type: "text", color: tint(colour), fontSize: 10.5, ...place },
      encoding: { [channel]: field("at"), [across ? "y" : "x"]: { value: across ? "height" : 0 }, text: { field: "text" } },
    },
  ];
}
