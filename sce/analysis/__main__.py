"""python -m sce.analysis RUN... --out DIR: findings, tables, figures, a page of any runs."""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sce.errors import InputError
from sce.outputs import require_writable

if TYPE_CHECKING:
    from sce.analysis.findings import Findings

_EPILOG = """
A RUN is the folder of a run (python -m sce.train), a folder of such folders, or a study's folder.
Runs of different weights, scorers, modes or matches are never compared: they are grouped apart.
Without --reference runs on real data are the reference, each compared with the others alone.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write findings, tables, figures and the page, print what was found; gives the exit code."""
    options = parser().parse_args(arguments)
    try:
        _run(options)
    except InputError as error:
        sys.stderr.write(f"sce: {' '.join(str(error).split())}\n")
        return 2
    return 0


def cli() -> None:
    """Console script."""
    sys.exit(main())


def _run(options: argparse.Namespace) -> None:
    # Thousands of small products: threads for each cost more than they give, and far more on a
    # busy machine. Read by numpy when it is first imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    charts = None if options.no_figures else _charts()
    from sce.analysis.study import analyse
    from sce.analysis.summary import summary
    from sce.analysis.tables import save_tables
    from sce.analysis.tasks import Limits

    out: Path = options.out
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    require_writable(f"--out {out}", out)
    found = analyse(options.runs, options.reference, Limits(options.tau, options.k))
    out.mkdir(parents=True, exist_ok=True)
    _clear(out)
    library = None if charts is None else _Library(charts.VERSION)
    found.save(out / "findings.json")
    save_tables(found, out / "tables")
    files = 0 if library is None else _draw(charts, found, options, library)
    sys.stdout.write(summary(found, out, files))
    if charts is not None:
        sys.stdout.write(f"report     {out}/index.html\n")


def _clear(out: Path) -> None:
    """Take away what an earlier analysis left, so that nothing of it stands beside this one's."""
    if not (out / "findings.json").is_file():
        return
    kinds = {"tables": ("csv",), "figures": ("svg", "pdf", "png")}
    files = [
        f for name, ends in kinds.items() for end in ends for f in (out / name).glob(f"*.{end}")
    ]
    for file in (*files, out / "index.html"):
        file.unlink(missing_ok=True)


class _Library:
    """The page's plotting library, which takes seconds, bundled while the rest goes on."""

    def __init__(self, version: str) -> None:
        from sce.analysis.charts.render import bundle

        self._process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._bundle = self._process.submit(bundle, version)

    def text(self) -> str | None:
        """The script, once it is there; None if that process died, and the page makes its own."""
        try:
            return self._bundle.result()
        except BrokenProcessPool:
            return None
        finally:
            self._process.shutdown()


def _draw(charts: Any, found: "Findings", options: argparse.Namespace, library: _Library) -> int:
    """The page, then a file for every figure; gives how many there are."""
    from sce.analysis.page import looks_of, write

    drawn = charts.figures(found)
    write(found, options.out / "index.html", looks_of(options.runs), drawn, library.text())
    return len(charts.save_figures(found, drawn, options.out / "figures"))


def _charts() -> Any:
    """What draws the figures; asked for first, so that nobody waits for an answer in vain."""
    try:
        from sce.analysis.charts import files
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("altair", "vl_convert"):
            raise
        raise InputError(
            f"figures need {error.name}, which is not installed: pip install 'sce[analysis]', or "
            "take --no-figures"
        ) from None
    return files


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(
        prog="python -m sce.analysis",
        description="Tables and figures of any runs, from their records and head scores alone.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run or study folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--reference",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="FILE",
        help="reference head sets, of any tasks; runs that took part in one are no points",
    )
    parser.add_argument("--tau", type=float, help="threshold of head sets; default: the runs'")
    parser.add_argument("--k", type=int, help="size of the sets of recall at k; default: the runs'")
    parser.add_argument("--no-figures", action="store_true", help="findings and tables alone")
    return parser


if __name__ == "__main__":
    cli()
