"""The folder of a run: chosen once, by rank 0, and never over anybody's files."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sce.errors import InputError, StoppedBySignal
from sce.logger import is_rank_zero
from sce.outputs import require_writable
from sce.records import drop_rows_after, read_jsonl

_VARIABLE = "SCE_RUN_DIR"  # hands rank 0's choice on to the processes that Lightning starts
CHECKPOINT = Path("checkpoints") / "last.ckpt"


def choose_run_dir(wanted: str | None, *, name: str, seed: int, resume: bool) -> Path:
    """The run's folder, absolute.

    Args:
        wanted: the user's `run_dir`; None: runs/<name>-seed<seed>, numbered on where taken.
        name: of the run.
        seed: of the run.
        resume: whether to go on with a run in `wanted`.

    Raises:
        InputError: `wanted` exists and is not to be resumed, or holds nothing to resume, or holds
            more than a run without a checkpoint may lose, or cannot be written to.
    """
    base = Path("runs").absolute() / f"{name}-seed{seed}".replace("=", "-")
    if not is_rank_zero():
        run_dir = Path(os.environ.get(_VARIABLE) or wanted or base).absolute()
        if resume and not _is_begun(run_dir):
            raise InputError(
                f"resume=true: this rank sees no run in run_dir={run_dir}; it has to lie on a file "
                "system that all machines share"
            )
        return run_dir
    if wanted is not None:
        run_dir = Path(wanted).absolute()
        if resume and not _is_begun(run_dir):
            raise InputError(f"resume=true: no {CHECKPOINT} in run_dir={run_dir}")
        if resume:
            _require_nothing_to_lose(run_dir)
        require_writable(f"run_dir={wanted}", run_dir)
        if run_dir.exists() and not resume:
            raise InputError(
                f"run_dir={run_dir} exists; go on with it by resume=true, or name another folder"
            )
        return run_dir
    run_dir, number = base, 1
    while run_dir.exists():
        number += 1
        run_dir = base.with_name(f"{base.name}-{number}")
    require_writable("run_dir", run_dir)
    return run_dir


def _is_begun(run_dir: Path) -> bool:
    """A run that was stopped before its first checkpoint has its config, and starts anew."""
    return (run_dir / CHECKPOINT).is_file() or (run_dir / "config.yaml").is_file()


def _require_nothing_to_lose(run_dir: Path) -> None:
    """See that a run without a checkpoint, which is to start anew, has got no further than step 0.

    Raises:
        InputError: it has; its checkpoint was taken away, or it was told to write none.
    """
    records = run_dir / "records.jsonl"
    if (run_dir / CHECKPOINT).is_file() or not records.is_file():
        return
    last = max((row["step"] for row in read_jsonl(records)), default=0)
    if last > 0:
        raise InputError(
            f"resume=true: run_dir={run_dir} has records up to step {last} but no {CHECKPOINT}, "
            "and would start anew without them; name another folder without resume=true, or "
            "delete this one"
        )


def rewind(run_dir: Path, step: int) -> None:
    """Take away what a run left of steps past `step`, which it will make again.

    Rows of records.jsonl, and scores, curves, predictions and figures.
    """
    drop_rows_after(run_dir / "records.jsonl", step)
    if step < 0:  # begun anew, with a run of its own at the logger's
        (run_dir / "logged.json").unlink(missing_ok=True)
    for folder in ("heads", "curves", "predictions", "figures"):
        for file in (run_dir / folder).glob("*-*"):
            number = file.stem.rpartition("-")[2]
            if number.isdigit() and int(number) > step:
                file.unlink()


@contextmanager
def opened(run_dir: Path, config_yaml: str, *, resume: bool) -> Iterator[None]:
    """On rank 0: create the folder with its config.yaml, and log to log.txt inside.

    If the user's input turns out to be wrong before the first record, a new folder is taken away
    again, so that the corrected command can have it.
    """
    if not is_rank_zero():
        yield
        return
    try:
        run_dir.mkdir(parents=True, exist_ok=resume)
    except FileExistsError:
        raise InputError(f"run_dir={run_dir} has just been taken by another run") from None
    (run_dir / "config.yaml").write_text(config_yaml, encoding="utf-8")
    handler = logging.FileHandler(run_dir / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("sce")
    log.addHandler(handler)
    os.environ[_VARIABLE] = str(run_dir)
    try:
        yield
    except StoppedBySignal as stopped:
        # Into the file alone; by this line conf/launch/slurm.sbatch knows.
        handler.handle(logging.makeLogRecord({"msg": str(stopped)}))
        raise
    except InputError:
        if not resume and not (run_dir / "records.jsonl").exists():
            shutil.rmtree(run_dir, ignore_errors=True)
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
        del os.environ[_VARIABLE]
