"""What a comparison of head sets prints, and the table, curves and picture that it leaves."""

import csv
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sce.errors import InputError
from sce.figures import head_maps, overlap_matrix, recall_over_k, save_montage
from sce.headsets.comparing import GIVEN_LAYER, SEED, Compared, Member, Pair
from sce.records import write_json
from sce.stats import Curves, head_set

SCHEMA = "sce.compare/1"
WIDTH = 100
"""Columns of what is printed, with a terminal or without; only a table of more digits is wider."""
MAPS_A_ROW = 4


def as_text(compared: Compared) -> str:
    """Which set is which letter, a table of head sets and one of scores, and how they are read."""
    out = StringIO()
    console = Console(file=out, width=2 * WIDTH, force_terminal=False)
    lines = [_title(compared)]
    for member in compared.members:
        lines.append(f"{member.letter:>3}  {member.name}: {_size(member, compared.tau)}")
    lines += [_wrapped(f"warning: {warning}") for warning in compared.warnings]
    console.print("\n".join([*lines, ""]), highlight=False, markup=False, soft_wrap=True)
    recalls = "recall of the reference's heads"
    console.print(_table(recalls, _recall_columns(compared.k), compared.pairs))
    console.print(_table("sets and scores", _OTHER_COLUMNS, compared.pairs))
    console.print(_wrapped(_notes(compared)), highlight=False, markup=False, soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _wrapped(text: str) -> str:
    """Paragraphs broken at the tables' width, but no file name broken."""
    filled = (
        fill(line, WIDTH, break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )
    return "\n".join(filled)


def _title(compared: Compared) -> str:
    scores = compared.members[0].scores
    shape = f"{scores.shape[0]} layers x {scores.shape[1]} heads"
    return f"{scores.scorer}, {scores.mode}, {scores.match}; {shape}; tau {compared.tau:g}"


def _size(member: Member, tau: float) -> str:
    count = int(head_set(member.scores.scores, tau).sum())
    return f"{count} heads > {tau:g}, n = {'unknown' if member.n is None else member.n}"


Column = tuple[str, Callable[[Pair], str]]


def _measured(title: str, name: str) -> Column:
    return title, lambda pair: _with_interval(pair, name)


def _recall_columns(k: int) -> tuple[Column, ...]:
    return (
        _measured("recall", "recall"),
        _measured("null", "recall_null"),
        _measured("null by\nlayer", "recall_null_layer"),
        ("p", lambda pair: _number(pair.recall_p_value, digits=4)),
        _measured("recall\nlearned", "recall_learned"),
        ("p learned", lambda pair: _number(pair.recall_learned_p_value, digits=4)),
        _measured(f"recall at {k}", "recall_at_k"),
    )


_OTHER_COLUMNS: tuple[Column, ...] = (
    _measured("precision", "precision"),
    _measured("Jaccard", "jaccard"),
    _measured("cosine", "cosine"),
    _measured("cosine\nlearned", "cosine_learned"),
    _measured("Spearman", "spearman"),
    ("given\nlayer", lambda pair: _interval_below(pair, GIVEN_LAYER, pair.partial_given_layer)),
)


def _table(title: str, columns: Sequence[Column], pairs: Sequence[Pair]) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", padding=0)
    for name in ("run", "ref."):
        table.add_column(name)
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("n", justify="right")
    for pair in pairs:
        cells = [cell(pair) for _, cell in columns]
        table.add_row(pair.run.letter, pair.reference.letter, *cells, _examples(pair))
    return table


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _with_interval(pair: Pair, name: str) -> str:
    """The value, and its interval on a line of its own."""
    return _interval_below(pair, name, getattr(pair.comparison, name))


def _interval_below(pair: Pair, name: str, value: float | None) -> str:
    interval, text = pair.intervals.get(name), _number(value)
    return text if interval is None else f"{text}\n[{interval[0]:.3f},{interval[1]:.3f}]"


def _examples(pair: Pair) -> str:
    counts = ["-" if n is None else str(n) for n in (pair.run.n, pair.reference.n)]
    return "/".join(dict.fromkeys(counts))


def _notes(compared: Compared) -> str:
    base = compared.base or "each reference's own"
    return "\n".join(
        [
            "[a, b]: 95% bootstrap interval over the run's examples, with the reference's where "
            "they are the same; of a cosine around the estimate, since noise lowers it.",
            "null: recall of as many heads at random; by layer: of as many in every layer; p: how "
            "often these recall as much.",
            f"learned: beyond the untuned model's set, of changes against it ({base}); p "
            "learned: how often as many of the other heads, the layers kept, recall as much.",
            "given layer: rank correlation of the heads within their layers. n: examples, run/ref. "
            "where they differ.",
            "-: does not exist, or the file does not say.",
        ]
    )


def write(compared: Compared, folder: Path) -> None:
    """Write compare.json (with the curves over tau and k), compare.csv and compare.png.

    Raises:
        InputError: the folder exists and is not empty, or is a file.
    """
    require_new_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [pair.row() for pair in compared.pairs]
    pairs = [
        {**row, "curves": pair.curves.to_json()}
        for row, pair in zip(rows, compared.pairs, strict=True)
    ]
    content = {
        "schema": SCHEMA,
        "tau": compared.tau,
        "k": compared.k,
        "seed": SEED,
        "base": compared.base,
        "warnings": list(compared.warnings),
        "sets": [_about(member, compared.tau) for member in compared.members],
        "pairs": pairs,
    }
    write_json(folder / "compare.json", content)
    with (folder / "compare.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)  # None is an empty cell
    save_montage(_drawn(compared), folder / "compare.png")


def require_new_folder(folder: Path) -> None:
    """Raise `InputError` if the folder holds anything, or is a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"out={folder} exists; name another folder or delete it")


def _about(member: Member, tau: float) -> dict[str, Any]:
    scores = member.scores
    return {
        "letter": member.letter,
        "file": member.name,
        "scorer": scores.scorer,
        "mode": scores.mode,
        "match": scores.match,
        "shape": list(scores.shape),
        "num_examples": member.n,
        "num_heads": int(head_set(scores.scores, tau).sum()),
        "provenance": scores.provenance,
    }


def _drawn(compared: Compared) -> list[list[Figure]]:
    """Overlap and curves in a row, and the maps of all sets below."""
    members, cells = compared.members, {}
    for pair in compared.pairs:
        interval = pair.intervals.get("recall")
        low, high = interval or (None, None)
        cells[pair.run.letter, pair.reference.letter] = (pair.comparison.recall, low, high)
    overlap = overlap_matrix(
        [member.letter for member in members],
        cells,
        title=f"recall of the reference's heads > {compared.tau:g} [95%]",
    )
    curves = recall_over_k(_panels(compared.pairs))
    maps = []
    for start in range(0, len(members), MAPS_A_ROW):
        shown = {
            f"{m.letter}  {_short(m.name)}\nn = {m.n or 'unknown'}": np.round(m.scores.scores, 9)
            for m in members[start : start + MAPS_A_ROW]
        }
        maps.append([head_maps(shown, title=_title(compared), tau=compared.tau)])
    return [[overlap, curves], *maps]


def _panels(pairs: Sequence[Pair]) -> dict[str, dict[str, Curves]]:
    """Reference -> run -> curves, in the order of the sets."""
    panels: dict[str, dict[str, Curves]] = {}
    for pair in sorted(pairs, key=lambda pair: (len(pair.reference.letter), pair.reference.letter)):
        panels.setdefault(pair.reference.letter, {})[pair.run.letter] = pair.curves
    return panels


def _short(name: str, limit: int = 26) -> str:
    return name if len(name) <= limit else f"...{name[3 - limit :]}"
