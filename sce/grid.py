"""Which pairs of concept and context are cells of the grid, and why others are not."""

from sce.errors import InputError
from sce.options import CONCEPTS, CONTEXTS, LOW, require_in


def natural_context(concept: str) -> str:
    """The context that a concept has where none is named."""
    if concept in LOW:
        return "low"
    return "real" if concept == "limited" else concept


def all_cells(task: str) -> list[tuple[str, str]]:
    """Every (concept, context) that a task has."""
    cells = []
    for concept in CONCEPTS:
        for context in CONTEXTS:
            try:
                check_cell("", task, concept, context)
            except InputError:
                continue
            cells.append((concept, context))
    return cells


def check_cell(where: str, task: str, concept: str, context: str) -> None:
    """Refuse a (concept, context) pair that is not a cell of the grid, with the reason."""
    require_in(f"{where}.concept", concept, CONCEPTS)
    require_in(f"{where}.context", context, CONTEXTS)
    reason = None
    if task == "needle" and (concept, context) != ("real", "real"):
        reason = "data=needle is one sentence in a real text, so concept and context are real"
    elif concept == "limited" and context != "real":
        reason = "limited is a subset of the real data, whose context is real"
    elif concept == "limited" and task != "mdqa":
        reason = f"limited keeps questions by who, when or where, which data={task} has no rule for"
    elif (concept == "symbolic") != (context == "symbolic"):
        reason = (
            "symbolic is a task of its own, keys among keys; a sentence among keys or a key among "
            "sentences would give the needle away"
        )
    if reason:
        raise InputError(
            f"{where}: there is no cell (concept={concept}, context={context}): {reason}; cells "
            "are {real, high, low, low_template, low_entity} x {real, high, low}, (symbolic, "
            "symbolic) and (limited, real)"
        )
