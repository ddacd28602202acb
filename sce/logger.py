"""The one door to W&B: where the curves go is decided before a run starts.

In bounded time, without a prompt or an error for the network's sake: online where a server answers
and a key is there, else offline, to be uploaded later. Knows nothing of what is logged.
"""

import os
import queue
import re
import shlex
import ssl
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sce.errors import InputError
from sce.options import LoggerOptions

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger, WandbLogger
else:  # Heavy, so imported only where used; a checker of types at run time still needs the names.
    Logger = WandbLogger = Any

PROBE_TIMEOUT_S = 3.0
_LOGIN = re.compile(r"//[^/@\s]*@")  # The user and password that a URL may hold.


@dataclass(frozen=True)
class RunLogger:
    """A Lightning logger, and what to tell the user about it."""

    logger: Logger | None
    mode: str
    """online, offline, disabled, csv or none."""
    message: str
    """One line: which mode and why, and how to look at the curves."""
    url: str | None = None
    """The run's page; None unless online."""

    def keep(self, file: Path, name: str, kind: str) -> None:
        """Log a file as an artefact of a kind; only W&B has those."""
        if self.logger is not None and self.mode in ("online", "offline"):
            import wandb

            artifact = wandb.Artifact(name, type=kind)
            artifact.add_file(str(file))
            self.logger.experiment.log_artifact(artifact)  # type: ignore[union-attr]

    def finish(self, exit_code: int) -> None:
        """End the run, 0 meaning success; what is not uploaded in time stays on disk."""
        if self.mode == "csv" and self.logger is not None:
            self.logger.finalize("success" if exit_code == 0 else "failed")
        elif self.mode != "none":
            import wandb

            wandb.finish(exit_code=exit_code)


def make_logger(  # noqa: PLR0913 - six plain facts about one run, all by keyword
    options: LoggerOptions,
    *,
    run_dir: Path,
    run_name: str,
    config: dict[str, Any],
    tags: list[str],
    job_type: str,
    run_path: str | None = None,
) -> RunLogger:
    """The logger that `options` ask for, its run started, with `config` as hyper-parameters.

    Call it on every rank: zero alone starts a run. A `run_path`, from the function of that name,
    continues that W&B run, in its own project, whatever the options say.
    """
    if options.name == "none":
        return RunLogger(None, "none", "No logger, no curves are kept (logger=none)")
    if options.name == "csv":
        made = _make_csv(run_dir)
    else:
        init = {"project": options.project, "entity": options.entity, "group": options.group}
        init |= {"name": run_name, "job_type": job_type, **_parts(run_path)}
        init["tags"] = [tag[:64] for tag in tags if tag]  # wandb refuses longer ones.
        made = _make_wandb(run_dir, init)
    if made.logger is not None and is_rank_zero():
        made.logger.log_hyperparams(config)
    return made


def run_path(run_logger: RunLogger) -> str | None:
    """W&B's entity/project/id, by which `make_logger` continues this run; None without such a run.

    The entity is empty where it is the key's own.
    """
    logger = run_logger.logger if run_logger.mode in ("online", "offline") else None
    if logger is None:
        return None
    init = logger._wandb_init  # type: ignore[attr-defined]
    return f"{init.get('entity') or ''}/{init['project']}/{logger.version}"


def _parts(path: str | None) -> dict[str, str | None]:
    """What wandb.init takes of a path; of none, that there is no id yet."""
    if path is None:
        return {"id": None}
    entity, project, run = path.split("/")
    return {"entity": entity or None, "project": project, "id": run}


def is_rank_zero() -> bool:
    """Whether this is global rank zero: RANK says so, or where it is not set, all the others."""
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def _make_csv(run_dir: Path) -> RunLogger:
    """Rows in `run_dir`/csv/version_N, a new N for each start: a resumed run keeps the old rows."""
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(run_dir, name="csv", flush_logs_every_n_steps=1)  # kill -9 loses none
    return RunLogger(logger, "csv", f"CSV: the rows are in {logger.log_dir}/metrics.csv")


def _make_wandb(run_dir: Path, init: dict[str, Any]) -> RunLogger:
    """Start a run on rank zero; the other ranks hold a logger like its own, without a run."""
    import wandb

    if not is_rank_zero():
        logger = _build_wandb("disabled", run_dir, init)
        return RunLogger(logger, "disabled", "W&B: rank zero alone logs")
    run_dir.mkdir(parents=True, exist_ok=True)
    wandb.finish(exit_code=1)  # A run that a broken job left; Lightning would log into it.
    return _start_wandb(*_choose_mode(), run_dir, init)


