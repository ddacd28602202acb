"""The figures of `sce.analysis.charts` for the page: specs cut into panels that can be filtered.

Titles become headings and captions, which wrap and are read aloud; panels are laid out again for
the width at hand. Every figure comes with the numbers behind it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from altair.utils.schemapi import debug_mode

from sce.analysis.charts import accuracy, curves, heads, interventions
from sce.analysis.findings import Group, Task
from sce.analysis.page import tables

Part = tuple[str | None, str | None, Any]
"""Setting and kind (None: of no single one), and a chart or None."""
Spec = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One kind of figure: what it asks, how it is drawn, and which columns filters read."""

    key: str
    heading: str
    draw: Callable[[Group, Task], Iterable[Part]]
    table: Callable[[Group, Task], list[tables.Table]]
    says: str
    """What null and ceiling are, and what is not filtered."""
    settings: Sequence[str] = ()
    kinds: Sequence[str] = ()
    margin: int = 70
    """Pixels beside the plot, for labels."""


def figures(group: Group) -> list[Spec]:
    """Every figure of a group that there is, by question, a task after another."""
    found = []
    with debug_mode(False):  # specs of charts that other tests hold valid
        for question in QUESTIONS:
            found += [_figure(question, group, task) for task in group.tasks]
        if len(group.tasks) > 1:
            found.append(_pooled(group))
    return [figure for figure in found if figure["parts"] or figure["tables"]]


def _figure(question: Question, group: Group, task: Task) -> Spec:
    return _of_parts(question, task.task, question.draw(group, task)) | {
        "tables": [table for table in question.table(group, task) if table["rows"]]
    }


def _pooled(group: Group) -> Spec:
    question = QUESTIONS[0]
    own = _of_parts(question, None, [(None, None, accuracy.rhos(group, None))])
    return own | {"tables": tables.rhos(group, None)}


def _of_parts(question: Question, task: str | None, drawn: Iterable[Part]) -> Spec:
    parts: list[Spec] = []
    datasets: Spec = {}
    title: Spec = {}
    for setting, kind, chart in drawn:
        if chart is None:
            continue
        spec = chart if isinstance(chart, dict) else chart.to_dict(validate=False)
        datasets |= {name: _rounded(rows) for name, rows in spec.get("datasets", {}).items()}
        title = title or spec.get("title", {})
        parts += [{"setting": setting, "kind": kind, "spec": leaf} for leaf in _panels(spec)]
    lines = title.get("subtitle", [])
    return {
        "key": question.key,
        "heading": question.heading,
        "task": task,
        "caption": [*([lines] if isinstance(lines, str) else lines), question.says],
        "parts": parts,
        "datasets": datasets,
        "settings": list(question.settings),
        "kinds": list(question.kinds),
        "margin": question.margin,
    }


def _panels(spec: Spec) -> list[Spec]:
    """Single panels, out of rows and columns of them; a single one loses the figure's title."""
    for name in ("vconcat", "hconcat"):
        if name in spec:
            return [leaf for each in spec[name] for leaf in _panels(each)]
    whole = ("$schema", "config", "datasets") + (("title",) if "$schema" in spec else ())
    return [{name: value for name, value in spec.items() if name not in whole}]


def _rounded(rows: Sequence[Spec]) -> list[Spec]:
    return [
        {name: round(x, 6) if isinstance(x, float) else x for name, x in row.items()}
        for row in rows
    ]


def _whole(draw: Callable[[Group, Task], Any]) -> Callable[[Group, Task], list[Part]]:
    return lambda group, task: [(None, None, draw(group, task))]


def _learning(_: Group, task: Task) -> Iterable[Part]:
    for setting in sorted(task.settings, key=lambda s: -(_f1(s.measures) or 0.0)):
        yield setting.setting, setting.kind, curves.learning(replace(task, settings=[setting]))


