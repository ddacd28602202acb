"""python -m sce.write: documents about invented facts, written by a language model.

options -> facts -> server, through the cache -> checks, and asked again -> Example JSONL -> table
"""

import asyncio
import gzip
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from sce.config import CONF, register, typed
from sce.errors import InputError
from sce.one_line import one_line_errors, run
from sce.outputs import require_writable, whole
from sce.write_options import WriteConfig

if TYPE_CHECKING:
    from sce.data.example import Example
    from sce.passages import Fact, Names, Passage
    from sce.writing import Counts, Reply, Server

register()
_log = logging.getLogger("sce")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="write")
@one_line_errors
def main(composed: DictConfig) -> None:
    """Write one file."""
    config = typed(composed, WriteConfig)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    try:
        write(config)
    except KeyboardInterrupt:
        _log.info("stopped; what was answered is kept, the same command goes on from there")
        sys.exit(130)


def write(config: WriteConfig) -> "Counts":
    """Write as configured; returns what became of every item.

    Raises:
        InputError: the user's input is wrong, `out` exists, the server cannot be used, or nothing
            was accepted. No file has been written then.
    """
    from sce.writing import Counts, opened_cache

    out = Path(config.out)
    _refuse_existing(out, config.overwrite)
    require_writable(f"out={out}", out.parent)
    counts = Counts(config.num_documents)
    try:
        with opened_cache(config.cache) as cache, _progress(config, counts) as changed:
            written = asyncio.run(_write_all(config, cache, counts, changed))
    finally:
        if counts.answered or counts.cached or counts.failed:
            _log.info(table(config, counts))
    if not written:
        raise InputError(
            f"none of {counts.num_items} documents was accepted ({spent(config, counts)}), so "
            f"{out} was not written; {_advice(counts)}"
        )
    save(written, out, overwrite=config.overwrite)
    if counts.accepted < counts.num_items:
        _log.info(
            "NOT ALL: %d of %d documents are missing; %s",
            counts.num_items - counts.accepted,
            counts.num_items,
            _advice(counts),
        )
    _log.info("wrote %s: %d documents, %s", config.out, counts.accepted, spent(config, counts))
    return counts