def _start_wandb(mode: str, why: str, run_dir: Path, init: dict[str, Any]) -> RunLogger:
    """Start a run in `mode`, or offline where it turns out that online is not possible."""
    import wandb
    from wandb.errors import CommError, UsageError

    logger = _build_wandb(mode, run_dir, init)
    try:
        run = logger.experiment
    except (CommError, UsageError) as error:
        wandb.teardown()
        if mode != "online":  # No network is involved: a bad project name, for one.
            raise InputError(f"W&B: {_safe_line(error)}") from None
        return _start_wandb("offline", _safe_line(error), run_dir, init)
    if mode == "online":
        url = _LOGIN.sub("//", str(run.url))
        return RunLogger(logger, mode, f"W&B online: {url}", url)
    ways = "no curves are kept"
    if mode == "offline":
        folder = f"{shlex.quote(str(run_dir))}/wandb"
        ways = f"look with `wandb leet {folder}`, upload with `wandb sync {folder}/offline-run-*`"
    return RunLogger(logger, mode, f"W&B {mode} ({why}): {ways}")


def _build_wandb(mode: str, run_dir: Path, init: dict[str, Any]) -> WandbLogger:
    """A logger whose run does not exist until its `experiment` is touched."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    # Seconds: to start (up to twice that), to upload at the end, and until a row is on disk.
    limits = wandb.Settings(
        init_timeout=15, finish_timeout=120, x_transaction_log_flush_interval=1, quiet=True
    )
    logger = WandbLogger(save_dir=run_dir, mode=mode, resume="allow", settings=limits, **init)
    logger._wandb_init.pop("anonymous", None)  # Lightning passes it, and wandb warns of it.
    return logger


def _choose_mode() -> tuple[str, str]:
    """(mode, why) for W&B: what the user said, else online if a server and a key are there."""
    import wandb
    from wandb.errors import AuthenticationError, UsageError

    try:
        # Its warnings and errors stay; where the curves are, `message` says.
        settings = wandb.setup(wandb.Settings(show_info=False)).settings
    except ValueError as error:  # pydantic's: a title, the setting, what is wrong, [its value].
        wrong = str(error).partition("\n")[2].partition("[type=")[0]
        raise InputError(f"W&B setting {_safe_line(wrong)}") from None
    if settings.mode in ("offline", "dryrun", "disabled"):
        source = "WANDB_MODE" if "WANDB_MODE" in os.environ else "settings file: mode"
        return settings.mode.replace("dryrun", "offline"), f"{source}={settings.mode}"
    if (reason := _why_unreachable(settings.base_url)) is not None:
        return "offline", _safe_line(f"{settings.base_url}: {reason}")
    try:
        has_key = wandb.login(prompt=False, verify=False)
    except (AuthenticationError, UsageError) as error:
        return "offline", _safe_line(error)
    return ("online", "") if has_key else ("offline", "no API key: `wandb login`")


def _why_unreachable(base_url: str) -> str | None:
    """Why nothing answers at `base_url`, within `PROBE_TIMEOUT_S`; None: something does."""
    answers: queue.Queue[str | None] = queue.Queue()
    # In a thread: looking up a name, or a host with many addresses, outlasts urlopen's timeout.
    threading.Thread(target=lambda: answers.put(_probe(base_url)), daemon=True).start()
    with suppress(queue.Empty):
        return answers.get(timeout=PROBE_TIMEOUT_S)
    return f"no answer in {PROBE_TIMEOUT_S:g} s"


def _probe(base_url: str) -> str | None:
    """What keeps `base_url` from answering; any answer but a server error will do."""
    try:
        urllib.request.urlopen(f"{base_url}/healthz", timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}" if error.code >= 500 else None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", type(error).__name__)
        # W&B may trust certificates that Python does not, and the server did answer.
        return None if isinstance(reason, ssl.SSLCertVerificationError) else str(reason)
    return None


def _safe_line(text: object) -> str:
    """`text` on one line, short, without what may be a key or the login in a URL."""
    return re.sub(r"[\w-]{40,}", "***", _LOGIN.sub("//", " ".join(str(text).split())))[:200]
