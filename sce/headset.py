"""python -m sce.headset: show, average, compare and convert head sets.

Files are HeadScores JSON or those of other tools (sce.headsets.exchange), which are recognised.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from sce.commands import HeadsetConfig
from sce.config import CONF, register, typed
from sce.errors import InputError
from sce.headsets.averaging import average, summary
from sce.one_line import one_line_errors, run
from sce.records import TAUS

if TYPE_CHECKING:
    from sce.records import HeadScores

register()
_log = logging.getLogger("sce")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="headset")
@one_line_errors
def main(composed: DictConfig) -> None:
    """Show, average, compare or convert."""
    headset(typed(composed, HeadsetConfig))


def headset(config: HeadsetConfig) -> None:
    """Do what was asked for; tables go to standard output, all else to the log.

    Raises:
        InputError: the user's input is wrong, or `out` exists; nothing has been written then.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    from sce.headsets.exchange import require_new
    from sce.headsets.report import require_new_folder

    out = None if config.out is None else Path(config.out)
    if config.action == "compare" and out is not None:
        require_new_folder(out)
    elif config.action in ("average", "convert"):
        assert out is not None
        require_new(out, config.to or "sce")
    sets = {name: _read(name, config) for name in config.files}
    base = None if config.base is None else _read(config.base, config)
    try:
        _do(config, sets, base, out)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"out={out} cannot be written ({error})") from None


def _do(
    config: HeadsetConfig,
    sets: "dict[str, HeadScores]",
    base: "HeadScores | None",
    out: Path | None,
) -> None:
    from sce.headsets.exchange import write

    if config.action == "show":
        texts = [summary(name, s, _tau(config, name, s), config.k) for name, s in sets.items()]
        sys.stdout.write("\n".join(texts) + "\n")
    elif config.action == "compare":
        _compare(config, sets, base, out)
    elif out is not None and config.action == "convert":
        write(sets[config.files[0]], out, str(config.to))
        _log.info("wrote %s", out)
    elif out is not None:
        tau = _tau(config, *next(iter(sets.items())))
        averaged = average(config.files, list(sets.values()), base, tau=tau, k=config.k)
        averaged.save(out)
        sys.stdout.write(summary(str(out), averaged, tau, config.k) + "\n")


def _tau(config: HeadsetConfig, name: str, head_scores: "HeadScores") -> float:
    """As given, else the scorer's own; sets that are compared or averaged have one scorer."""
    if config.tau is not None:
        return config.tau
    if head_scores.scorer not in TAUS:
        raise InputError(f"{name}: scorer={head_scores.scorer} is not known here; give tau=NUMBER")
    return TAUS[head_scores.scorer]


def _read(name: str, config: HeadsetConfig) -> "HeadScores":
    from sce.headsets.exchange import read

    shape = None if config.shape is None else (config.shape[0], config.shape[1])
    head_scores = read(Path(name), shape=shape)
    if config.action != "convert" and config.k > head_scores.scores.size:
        raise InputError(f"k={config.k}, but {name} has {head_scores.scores.size} heads")
    return head_scores


def _compare(
    config: HeadsetConfig,
    sets: "dict[str, HeadScores]",
    base: "HeadScores | None",
    out: Path | None,
) -> None:
    from sce.headsets.comparing import compare_all
    from sce.headsets.report import as_text, write

    named = None if base is None else (str(config.base), base)
    tau = _tau(config, *next(iter(sets.items())))
    compared = compare_all(sets, named, tau=tau, k=config.k)
    sys.stdout.write(as_text(compared))
    if out is not None:
        write(compared, out)
        _log.info("wrote %s: compare.json, compare.csv, compare.png", out)


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