async def _write_all(
    config: WriteConfig, cache: Any, counts: "Counts", changed: Callable[[], None]
) -> "list[Example]":
    """The accepted documents, in the order of their items, whichever was answered first."""
    from sce.passages import Names, fact_of
    from sce.writing import Server

    facts = [fact_of(config.seed, index) for index in range(config.num_documents)]
    names = Names(facts)
    counts.taken = len(names.taken)
    asked = ((i, fact) for i, fact in enumerate(facts) if i not in names.taken)
    async with Server(config, cache, counts, changed) as server:
        writer = _Writer(config, server, names, counts, changed)
        workers = [asyncio.create_task(writer.work(asked)) for _ in range(config.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return [writer.written[index] for index in sorted(writer.written)]


@dataclass
class _Writer:
    """Asks for one item after another until each is accepted or given up."""

    config: WriteConfig
    server: "Server"
    names: "Names"
    counts: "Counts"
    changed: Callable[[], None]
    written: "dict[int, Example]" = field(default_factory=dict)

    async def work(self, items: "Iterator[tuple[int, Fact]]") -> None:
        """One of the workers that share `items`."""
        for index, fact in items:
            await self._item(index, fact)
            self.changed()

    async def _item(self, index: int, fact: "Fact") -> None:
        from sce.passages import example, prompt

        found: Passage | str | None = None
        for attempt in range(1, self.config.attempts + 1):
            text = prompt(fact, self.config.words, found)
            # A failed request ends the item: with another attempt in its place, the run that asks
            # for this one again would not be the same run.
            reply = await self.server.reply(text, attempt)
            if reply is None:
                return
            found = self._judge(reply, index, fact)
            if not isinstance(found, str):
                meta = {"model": self.config.llm, "attempt": attempt}
                self.written[index] = example(index, fact, found, self.config.seed, meta)
                self.counts.accepted += 1
                return
            self.counts.rejected[found] += 1
        self.counts.given_up += 1

    def _judge(self, reply: "Reply", index: int, fact: "Fact") -> "Passage | str":
        from sce.passages import CUT, LEAK, passage

        if reply.finish_reason != "stop":
            return CUT
        found = passage(reply.text, fact, self.config.word_limits())
        if not isinstance(found, str) and self.names.leak(found.text, index):
            return LEAK
        return found


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise InputError(f"out={out} is a folder; name a file")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; name another file, or replace it by overwrite=true")


def save(examples: "list[Example]", out: Path, *, overwrite: bool) -> None:
    """Write Example JSONL, read it back, and only then put it in place."""
    from sce.data.example import Example

    lines = "".join(json.dumps(e.to_json(), ensure_ascii=False) + "\n" for e in examples)
    content = lines.encode()
    if out.suffix == ".gz":
        content = gzip.compress(content, mtime=0)  # the same documents are the same file
    with whole(out) as part:
        part.write_bytes(content)
        stored = part.read_bytes()
        text = (gzip.decompress(stored) if out.suffix == ".gz" else stored).decode()
        again = [Example.from_json(json.loads(line)) for line in text.split("\n")[:-1]]
        assert again == examples
        _refuse_existing(out, overwrite)


@contextmanager
def _progress(config: WriteConfig, counts: "Counts") -> Iterator[Callable[[], None]]:
    """Gives what to call on a change: it moves a bar or, in a log, adds a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    no_bar = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=no_bar) as bar:
        task = bar.add_task("", total=counts.num_items)
        tenths = 0

        def changed() -> None:
            nonlocal tenths
            said = f"{counts.accepted} accepted, {spent(config, counts)}"
            bar.update(task, completed=counts.done, description=said)
            reached = 10 * counts.done // counts.num_items
            if no_bar and reached > tenths:
                tenths = reached
                _log.info("%d of %d through, %s", counts.done, counts.num_items, said)

        yield changed


def spent(config: WriteConfig, counts: "Counts") -> str:
    """Tokens of this run, and their cost where prices are given."""
    text = f"{counts.prompt_tokens + counts.completion_tokens:,} tokens"
    if config.price_input is None or config.price_output is None:
        return text
    cost = (
        counts.prompt_tokens * config.price_input + counts.completion_tokens * config.price_output
    )
    return f"{text}, cost {cost / 1e6:.4f}"


def table(config: WriteConfig, counts: "Counts") -> str:
    """What became of items, answers and requests."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [
        ("documents asked for", counts.num_items),
        ("  accepted", counts.accepted),
        ("  given up after the last attempt", counts.given_up),
        ("  left out, an earlier one has their name", counts.taken),
        ("  left out, their request failed", counts.failed.total()),
        *((f"    {what}", number) for what, number in counts.failed.most_common()),
        ("answers of the server", counts.answered),
        ("answers from the cache", counts.cached),
        ("answers rejected", counts.rejected.total()),
        *((f"  {reason}", number) for reason, number in counts.rejected.most_common()),
        ("prompt tokens", counts.prompt_tokens),
        ("answer tokens", counts.completion_tokens),
    ]
    shown = Table("", "", box=SIMPLE, show_header=False)
    shown.columns[1].justify = "right"
    for label, number in rows:
        shown.add_row(Text(label), f"{number:,}")
    _, _, cost = spent(config, counts).partition(", cost ")
    if cost:
        shown.add_row("cost", cost)
    text = StringIO()
    console = Console(file=text, width=100, force_terminal=False)
    console.print(f"written by {config.llm}", markup=False, highlight=False, soft_wrap=True)
    console.print(shown)
    return text.getvalue().rstrip()


def _advice(counts: "Counts") -> str:
    """What to do about documents that are missing."""
    advice = []
    if counts.given_up:
        reason = counts.rejected.most_common(1)[0][0]
        advice.append(f"most were rejected for: {reason} (a larger model, or more attempts)")
    if counts.failed:
        advice.append("requests failed: the same command with overwrite=true asks these again")
    if counts.taken:
        advice.append("a name was taken: ask for more documents")
    return "; ".join(advice)


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
