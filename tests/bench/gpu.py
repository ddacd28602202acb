"""One GPU in one call of under ten minutes: checks first, then what an 8B model does on it.

    python tests/bench/gpu.py [--tiny] [--weights NAME_OR_PATH] [--json OUT] [--minutes 9]
                              [--parts NAME ...]

Needs torch, transformers, peft, numpy and this repository, which need not be installed. hydra,
wandb and the packages that read data may be absent (tests/bench/bare.py); without lightning the
check of DDP and FSDP is skipped, without flash-attn that of flash, without bitsandbytes the longest
context in 4 bits, each with a line that says so. That one takes longest: `--parts "longest context,
nf4"` in a call of its own.

Figures are of a model of Llama-3-8B's shape with random weights in bfloat16, LoRA of rank 8 on
attention, one example a step: tokens/s, MFU (the FLOPs of sce.model.flops over this GPU's peak in
bfloat16; HFU counts recomputation too), peak memory. Each part prints as it comes and has a budget
of time; one that fails (out of memory, say) leaves the others alone. `--json` is written anew after
every part. `--tiny` runs every line on a tiny model, on the CPU too. Exit status 1: a check failed;
a figure that failed is in the output alone.
"""

import argparse
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import bare  # noqa: E402 - the repository need not be installed
import machine  # noqa: E402
import torch  # noqa: E402

with bare.stand_ins() as STOOD_IN:
    import gpu_checks as checks
    import gpu_figures as figures
    import gpu_longest as longest
    from gpu_figures import Bench

Part = tuple[str, float, Callable[[Bench], Any]]
"""Name, seconds it may take, and what it runs."""


def main() -> int:
    """Run all parts; 1 if a check failed."""
    options = _options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not options.tiny:
        print("no GPU: nothing to measure; --tiny runs every line on the CPU")
        return 2
    config = checks.llama() if options.tiny else figures.llama3_8b()
    end = time.perf_counter() + 60 * options.minutes
    bench = Bench(device, figures.TINY if options.tiny else figures.Sizes(), end, config)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    bench.found = {"machine": machine.machine(), "tiny": options.tiny, "failed": []}
    print(bench.found["machine"], flush=True)
    if STOOD_IN:
        print(f"not installed and not needed: {', '.join(STOOD_IN)}")
    parts = _parts(options)
    if unknown := set(options.parts or ()) - {name for name, _, _ in parts}:
        print(f"no such part: {', '.join(sorted(unknown))}; there are {[p[0] for p in parts]}")
        return 2
    for name, budget_s, part in parts:
        # Nearly all figures are of the model that this part makes.
        if options.parts and name not in (*options.parts, "model"):
            continue
        _run(bench, name, budget_s, part)
        machine.save(options.json, bench.found)
    machine.print_aims(_aims(bench.found))
    ran = [name for name in bench.found if name.startswith("check")]
    failed = [name for name in ran if name in bench.found["failed"]]
    told = f"FAILED: {', '.join(failed)}" if failed else f"{len(ran)} run, all passed"
    print(f"checks: {told if ran else 'none was asked for'}", flush=True)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a tiny model: to see that it runs")
    parser.add_argument("--weights", help="real weights to train 30 steps, as model.name_or_path")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="these alone")
    parser.add_argument("--minutes", type=float, default=9.0, help="when to stop")
    return parser.parse_args()


def _parts(options: argparse.Namespace) -> list[Part]:
    """Checks, then figures."""
    dtype = torch.bfloat16
    torch.set_float32_matmul_precision("highest")  # some images come with TensorFloat-32 on
    parts: list[Part] = [
        ("check: backends, bfloat16", 60, lambda b: checks.backends(b.device, dtype)),
        ("check: backends, float32", 30, lambda b: checks.backends(b.device, torch.float32)),
        ("check: learning", 30, lambda b: checks.learning(b.device)),
    ]
    if options.weights:
        weights = options.weights
        parts.append(("check: weights", 60, lambda b: checks.learning_of(weights, b.device)))
    return [
        *parts,
        ("check: strategies", 90, lambda b: checks.strategies(b.device)),
        ("matrix products", 10, figures.matrix_products),
        ("model", 60, figures.load),
        ("training, selective", 60, lambda b: figures.training(b, "selective")),
        ("training, full", 60, lambda b: figures.training(b, "full")),
        ("scoring", 60, figures.scoring),
        ("decoding", 60, figures.decoding),
        ("longest context", 240, longest.bfloat16),
        ("longest context, nf4", 400, longest.nf4),
        ("check: liger", 30, lambda b: checks.fused(b.device)),
    ]


def _run(bench: Bench, name: str, budget_s: float, part: Callable[[Bench], Any]) -> None:
    """One part, printed; its failure is noted and ends nothing else."""
    if bench.left() < 5:
        print(f"\n{name}: skipped, no time left", flush=True)
        bench.found[name] = {"skipped": "no time left"}
        return
    print(f"\n{name}", flush=True)
    end, started = bench.end, time.perf_counter()
    bench.end = min(end, started + budget_s)
    try:
        bench.found[name] = found = part(bench)
    except Exception as error:  # out of memory has many types
        traceback.print_exc(limit=-3, file=sys.stdout)
        bench.found[name] = found = {"error": f"{type(error).__name__}: {error}"[:300]}
        bench.found["failed"].append(name)
    bench.end = end
    bench.forget()
    print(f"  {time.perf_counter() - started:.1f} s", flush=True)
    for line in found if isinstance(found, list) else [found]:
        if not isinstance(line, dict) or line is found:  # rows have been printed as they came
            print(f"  {line}", flush=True)


def _aims(found: dict[str, Any]) -> list[dict]:
    """What is aimed at on a GPU of 140 GiB, beside what was found."""

    def at_32k(part: str, name: str) -> float | None:
        rows = found.get(part)
        rows = rows if isinstance(rows, list) else []
        return next((r.get(name) for r in rows if r.get("tokens") == 32_768), None)

    def most_tokens(part: str) -> int | None:
        row = found.get(part)
        return row.get("longest") if isinstance(row, dict) else None

    ratio = found.get("decoding", {}).get("generate_/_scores")
    speed, scored = "training, selective", at_32k("scoring", "extrapolated_s_of_100")
    return [
        machine.aim("tokens/s at 32K, selective", at_32k(speed, "tokens_per_s"), least=7500),
        machine.aim("peak GiB at 32K, selective", at_32k(speed, "peak_gib"), most=60),
        machine.aim("longest context that trains", most_tokens("longest context"), least=131_072),
        machine.aim("the same in nf4", most_tokens("longest context, nf4"), least=262_144),
        machine.aim(
            "scoring's share of a training hour at 32K",
            at_32k("scoring", "share_of_a_training_hour"),
            most=0.03,
        ),
        machine.aim("seconds for 100 examples scored at 32K", scored, most=300),
        machine.aim("generate / decoding with scores", ratio, least=1.0),
    ]


if __name__ == "__main__":
    sys.exit(main())
