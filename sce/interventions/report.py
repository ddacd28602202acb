"""From answers to what python -m sce.intervene leaves: results, table, printed table."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sce.interventions.controls import HEADS, LAYER_MATCHED, UNIFORM
from sce.interventions.curves import curves
from sce.interventions.effects import BASELINE, Row, contrasts, rows, sets
from sce.interventions.recovery import counter_examples, patch_rows, worse_than_random
from sce.interventions.select import NO_HEADS

if TYPE_CHECKING:
    from sce.intervene_options import InterveneConfig
    from sce.interventions.command import Answered
else:
    Answered = InterveneConfig = Any

SCHEMA = "sce.intervention/1"
_KINDS = {HEADS: "heads", LAYER_MATCHED: "random, same layers", UNIFORM: "random"}
_NOTE = (
    "[a, b]: 95% bootstrap interval over the n examples{random}.\n"
    "p: permutation test of F1, two-sided, not corrected for the number of tests."
)


def results(config: InterveneConfig, found: Answered) -> Row:
    """Everything, fit for JSON: rows, tests, sets with their heads, and answers by example id."""
    shared: Row = {"schema": SCHEMA, "method": config.method}
    for name in ("split", "num_controls", "seed"):
        shared[name] = getattr(config, name)
    shared["task"] = config.data.task
    numbers = _knockout(config, found) if config.method == "knockout" else _patch(config, found)
    return {**shared, **numbers, **found.facts, "config": asdict(config)}


def _knockout(config: InterveneConfig, found: Answered) -> Row:
    (answers,) = found.answers.values()
    conditions, seed = found.conditions, config.seed
    return {
        "ablation": config.ablation,
        "positions": config.positions,
        "calibration": config.calibration if config.ablation == "mean" else None,
        "rows": rows(conditions, answers, found.known, seed=seed),
        "curves": curves(conditions, answers, found.known, seed=seed),
        "contrasts": contrasts(conditions, answers, seed=seed),
        "closed_book": {
            "num_asked": found.num_asked,
            "num_right": len(found.known_ids),
            "ids": found.known_ids,
        },
        "no_ablation": answers[NO_HEADS].by_id(),
        "sets": sets(conditions, answers),
    }


def _patch(config: InterveneConfig, found: Answered) -> Row:
    conditions, seed = found.conditions, config.seed
    directions = {}
    for way, answers in found.answers.items():
        giver = found.givers[way]
        against_random = contrasts(conditions, answers, seed=seed)
        directions[way] = {
            "rows": patch_rows(conditions, answers, giver, seed=seed),
            "contrasts": against_random,
            "counter_examples": counter_examples(conditions, answers, giver),
            "worse_than_random": worse_than_random(against_random),
            "original": answers[NO_HEADS].by_id(),
            "source": giver.by_id(),
            "sets": sets(conditions, answers),
        }
    return {"positions": "answer", "directions": directions}


def flat_rows(result: Row) -> list[Row]:
    """The rows of table.csv."""
    if result["method"] == "knockout":
        return result["rows"]
    return [
        {"direction": way, **row}
        for way, found in result["directions"].items()
        for row in found["rows"]
    ]


def write_csv(file: Path, table: Sequence[Row]) -> None:
    """One line a set; what does not exist is empty."""
    columns = list(dict.fromkeys(name for row in table for name in row))
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(table)


def printed(result: Row) -> str:
    """What a person wants to know at a glance."""
    tables = _knockout_tables(result) if result["method"] == "knockout" else _patch_tables(result)
    out = StringIO()
    console = Console(file=out, width=110, force_terminal=False)
    for table in tables:
        console.print(table)
    notes = [_NOTE.format(random=_of_random(result)), *_more_notes(result)]
    console.print("\n".join(notes), highlight=False, markup=False, soft_wrap=True)
    return out.getvalue()


def _of_random(result: Row) -> str:
    """What the random rows of the table are, if there are any; patching lists every draw."""
    count = result["num_controls"] if result["method"] == "knockout" else 0
    return f"; random sets: mean over {count} draw{'s' * (count > 1)}" if count else ""


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(box=SIMPLE, title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 2 else "right")
    return table


def _knockout_tables(result: Row) -> list[Table]:
    where = "everywhere" if result["positions"] == "all" else "from the last prompt token on"
    before = result["rows"][0]
    title = f"knockout ({result['ablation']}, {where}), n = {before['n']} examples"
    known = int(before.get("closed_book") is not None)
    columns = ["heads of", "set", "k", "F1", "p of none", "p of random", "NLL"]
    table = _table(title, columns + ["known"] * known)
    names = ["answer_nll"] + ["closed_book"] * known
    last = [_number(before[name]) for name in names]
    table.add_row("-", "no ablation", "0", cell(before, "f1"), "", "", *last)
    for curve in result["curves"]:
        for index, k in enumerate(curve["k"]):
            point = {name: curve[name][index] for name in ("f1", "f1_low", "f1_high")}
            tests = _tests(result, curve, k)
            last = [_number(curve[name][index]) for name in names]
            kind = _KINDS[curve["kind"]]
            table.add_row(curve["name"], kind, str(k), cell(point, "f1"), *tests, *last)
    return [table, _areas(result)]


def _tests(result: Row, curve: Row, k: int) -> tuple[str, str]:
    """P of a set against no ablation and against its layer-matched (else uniform) controls."""
    if curve["kind"] != HEADS:
        return "", ""
    about = (curve["name"], k)
    own = next(r for r in result["rows"] if r["kind"] == HEADS and (r["name"], r["k"]) == about)
    of_random = [r for r in result["contrasts"] if (r["name"], r["k"]) == about]
    return _p(own["f1_p"]), _p(of_random[0]["f1_p_value"]) if of_random else ""


def _areas(result: Row) -> Table:
    table = _table("area over k, from 0", ["heads of", "set", "CPR", "CMD"])
    for curve in result["curves"]:
        cells = [cell(curve, "cpr"), cell(curve, "cmd")]
        table.add_row(curve["name"], _KINDS[curve["kind"]], *cells)
    return table


def _patch_tables(result: Row) -> list[Table]:
    tables = []
    for way, found in result["directions"].items():
        into = "source into target" if way == "forward" else "target into source"
        gap = found["rows"][-1]
        title = f"patching, {into}, n = {gap['n']} examples; gap {cell(gap, 'f1_change')}"
        columns = ["set", "what", "heads", "F1", "p of original", "share of the gap"]
        table = _table(title, columns)
        for row in found["rows"]:
            kind = {BASELINE: "", "source": ""}.get(row["kind"]) or _KINDS.get(row["kind"], "")
            name = {"source": "whose outputs are taken"}.get(row["name"], row["name"])
            draw = "" if row["draw"] is None else f" {row['draw'] + 1}"
            share = cell(row, "share") if "share" in row else ""
            p = _p(row["f1_p"]) if "f1_p" in row else ""
            table.add_row(name, f"{kind}{draw}", str(row["k"] or ""), cell(row, "f1"), p, share)
        tables.append(table)
    return tables


def _more_notes(result: Row) -> list[str]:
    notes = [f"warning: {line}" for line in result.get("warnings", [])]
    if result["method"] == "knockout":
        book = result["closed_book"]
        if book["num_asked"] and not book["num_right"]:
            notes.append(
                f"closed book: none of {book['num_asked']} questions is answered right without "
                "ablation and without documents, so they say nothing here."
            )
        elif book["num_asked"]:
            notes.append(
                f"known: of the {book['num_right']} closed-book questions (of {book['num_asked']}) "
                "answered right without ablation and without documents, the share answered still."
            )
        notes.append(
            "CPR: area of F1 over F1 without ablation; low where the heads matter. CMD: area of "
            "what is lost."
        )
        return notes
    for way, found in result["directions"].items():
        for row in found["worse_than_random"]:
            difference = f"{row['f1_difference']:+.3f}"
            notes.append(
                f"against: {way}, {row['name']} does worse than random heads ({difference} F1)"
            )
        for row in found["counter_examples"]:
            if row["num"] and row["draw"] is None:
                notes.append(
                    f"against: {way}, {row['name']} makes {row['num']} of {row['n']} answers worse "
                    f"that the other model has better: {', '.join(row['ids'][:5])}"
                    + (" ..." if row["num"] > 5 else "")
                )
    return notes


def cell(row: Mapping[str, Any], name: str) -> str:
    """A value with its interval, for a table."""
    text = _number(row.get(name))
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None or high is None else f"{text} [{low:.3f}, {high:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    return "-" if value is None else ("<0.001" if value < 0.001 else f"{value:.3f}")
