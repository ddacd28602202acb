"""The figures of `sce.analysis.charts` for the page: panels that can be filtered.

Titles become headings and captions, which wrap and are read aloud; panels are laid out again for
the width at hand. Every figure comes with the numbers behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sce.analysis.charts.figure import Figure
from sce.analysis.charts.files import Key
from sce.analysis.charts.style import Spec
from sce.analysis.findings import Group, Task
from sce.analysis.page import tables


@dataclass(frozen=True)
class Question:
    """One kind of figure: what it asks, and which columns filters read."""

    key: str
    """The name of the figure."""
    heading: str
    table: Callable[[Group, Task], list[tables.Table]]
    says: str
    """What null and ceiling are, and what is not filtered."""
    settings: Sequence[str] = ()
    kinds: Sequence[str] = ()
    margin: int = 70
    """Pixels beside the plot, for labels."""


def figures_of(place: int, group: Group, drawn: Mapping[Key, Figure]) -> list[Spec]:
    """The figures of one group, by question, a task after another; `place` is the group's."""
    found = []
    for question in QUESTIONS:
        for task in group.tasks:
            own = _of_panels(question, task.task, drawn.get((place, task.task, question.key)))
            rows = [table for table in question.table(group, task) if table["rows"]]
            found.append(own | {"tables": rows})
    if len(group.tasks) > 1:
        pooled = _of_panels(QUESTIONS[0], None, drawn.get((place, None, QUESTIONS[0].key)))
        found.append(pooled | {"tables": tables.rhos(group, None)})
    return [figure for figure in found if figure["parts"] or figure["tables"]]


def _of_panels(question: Question, task: str | None, figure: Figure | None) -> Spec:
    parts: list[Spec] = []
    datasets: Spec = {}
    for panel in figure.panels if figure else ():
        parts.append({"setting": panel.setting, "kind": panel.kind, "spec": panel.spec})
        datasets |= {name: _rounded(rows) for name, rows in panel.datasets.items()}
    return {
        "key": question.key,
        "heading": question.heading,
        "task": task,
        "caption": [*(figure.lines if figure else ()), question.says],
        "parts": parts,
        "datasets": datasets,
        "settings": list(question.settings),
        "kinds": list(question.kinds),
        "margin": question.margin,
    }


def _rounded(rows: Sequence[Mapping[str, Any]]) -> list[Spec]:
    return [
        {name: round(x, 6) if isinstance(x, float) else x for name, x in row.items()}
        for row in rows
    ]


_ALL = "Over all settings of the task, whatever is filtered."
_RUNS = "Reference and untuned model stand beside the settings: what is theirs was not learned."

QUESTIONS = (
    Question(
        "rho",
        "What goes with F1?",
        lambda group, task: tables.rhos(group, task.task),
        f"{_ALL} The null is rho 0, the ceiling 1 or -1.",
        margin=215,
    ),
    Question(
        "rho-over-tau",
        "Does it depend on the threshold?",
        lambda group, task: tables.rho_over(group, task, "tau"),
        f"{_ALL} The null is rho 0, the ceiling 1.",
        margin=75,
    ),
    Question(
        "rho-over-k",
        "Does it depend on the size of the sets?",
        lambda group, task: tables.rho_over(group, task, "k"),
        f"{_ALL} The null is rho 0, the ceiling 1.",
        margin=75,
    ),
    Question(
        "predictors",
        "What predicts F1 of data not yet tried?",
        tables.predictors,
        f"{_ALL} The null is 1, a perfect prediction 0.",
        margin=230,
    ),
    Question(
        "over-tau",
        "Heads in common, by threshold",
        lambda group, task: tables.over(task, "tau"),
        "",
        settings=("name",),
        kinds=("kind",),
    ),
    Question(
        "over-k",
        "Heads in common, by size of the sets",
        lambda group, task: tables.over(task, "k"),
        "",
        settings=("name",),
        kinds=("kind",),
    ),
    Question(
        "learning",
        "As training goes on",
        lambda _, task: tables.learning(task),
        "",
    ),
    Question(
        "layers",
        "In which layers the heads are",
        lambda _, task: tables.layers(task),
        "",
    ),
    Question(
        "gained-and-lost",
        "Heads gained and lost",
        lambda _, task: tables.changes(task),
        "The null is 0: a run that leaves the untuned model's heads as they were.",
        settings=("setting",),
        margin=210,
    ),
    *(
        Question(
            f"overlap-{measure}",
            f"Every set with every other: {measure}",
            lambda _, task, measure=measure: tables.overlap(task, measure),
            _RUNS,
            settings=("run", "reference"),
        )
        for measure in ("recall", "jaccard", "cosine")
    ),
    Question(
        "knockout",
        "Heads taken out",
        lambda _, task: tables.effects(task, "knockout"),
        "Random heads are the null, nothing taken out the ceiling.",
    ),
    Question(
        "patching",
        "Heads patched in",
        lambda _, task: tables.effects(task, "patch"),
        "Random heads are the null, the source's F1 the ceiling.",
        margin=150,
    ),
    Question(
        "baselines",
        "What the documents are good for",
        lambda _, task: tables.baselines(task),
        "No documents is the null, gold documents alone the ceiling.",
        kinds=("model",),
        margin=190,
    ),
)
"""In the order of the page; the first is drawn for all tasks pooled too."""
