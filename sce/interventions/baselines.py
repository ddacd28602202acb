"""What a score means: the same questions without documents, with the gold ones alone, without them.

A model that scores as high without the documents does not retrieve; one that scores no higher with
the gold documents alone is not held back by having to find them.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import nn

from sce.assemble import facts
from sce.data.encode import Encoded, Encoder
from sce.data.example import Example
from sce.intervene_options import InterveneConfig
from sce.interventions.answering import Answering
from sce.interventions.command import answering_of, identity_of, parts_of
from sce.interventions.effects import Row, accuracy
from sce.interventions.report import cell
from sce.interventions.select import NO_HEADS
from sce.model.adapters import UNTUNED, require_rope_of_base
from sce.model.backends import best_device
from sce.model.build import load_adapter, load_model, require_whole
from sce.records import provenance

SCHEMA = "sce.baselines/1"
FULL, GOLD_ONLY, NO_EVIDENCE, NO_DOCUMENTS = "full", "gold_only", "no_evidence", "no_documents"
VIEWS = (FULL, GOLD_ONLY, NO_EVIDENCE, NO_DOCUMENTS)
TUNED = "tuned"
_NONE = np.zeros(0, dtype=np.int32)


@dataclass
class Baselines:
    """Answers of every model to every view of the same questions."""

    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def views_of(task: str) -> tuple[str, ...]:
    """Which views a task has: without its documents there is nothing to cite."""
    return (FULL, GOLD_ONLY) if task == "summhay" else VIEWS


def seen(encoder: Encoder, example: Example, view: str) -> Encoded:
    """An example as one of `VIEWS` shows it; the answer that is asked for stays.

    no_evidence leaves out every document that holds evidence, not the sentences alone: what else
    such a document says may give the answer away.
    """
    full = encoder.encode(example)
    gold = tuple(d for d in example.documents if d.id in example.gold_ids)
    if view == FULL:
        return full
    if view == GOLD_ONLY:
        return encoder.encode(example.with_documents(gold))
    kept = tuple(d for d in example.documents if d not in gold) if view == NO_EVIDENCE else ()
    ids = encoder.prompt_ids(example.with_documents(kept))
    return replace(full, prompt_ids=ids, evidence=_NONE, needles=_NONE, asked=None)


def answer_baselines(config: InterveneConfig) -> Baselines:
    """Answer every view by the untuned model, and by the adapter's where one is given.

    Raises:
        InputError: the user's input is wrong; found before the weights load where it can be.
    """
    folder = None if config.adapter is None else Path(config.adapter)
    asked = replace(config.model)  # the adapter's own is filled in where something is left out
    parts = parts_of(config, [config.split], folder)
    adapters = {} if folder is None else {TUNED: folder}
    for each in adapters.values():
        require_whole(each)  # now, not after the untuned model's answers
    require_rope_of_base(adapters, parts.own_rope_theta, asked)
    recipe, task = parts.plan.recipes[config.split], config.data.task
    count = len(parts.splits[config.split].encoded)
    examples = [recipe.example(index) for index in range(count)]
    views = {v: [seen(parts.encoder, e, v) for e in examples] for v in views_of(task)}
    base: Any = load_model(parts.source, config.model, parts.attention)
    found = Baselines()
    for name in (UNTUNED, *adapters):
        # One after the other: lora=none tunes the base's own weights, which are none of it then.
        model: nn.Module = base if name == UNTUNED else load_adapter(base, adapters[name])
        answering = answering_of(config, parts, model.to(best_device()).eval())
        found.rows += [
            {"model": name, "view": view, **_accuracy(answering, encoded, config.seed)}
            for view, encoded in views.items()
        ]
    split = parts.splits[config.split]
    found.facts = {
        "provenance": {
            **provenance(facts(parts, run=config.out, run_dir=Path(config.out))),
            **{"data_sha256": split.sha256, "context_tokens": split.max_prompt_tokens},
            "adapters": {name: identity_of(path) for name, path in adapters.items()},
        }
    }
    return found


def _accuracy(answering: Answering, encoded: Sequence[Encoded], seed: int) -> Row:
    outcomes = answering.each(encoded, [NO_HEADS], lambda *_: nullcontext(), share_context=False)
    return accuracy(answering.answers(outcomes[NO_HEADS]), seed=seed)


def results(config: InterveneConfig, found: Baselines) -> Row:
    """Everything, fit for JSON."""
    head = {"schema": SCHEMA, "method": config.method, "task": config.data.task}
    return {**head, "split": config.split, "rows": found.rows, **found.facts}


def printed(result: Mapping[str, Any]) -> str:
    """A table for people: models down, views across."""
    rows = result["rows"]
    views = list(dict.fromkeys(row["view"] for row in rows))
    table = Table(box=SIMPLE, title=f"F1 by what is shown, n = {rows[0]['n']} examples")
    for name in ("model", *(view.replace("_", " ") for view in views)):
        table.add_column(name, justify="left" if name == "model" else "right")
    for model in dict.fromkeys(row["model"] for row in rows):
        found = {row["view"]: row for row in rows if row["model"] == model}
        table.add_row(model, *(cell(found[view], "f1") for view in views))
    out = StringIO()
    console = Console(file=out, width=110, force_terminal=False)
    console.print(table)
    note = "[a, b]: 95% bootstrap interval over the examples; no evidence: its documents left out."
    console.print(note, highlight=False, markup=False, soft_wrap=True)
    return out.getvalue()


def points(result: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Step 0 -> what is logged, under baselines/."""
    found: dict[str, float] = {}
    for row in result["rows"]:
        names = [f"{n}{end}" for n in ("f1", "exact_match") for end in ("", "_low", "_high")]
        stem = f"baselines/{row['model']}/{row['view']}"
        found |= {f"{stem}/{n}": float(row[n]) for n in ("n", *names) if row[n] is not None}
    return {0: found}
