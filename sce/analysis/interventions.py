"""What python -m sce.intervene and the baselines of a study left, read as findings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sce.analysis.parts import Baseline, Effect, Intervention, Skipped
from sce.stats import Estimate

INTERVENTION = "sce.intervention/1"
BASELINES = "sce.baselines/1"
Row = Mapping[str, Any]


def baselines(file: Path, skipped: list[Skipped]) -> list[Baseline]:
    """Accuracy under views of the documents; what cannot be read is noted."""
    content = _read(file, BASELINES, skipped)
    try:
        return [
            Baseline(row["model"], row["view"], _estimate(row, "f1", int(row["n"])))
            for row in content.get("rows", [])
        ]
    except (KeyError, TypeError, ValueError) as error:
        skipped.append(Skipped(str(file), None, f"a row without {error}"))
        return []


def intervention(
    file: Path, skipped: list[Skipped], about: tuple[str | None, str | None, int | None]
) -> Intervention | None:
    """One results.json.

    Args:
        file: results.json.
        skipped: takes what cannot be read.
        about: setting, kind and seed of the run it was tried on, where a study says so.
    """
    content = _read(file, INTERVENTION, skipped)
    if not content:
        return None
    try:
        ways: Mapping[str | None, Row]
        ways = {None: content} if content["method"] == "knockout" else content["directions"]
        return Intervention(
            file=str(file),
            method=content["method"],
            task=content["task"],
            setting=about[0],
            kind=about[1],
            seed=about[2],
            effects=[_effect(way, row) for way, found in ways.items() for row in found["rows"]],
            curves=[_curve(curve) for curve in content.get("curves") or []],
            worse_than_random=_listed(ways, "worse_than_random", ("exact_match_by_draw",)),
            counter_examples=_listed(ways, "counter_examples", ("ids",)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        skipped.append(Skipped(str(file), None, f"not results of sce.intervene (no {error})"))
        return None


def _read(file: Path, schema: str, skipped: list[Skipped]) -> Row:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        skipped.append(Skipped(str(file), None, f"cannot be read ({error})"))
        return {}
    if not isinstance(content, dict) or content.get("schema") != schema:
        skipped.append(Skipped(str(file), None, f"schema is not {schema}"))
        return {}
    return content


def _effect(way: str | None, row: Row) -> Effect:
    n = int(row["n"])
    return Effect(
        direction=way,
        name=row["name"],
        kind=row["kind"],
        k=row["k"],
        draw=row.get("draw"),
        f1=_estimate(row, "f1", n),
        change=_estimate(row, "f1_change", n),
        p_value=row.get("f1_p"),
        share=_estimate(row, "share", n),
        gap=_estimate(row, "gap", n),
    )


def _curve(curve: Row) -> Row:
    names = ("name", "kind", "k", "n", "f1", "f1_low", "f1_high", "cpr", "cpr_low", "cpr_high")
    return {name: curve.get(name) for name in names}


def _listed(ways: Mapping[str | None, Row], name: str, without: Sequence[str]) -> list[Row]:
    return [
        {"direction": way} | {key: value for key, value in row.items() if key not in without}
        for way, found in ways.items()
        if way is not None
        for row in found.get(name) or []
    ]


def _estimate(row: Row, name: str, n: int) -> Estimate:
    return Estimate(row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high"), n)
