"""The short table a run ends with, from its own records."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sce.records import read_jsonl
from sce.reference import command_line, of_scores, of_scoring
from sce.stats import first_differences, pearson, spearman

_OF_ONE_RUN = ("name", "resume", "run_dir", "seed", "untuned")
_ROWS = (
    ("recall of the reference's heads", "recall", "num_kept_examples"),
    ("recall learned (not in the untuned model)", "recall_learned", "num_kept_examples"),
    ("cosine with the reference", "cosine", "num_kept_examples"),
    ("F1", "f1", "num_examples"),
)


def final_table(run_dir: Path, url: str | None = None, overrides: Sequence[str] = ()) -> str:
    """Start against end, the correlation over checkpoints, where all lies and what to type next.

    Args:
        run_dir: folder of the run.
        url: where W&B shows it.
        overrides: what the user typed, for the commands that go on from it.
    """
    records = run_dir / "records.jsonl"
    rows = read_jsonl(records) if records.is_file() else []
    if not rows:
        return f"no records in {run_dir} (callbacks.records is what writes them)"
    first, last = rows[0], rows[-1]
    table = Table(
        box=SIMPLE, title=f"{last['run']}: {last['scorer']}, {last['mode']}, tau {last['tau']:g}"
    )
    table.add_column("")
    table.add_column(f"step {first['step']}", justify="right")
    table.add_column(f"step {last['step']}", justify="right")
    table.add_column("n", justify="right")
    for label, name, count in _ROWS:
        n = _counts(first[count], last[count])
        table.add_row(label, _cell(first, name), _cell(last, name), n)
    out = StringIO()
    console = Console(file=out, width=100, force_terminal=False)
    console.print(table)
    notes = f"[a, b]: 95% bootstrap interval over examples.\n{_correlation(rows)}"
    console.print(notes, highlight=False, markup=False, soft_wrap=True)
    steps = _next_steps(run_dir, url, rows[-1], overrides)
    console.print(steps, highlight=False, markup=False, soft_wrap=True)
    return out.getvalue()


def _cell(row: dict[str, Any], name: str) -> str:
    if row.get(name) is None:
        return "-"
    text = f"{row[name]:.3f}"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None or high is None else f"{text} [{low:.3f}, {high:.3f}]"


def _counts(first: int | None, last: int | None) -> str:
    """Examples behind the figures of a line; both steps' where a scorer kept others."""
    shown = ["-" if count is None else str(count) for count in (first, last)]
    return shown[-1] if shown[0] == shown[-1] else ", ".join(shown)


def _correlation(rows: list[dict[str, Any]]) -> str:
    points = [(row["recall"], row["f1"]) for row in rows if row["recall"] is not None]
    if len(points) < 3:
        return f"No correlation of recall with F1 below 3 checkpoints (n = {len(points)})."
    recall, f1 = ([float(point[i]) for point in points] for i in (0, 1))
    rho = spearman(recall, f1)
    differences = pearson(first_differences(recall), first_differences(f1))
    if rho is None:
        return f"Recall or F1 is constant over the n = {len(points)} checkpoints: no correlation."
    text = f"Recall and F1 over n = {len(points)} checkpoints: Spearman {rho:.2f}"
    if differences is not None:
        text += f", of first differences {differences:.2f} (Pearson)"
    return text + "; checkpoints of one run are not independent."


def _next_steps(
    run_dir: Path, url: str | None, row: Mapping[str, Any], overrides: Sequence[str]
) -> str:
    try:
        shown = run_dir.relative_to(Path.cwd())
    except ValueError:
        shown = run_dir
    lines = [
        f"records    {shown}/records.jsonl",
        f"maps       {shown}/figures/",
        f"adapter    {shown}/adapter/",
    ]
    if url:
        lines.append(f"curves     {url}")
    elif (run_dir / "wandb").is_dir():
        lines.append(
            f"curves     wandb leet {shown}/wandb        "
            f"upload: wandb sync {shown}/wandb/offline-run-*"
        )
    scored = [*of_scoring(overrides), *of_scores(overrides)]
    adapter = [f"adapter={shown}/adapter", "out=heads.json", "audit=audit.jsonl"]
    lines += [
        f"next       {command_line('train', _another_run(row, overrides))}",
        f"           {command_line('score', [*scored, *adapter])}",
    ]
    if any(override.startswith("experiment=") for override in overrides):
        lines.append(f"           (and there the model.* and data.* of {shown}/config.yaml)")
    return "\n" + "\n".join(lines)


def _another_run(row: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """Symbolic data after a run as it comes, another seed of a run with data or a model to keep."""
    own = [o for o in overrides if o.lstrip("+~").partition("=")[0] not in _OF_ONE_RUN]
    kept = [o for o in own if o in of_scoring(own) or o.lstrip("+").startswith("experiment=")]
    if row.get("task") == "needle" or kept not in ([], [f"data={row.get('task')}"]):
        return [*own, f"seed={int(row.get('seed') or 0) + 1}"]
    return [*own, "data.concept=symbolic", "data.context=symbolic"]
