// Filters by model, task, kind and setting: they act on every figure and table.

const KIND_ORDER = () => Object.keys(report.colours);

function startFilters() {
  drawFilters();
  on("group", drawFilters);
  on("filter", sayFiltered);
}

function drawFilters() {
  const parts = [];
  if (report.groups.length > 1) {
    const options = report.groups.map((each, index) => [String(index), each.name]);
    parts.push(labelledSelect("group", "Model and scorer", options, String(state.group), chooseGroup));
  }
  const tasks = (group()?.tasks ?? []).map((task) => [task.task, task.task]);
  if (tasks.length > 1) tasks.unshift(["", "all tasks"]);
  parts.push(labelledSelect("task", "Task", tasks, state.task, (task) => {
    state.task = task;
    drawChoices();
    changed("filter");
  }));
  parts.push(make("div", { id: "kinds", class: "chips", role: "group", "aria-label": "Kind of data" }));
  parts.push(make("details", { id: "settings", class: "pop" }, make("summary", { id: "settings-words" }), make("div", { class: "pop-in" })));
  parts.push(make("button", { type: "button", id: "reset", text: "Show all", on: { click: showAll } }));
  refill($("filter-row"), ...parts);
  drawChoices();
}

function chooseGroup(index) {
  Object.assign(state, { group: Number(index), task: "", run: null, preview: null });
  state.hiddenKinds.clear();
  state.hiddenSettings.clear();
  if (tasksShown().length === 1) state.task = tasksShown()[0].task;
  chooseSomeRun();
  chooseSomeHead();
  changed("group");
  changed("filter");
}

function showAll() {
  state.hiddenKinds.clear();
  state.hiddenSettings.clear();
  if ((group()?.tasks ?? []).length > 1) state.task = "";
  drawFilters();
  changed("filter");
}

function drawChoices() {
  const runs = tasksShown().flatMap((task) => task.runs);
  const kinds = KIND_ORDER().filter((kind) => runs.some((run) => run.kind === kind));
  refill($("kinds"), ...kinds.map((kind) => {
    const change = (event) => toggle(state.hiddenKinds, kind, event.target.checked);
    return make("label", { class: "chip" },
      make("input", { type: "checkbox", value: kind, name: "kind", checked: !state.hiddenKinds.has(kind), on: { change } }),
      make("span", { class: `dot kind-${kind}`, "aria-hidden": "true" }), kind);
  }));
  const settings = [...new Set(runs.map((run) => run.setting))];
  const boxes = settings.map((setting) => {
    const change = (event) => toggle(state.hiddenSettings, setting, event.target.checked);
    const checked = !state.hiddenSettings.has(setting);
    return make("label", { class: "check" },
      make("input", { type: "checkbox", value: setting, name: "setting", checked, on: { change } }), setting);
  });
  const every = (text, shows) => make("button", { type: "button", text, on: { click: () => {
    state.hiddenSettings = new Set(shows ? [] : settings);
    drawChoices();
    changed("filter");
  } } });
  refill(document.querySelector("#settings .pop-in"),
    make("div", { class: "controls" }, every("all", true), every("none", false)),
    make("div", { class: "checks", role: "group", "aria-label": "Settings" }, ...boxes));
  sayFiltered();
}

function toggle(hidden, name, shown) {
  if (shown) hidden.delete(name);
  else hidden.add(name);
  changed("filter");
}

function sayFiltered() {
  const runs = tasksShown().flatMap((task) => task.runs);
  const settings = new Set(runs.map((run) => run.setting));
  const left = [...settings].filter((setting) => !state.hiddenSettings.has(setting)).length;
  $("settings-words").textContent = left === settings.size ? `Settings: all ${left}` : `Settings: ${left} of ${settings.size}`;
  const count = runsShown().length;
  const all = (group()?.tasks ?? []).reduce((sum, task) => sum + task.runs.length, 0);
  $("filtered").textContent = count === all
    ? `All ${all} runs and untuned models are shown.`
    : `${count} of ${all} runs and untuned models are shown.`;
}
