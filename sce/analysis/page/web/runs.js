// Which run is looked at, and the numbers of all of them.

const RUN_MEASURES = [
  "f1", "exact_match", "substring_exact_match", "recall", "recall_learned", "precision", "jaccard", "recall_at_k",
  "cosine", "cosine_learned", "spearman", "answer_nll", "num_heads",
];

function startRuns() {
  drawRunChoice();
  on("filter group", () => {
    chooseSomeRun();
    drawRunChoice();
  });
  on("run", drawRunChoice);
  on("filter group", tablesWithin($("all-numbers"), () => [settingsTable(), runsTable()]));
}

function drawRunChoice() {
  const many = tasksShown().length > 1;
  const options = tasksShown().map((task) => ({
    label: many ? task.task : "Runs",
    options: task.runs.filter((run) => keep(run.setting, run.kind)).map((run) => [`${task.task}\n${run.name}`, run.name]),
  }));
  const value = state.run ? `${state.run.task}\n${state.run.name}` : "";
  const choose = (each) => chooseRun(...each.split("\n"));
  refill($("run-controls"), labelledSelect("run", "Run", options, value, choose));
  sayRun();
}

function sayRun() {
  const found = chosenRun();
  $("run-title").textContent = found ? `One run: ${found.run.setting}${seedOf(found.run)}` : "One run";
  if (!found) {
    $("run-words").textContent = "No run passes the filters.";
    return;
  }
  const { task, run } = found;
  const of = (name, words) => (run.measures[name] ? [`${words} ${interval(run.measures[name])}`] : []);
  const parts = [
    `${task.task}, ${run.kind}`,
    ...of("f1", "F1"),
    ...of("recall", "recall"),
    ...of("recall_learned", "recall learned"),
    ...of("cosine", "cosine"),
    `${run.above.length} heads above tau = ${task.tau}: ${run.gained} gained and ${run.lost} lost against the untuned model`,
    ...(run.member ? ["part of the reference, so no point of the scatter"] : []),
    ...(run.against ? [`compared with ${run.against}`] : ["without a reference"]),
    ...run.warnings,
  ];
  $("run-words").textContent = `${parts.join("; ")}.`;
}

const seedOf = (run) => (run.seed === null ? "" : `, seed ${run.seed}`);

function runsTable() {
  const rows = tasksShown().flatMap((task) => task.runs.map((run) => [
    run.name, task.task, run.setting, run.kind, run.seed, run.member ? "yes" : "no",
    ...RUN_MEASURES.map((name) => run.measures[name] ?? null), run.measures.f1?.[3] ?? null, run.measures.recall?.[3] ?? null,
  ]));
  const names = ["run", "task", "setting", "kind", "seed", "in the reference"];
  const columns = [...names, ...RUN_MEASURES.map((name) => report.short[name] ?? name), "examples (F1)", "examples (heads)"];
  return {
    title: "Runs: value and 95% interval over examples", columns, rows, by: [2, 3],
    onRow: (row) => showRun(row[1], row[0]),
  };
}

function settingsTable() {
  const rows = tasksShown().flatMap((task) => task.settings.map((each) => [
    each.setting, task.task, each.kind, each.runs.length,
    ...RUN_MEASURES.map((name) => each.measures[name] ?? null), each.nulls.recall, each.nulls.recall_learned, each.nulls.cosine,
  ]));
  const nulls = ["recall", "recall learned", "cosine"].map((name) => `chance: ${name}`);
  const columns = ["setting", "task", "kind", "seeds", ...RUN_MEASURES.map((name) => report.short[name] ?? name), ...nulls];
  return { title: "Settings: means over seeds, and of the seeds' intervals", columns, rows, by: [0, 2] };
}

/** Chooses a run and goes to where it is shown. */
function showRun(task, name) {
  chooseRun(task, name);
  $("run-title").focus({ preventScroll: true });
  $("run-title").scrollIntoView({ block: "start" });
}