def _layers(_: Group, task: Task) -> Iterable[Part]:
    """A part a set; of many sets as many at once as one figure holds, beside the reference."""
    known = [each for each in task.layers if each.num_heads]
    first = [each for each in known if each.kind == "reference"]
    rest = [each for each in known if each.kind != "reference"]
    step = heads.MAX_MAPS - len(first)
    for at in range(0, max(1, len(rest)), step):
        sets = [*first, *rest[at : at + step]]
        chart = heads.layers(replace(task, layers=sets))
        if chart is None:
            continue
        spec = chart.to_dict(validate=False)
        shared = {name: spec[name] for name in ("$schema", "title", "datasets")}
        for own, panel in zip(sets, _panels(spec), strict=True):
            if at == 0 or own not in first:
                kind = None if own.kind == "reference" else own.kind
                yield own.name, kind, shared | {"vconcat": [panel]}


def _patching(_: Group, task: Task) -> Iterable[Part]:
    for each in task.interventions:
        alone = replace(task, interventions=[each])
        yield each.setting, each.kind, interventions.patching(alone)


def _overlap(measure: str) -> Callable[[Group, Task], Iterable[Part]]:
    def draw(_: Group, task: Task) -> Iterable[Part]:
        for each in task.overlaps:
            if each.measure == measure:
                yield None, None, heads.overlap(task, each)

    return draw


def _f1(measures: Any) -> float | None:
    found = measures.get("f1")
    return None if found is None else found.value


_ALL = "Over all settings of the task, whatever is filtered."
_RUNS = "Reference and untuned model stand beside the settings: what is theirs was not learned."

QUESTIONS = (
    Question(
        "rho",
        "What goes with F1?",
        _whole(lambda group, task: accuracy.rhos(group, task.task)),
        lambda group, task: tables.rhos(group, task.task),
        f"{_ALL} The null is rho 0, the ceiling 1 or -1.",
        margin=215,
    ),
    Question(
        "rho-over-tau",
        "Does it depend on the threshold?",
        _whole(accuracy.rho_over_tau),
        tables.rho_over_tau,
        f"{_ALL} The null is rho 0, the ceiling 1.",
        margin=75,
    ),
    Question(
        "predictors",
        "What predicts F1 of data not yet tried?",
        _whole(accuracy.predictors),
        tables.predictors,
        f"{_ALL} The null is 1, a perfect prediction 0.",
        margin=230,
    ),
    Question(
        "over-tau",
        "Heads in common, by threshold",
        _whole(lambda group, task: curves.over(task, "tau")),
        lambda group, task: tables.over(task, "tau"),
        "",
        settings=("name",),
        kinds=("kind",),
    ),
    Question(
        "over-k",
        "Heads in common, by size of the sets",
        _whole(lambda group, task: curves.over(task, "k")),
        lambda group, task: tables.over(task, "k"),
        "",
        settings=("name",),
        kinds=("kind",),
    ),
    Question(
        "learning", "As training goes on", _learning, lambda _, task: tables.learning(task), ""
    ),
    Question(
        "layers", "In which layers the heads are", _layers, lambda _, task: tables.layers(task), ""
    ),
    Question(
        "gained-and-lost",
        "Heads gained and lost",
        _whole(lambda group, task: heads.changes(task)),
        lambda _, task: tables.changes(task),
        "The null is 0: a run that leaves the untuned model's heads as they were.",
        settings=("setting",),
        margin=210,
    ),
    *(
        Question(
            f"overlap-{measure}",
            f"Every set with every other: {measure}",
            _overlap(measure),
            lambda _, task, measure=measure: tables.overlap(task, measure),
            _RUNS,
            settings=("run", "reference"),
        )
        for measure in ("recall", "jaccard", "cosine")
    ),
    Question(
        "knockout",
        "Heads taken out",
        _whole(lambda group, task: interventions.knockout(task)),
        lambda _, task: tables.effects(task, "knockout"),
        "Random heads are the null, nothing taken out the ceiling.",
    ),
    Question(
        "patching",
        "Heads patched in",
        _patching,
        lambda _, task: tables.effects(task, "patch"),
        "Random heads are the null, the source's F1 the ceiling.",
        margin=150,
    ),
    Question(
        "baselines",
        "What the documents are good for",
        _whole(lambda group, task: interventions.baselines(task)),
        lambda _, task: tables.baselines(task),
        "No documents is the null, gold documents alone the ceiling.",
        kinds=("model",),
        margin=190,
    ),
)
"""In the order of the page; the first is drawn for all tasks pooled too."""
