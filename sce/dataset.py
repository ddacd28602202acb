"""python -m sce.dataset: build data sets, look at an example, check one's own questions."""

import gzip
import json
import logging
import os
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from sce.commands import DatasetConfig
from sce.config import CONF, register, typed
from sce.data_options import SPLITS
from sce.errors import InputError
from sce.grid import all_cells
from sce.importing import importing
from sce.one_line import one_line_errors, run
from sce.outputs import require_writable, whole

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sce.data.encode import Encoder
    from sce.data.plan import Plan

register()
_log = logging.getLogger("sce")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="dataset")
@one_line_errors
def main(composed: DictConfig) -> None:
    """Build, show or check."""
    dataset(typed(composed, DatasetConfig))


def dataset(config: DatasetConfig) -> None:
    """Do what was asked for.

    Raises:
        InputError: the user's input is wrong; no file has been written then.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    _require_places(config)
    with importing():
        from sce.data.encode import Encoder
        from sce.data.plan import plan_splits
        from sce.model.source import find, load_tokenizer

    encoder = Encoder(load_tokenizer(find(config.model)))
    if config.action == "grid":
        _grid(config, encoder)
        return
    plan = plan_splits(config.data, encoder, config.seed, SPLITS)
    for path, source in plan.sources.items():
        for line in source.skipped[:5]:
            _log.info("skipped    %s", line)
        if source.skipped:
            _log.info("skipped    %d rows of %s in all", len(source.skipped), path)
    if config.action == "show":
        _show(config, plan, encoder)
    elif config.action == "check":
        _check(config, plan, encoder)
    elif str(config.out).removesuffix(".gz").endswith(".jsonl"):
        _build_jsonl(config, plan, Path(str(config.out)))
    else:
        _build(plan, encoder, Path(str(config.out)))


def _require_places(config: DatasetConfig) -> None:
    """Refuse, before the work is done, what could not be written after it."""
    for option, name in (("out", config.out), ("html", config.html)):
        if name is not None:
            require_writable(f"{option}={name}", Path(name).parent)
    if config.out is not None and Path(config.out).exists():
        raise InputError(f"out={config.out} exists; name another or delete it")
    if config.html is not None and Path(config.html).is_dir():
        raise InputError(f"html={config.html} is a folder; name a file in it")


def _build(plan: "Plan", encoder: "Encoder", out: Path) -> None:
    """Arrow folders of all splits, and their card."""
    from sce.data.build import build_missing, open_splits
    from sce.data.card import as_markdown, auc_of_real_and_high
    from sce.figures import histograms, save_png

    try:
        out.mkdir(parents=True)
    except OSError as error:  # another command may have made it meanwhile
        raise InputError(f"out={out}: {error.strerror}; name another folder") from None
    try:
        splits, overlap = open_splits(build_missing(plan, encoder, out=out))
    except BaseException:  # the corrected command can have the folder
        shutil.rmtree(out, ignore_errors=True)
        raise
    cards = {name: split.card for name, split in splits.items()}
    text = as_markdown(cards, auc_of_real_and_high(plan), overlap)
    save_png(histograms(cards, title=f"{plan.options.task}: {out.name}"), out / "card.png")
    (out / "card.md").write_text(text, encoding="utf-8")
    _log.info(
        "%s\nwrote %s: to train on it, repeat the data options and add data.built=%s",
        text,
        out,
        out,
    )


def _build_jsonl(config: DatasetConfig, plan: "Plan", out: Path) -> None:
    """Example JSONL of one split, whole or not at all."""
    from rich.progress import track

    recipe, quiet = plan.recipes[config.split], not sys.stdout.isatty()
    with (
        whole(out) as part,
        part.open("wb") as raw,
        _packed(raw, out.suffix == ".gz") as stream,
    ):
        for index in track(range(len(recipe)), "building", transient=True, disable=quiet):
            line = json.dumps(recipe.example(index).to_json(), ensure_ascii=False)
            stream.write(f"{line}\n".encode())
    _log.info("wrote %s: %d examples of %s", out, len(recipe), config.split)


def _packed(raw: IO[bytes], packed: bool) -> AbstractContextManager[IO[bytes]]:
    """The stream, or one that compresses into it: without a time, so that bytes repeat."""
    if not packed:
        return nullcontext(raw)
    return gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)  # type: ignore[return-value]


def _show(config: DatasetConfig, plan: "Plan", encoder: "Encoder") -> None:
    from rich.console import Console

    from sce.data.show import rendered

    recipe = plan.recipes[config.split]
    if not 0 <= config.index < len(recipe):
        raise InputError(f"index={config.index}: data.{config.split} has {len(recipe)} examples")
    example = recipe.example(config.index)
    encoded = encoder.encode(example)
    Console().print(rendered(example, encoded, whole=config.whole))
    _export(config.html, rendered(example, encoded, whole=True), example.id, width=110)


def _grid(config: DatasetConfig, encoder: "Encoder") -> None:
    """Example `index` of every cell that the task has."""
    from dataclasses import replace

    from rich.console import Console

    from sce.data.plan import plan_splits
    from sce.data.show import grid

    if config.data.label is not None:
        raise InputError(f"data.label={config.data.label} is no cell of action=grid; leave it")
    cells = {}
    for concept, context in all_cells(config.data.task):
        options = replace(
            config.data,
            concept=concept,
            context=context,
            limited="who" if concept == "limited" else None,
            entity_base=config.data.entity_base if concept == "low_entity" else None,
            **({} if concept == "high" else {"writer": "grammar", "written": None}),
            mix=[],
            num_train=None,
            train=replace(config.data.train, concept=None, context=None),
        )
        recipe = plan_splits(options, encoder, config.seed, ["train"]).recipes["train"]
        if not 0 <= config.index < len(recipe):
            raise InputError(f"index={config.index}: ({concept}, {context}) has {len(recipe)}")
        cells[concept, context] = recipe.example(config.index)
    table = grid(cells, f"{config.data.task}: example {config.index} of every cell")
    Console().print(table)
    _export(config.html, table, config.data.task, width=170)


def _export(name: str | None, content: "RenderableType", title: str, *, width: int) -> None:
    """What was shown, as a page or a picture."""
    if name is None:
        return
    from rich.console import Console
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME

    file = Path(name)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, file=nowhere, width=width, force_terminal=True)
        console.print(content)
        if file.suffix == ".svg":
            text = console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME)
        else:
            text = console.export_html(theme=DEFAULT_TERMINAL_THEME)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"html={name}: cannot be written ({error.strerror})") from None
    _log.info("wrote %s", file)


def _check(config: DatasetConfig, plan: "Plan", encoder: "Encoder") -> None:
    from rich.progress import Progress

    from sce.data.card import auc_of_real_and_high
    from sce.data.check import check_plan

    total = sum(len(recipe) for recipe in plan.recipes.values())
    with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("checking", total=total)
        found = check_plan(plan, encoder, lambda: progress.advance(task))
    for name, recipe in plan.recipes.items():
        cell = config.data.training if name == "train" else recipe.cell
        _log.info("%-10s %d examples of %s", name, len(recipe), ", ".join(cell))
    _log.info("shared     %s%s", plan.overlap, plan.overlap.taken_out)
    for source in plan.sources.values():
        for what, count in source.counts.items():
            _log.info("%-10s %d %s", source.format, count, what)
    auc = auc_of_real_and_high(plan)
    if auc is not None:
        _log.info("AUC        %.3f between real and high needles (0.5: not to be told apart)", auc)
    for line in found.wrong[:20]:
        _log.info("wrong      %s", line)
    if found.wrong:
        raise InputError(
            f"{len(found.wrong)} faults in {found.num_examples} examples, listed above"
        )
    _log.info(
        "checked    %d examples, %d needles: all in place, no answer in what was added, no prompt "
        "over its limit",
        found.num_examples,
        found.num_needles,
    )


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
