"""bfloat16 on a CPU: products in float32 against torch's own, and against a model in float32.

    python tests/bench/bfloat16.py [--small] [--json OUT]

Without instructions for bfloat16 torch's own are emulated, and `sce` takes float32's; with them it
does not, and the ratios say what that spares. What is compared runs in one process, round by round.
"""

import argparse
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import machine
import torch
from timing import paired
from workload import adapted_model, batch

from sce.decode import DecodeSettings, decode
from sce.model import bfloat16
from sce.model.backends import emulates_bfloat16

COLUMNS = "kind against ratio low high on_s off_s rounds".split()


@contextmanager
def emulation(*, on: bool):
    """The CPU taken for one without the instructions, or for one with them."""
    found = bfloat16.emulates_bfloat16
    bfloat16.emulates_bfloat16 = lambda: on
    yield
    bfloat16.emulates_bfloat16 = found


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """A training step and a greedy scoring pass, by our products and by the others."""
    size, tokens, rounds = (2, 96, 2) if options.small else (2, 1024, 3)
    rows = []
    for kind in KINDS:
        for against in ("torch's bfloat16", "float32"):
            spec = {"kind": kind, "against": against, "size": size, "tokens": tokens}
            found = machine.isolated(__file__, spec | {"rounds": rounds, "model": options.model})
            rows.append(spec | found)
            machine.print_table(f"{kind}, {size} x {tokens} tokens", rows[-1:], COLUMNS)
    return {"emulated_here": emulates_bfloat16(), "rows": rows}


def worker(spec: dict[str, Any]) -> dict[str, Any]:
    """Rounds of one kind against one other."""
    data, run = batch(spec["size"], spec["tokens"]), KINDS[spec["kind"]]
    ours, other = adapted_model(spec["model"]), adapted_model(spec["model"])
    bfloat16.emulate(ours)
    if spec["against"] == "float32":
        other = other.float()
    on, off = run(ours, data, emulated=True), run(other, data, emulated=False)
    return asdict(paired(spec["rounds"], on, off))


def _step(model: Any, data: Any, *, emulated: bool) -> Callable[[], object]:
    def run() -> None:
        with emulation(on=emulated):
            model(**data.inputs, use_cache=False).logits.sum().backward()
        model.zero_grad()

    return run


def _pass(model: Any, data: Any, *, emulated: bool) -> Callable[[], object]:
    settings = DecodeSettings(max_new_tokens=16, fixed_steps=True, scorers=("copy",))

    def run() -> None:
        with emulation(on=emulated), torch.no_grad():
            decode(model, data, settings)

    return run


KINDS = {"training step": _step, "scoring pass": _pass}


if __name__ == "__main__":
    machine.run(__doc__ or "", bench, worker)
