// What the page shows, and what is chosen and filtered; parts listen for what changes.

const report = JSON.parse($("data").textContent);

const state = {
  group: 0,
  task: "", // "" is every task
  hiddenKinds: new Set(),
  hiddenSettings: new Set(),
  measure: "recall",
  run: null, // {task, name}
  head: { layer: 0, head: 0 },
  preview: null, // a head that is only pointed at
};

const listeners = {};

/** Calls `listener` whenever one of the named things changes: filter, run, head, theme, width. */
function on(names, listener) {
  for (const name of names.split(" ")) (listeners[name] ??= []).push(listener);
}

function changed(name) {
  for (const listener of listeners[name] ?? []) listener();
}

const group = () => report.groups[state.group];
const tasksShown = () => (group()?.tasks ?? []).filter((task) => !state.task || task.task === state.task);
const taskOf = (name) => (group()?.tasks ?? []).find((task) => task.task === name);
const keep = (setting, kind) =>
  !state.hiddenKinds.has(kind) && !(setting !== null && state.hiddenSettings.has(setting));

/** Runs that pass the filters, with their task; `points` alone leaves out those of the reference. */
function runsShown(points = false) {
  return tasksShown().flatMap((task) =>
    task.runs
      .filter((run) => keep(run.setting, run.kind) && (run.point || !points))
      .map((run) => ({ task, run })));
}

function chosenRun() {
  const task = state.run && taskOf(state.run.task);
  const run = task?.runs.find((each) => each.name === state.run.name);
  return run ? { task, run } : null;
}

function chooseRun(task, name) {
  if (state.run && state.run.task === task && state.run.name === name) return;
  state.run = { task, name };
  changed("run");
}

function chooseHead(layer, head) {
  state.head = { layer, head };
  state.preview = null;
  changed("head");
}

function previewHead(place) {
  const { layer, head } = place ?? {};
  if (state.preview?.layer === layer && state.preview?.head === head) return;
  state.preview = place ? { layer, head } : null;
  changed("head");
}

const headShown = () => state.preview ?? state.head;

/** The run that is chosen when none is: the first point with the highest F1 that is not real. */
function chooseSomeRun() {
  const found = runsShown(true);
  if (state.run && found.some(({ task, run }) => task.task === state.run.task && run.name === state.run.name)) return;
  const others = runsShown();
  const synthetic = found.filter(({ run }) => run.kind !== "real" && run.kind !== "untuned");
  const pool = [synthetic, found, others].find((each) => each.length) ?? [];
  const best = [...pool].sort((a, b) => (valueOf(b.run.measures, "f1") ?? -1) - (valueOf(a.run.measures, "f1") ?? -1))[0];
  state.run = best ? { task: best.task.task, name: best.run.name } : null;
  changed("run");
}

/** The head that is chosen at first: the one that the reference learned most, else the strongest. */
function chooseSomeHead() {
  const found = chosenRun();
  if (!found) return;
  const { task, run } = found;
  const own = task.reference?.map ?? run.map;
  const before = task.untuned?.map;
  const gain = own.map((score, index) => (score ?? 0) - (before?.[index] ?? 0));
  const best = gain.indexOf(Math.max(...gain));
  state.head = { layer: Math.floor(best / task.heads), head: best % task.heads };
}
