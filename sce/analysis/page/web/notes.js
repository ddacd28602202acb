// What a reader must know, and what is not in any figure.

function startNotes() {
  const list = $("note-list");
  list.append(make("dl", { class: "notes" }, ...Object.entries(report.notes).flatMap(([name, text]) =>
    [make("dt", { text: name }), make("dd", { text })])));
  for (const each of report.groups) {
    const about = `scorer ${each.scorer}, mode ${each.mode}, match ${each.match}`;
    list.append(make("h3", { text: each.name }), make("p", { class: "quiet", text: `Model ${each.model}; ${about}.` }));
    const rows = each.tasks.map((task) => [
      task.task, task.layers, task.heads, task.tau, task.k, task.runs.length, task.settings.length,
      task.reference ? task.reference.source : "none", task.reference ? task.reference.members.join(", ") : "", task.reference?.examples ?? null,
    ]);
    const columns = ["task", "layers", "heads a layer", "tau", "k", "runs", "settings", "reference", "made of", "its examples"];
    list.append(tableBox(tableOf({ title: "Tasks", columns, rows }), "Tasks"));
    const warnings = each.tasks.flatMap((task) => [
      ...task.warnings.map((text) => `${task.task}: ${text}`),
      ...task.runs.flatMap((run) => run.warnings.map((text) => `${run.name}: ${text}`)),
    ]);
    if (warnings.length) list.append(make("h4", { text: "Warnings" }), make("ul", {}, ...warnings.map((text) => make("li", { text }))));
  }
  list.append(make("h3", { text: "Left out" }));
  if (!report.skipped.length) list.append(make("p", { text: "Nothing was left out." }));
  else {
    const columns = ["file", "run", "why"];
    list.append(tableBox(tableOf({ title: "Left out of everything", columns, rows: report.skipped }), "Left out"));
  }
  const versions = `Made with sce ${report.version}; figures: ${report.library}.`;
  list.append(make("p", { class: "quiet", text: versions }));
}
