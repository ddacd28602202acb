"""Training speed and memory against TRL's SFTTrainer and against this machine's own roofline.

    python tests/bench/training.py [--small] [--json OUT] [--recompute]

Our step is the whole one that `sce.train` takes (Lightning's Trainer around SceModule), TRL's the
whole one of `SFTTrainer.train`: same model, adapter (LoRA r 8 on attention, float32), base in
bfloat16, token ids, loss positions, clipping and AdamW. The first step's losses stand side by side:
they show that both do the same. Each configuration runs in a process of its own, in alternating
order, and its first step does not count.

Roofline: what the training FLOPs of `callbacks.throughput` would take at the rate of this machine's
own matrix products at the model's own shapes (x Wt and dy W of every linear layer, bfloat16),
measured in the same process before and after training, the faster counting. Needs: pip install trl.
"""

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import machine
import torch
from timing import seconds
from torch import nn
from workload import adapted_model, encoded

LENGTHS, SMALL = (512, 1024, 2048, 4096), (48, 96)
COLUMNS = (
    "tokens ours_tokens_per_s trl_tokens_per_s ours_/_trl ours_peak_gib trl_peak_gib "
    "matmul_gflops of_roofline first_losses"
).split()


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Every length, ours and TRL's in turns."""
    rows = []
    for tokens in SMALL if options.small else LENGTHS:
        runs: dict[str, list[dict]] = {"ours": [], "trl": []}
        for turn in range(1 if options.small else options.rounds):
            for kind in ("ours", "trl") if turn % 2 == 0 else ("trl", "ours"):
                spec = {
                    "kind": kind,
                    "tokens": tokens,
                    "batch": options.batch,
                    "steps": 3 if options.small else options.steps,
                    "recompute": options.recompute,
                    "model": options.model,
                }
                runs[kind].append(machine.isolated(__file__, spec))
        rows.append(_row(tokens, runs))
        machine.print_table(f"{tokens} tokens, batch {options.batch}", rows[-1:], COLUMNS)
    machine.print_table("training", rows, COLUMNS)
    return {"rows": rows, "aims": [] if options.small else _aims(rows)}


def _row(tokens: int, runs: dict[str, list[dict]]) -> dict[str, Any]:
    """One length: medians of all timed steps, the largest peaks, every run as it came."""
    row: dict[str, Any] = {"tokens": tokens, "runs": runs}
    done = {kind: [r for r in found if "error" not in r] for kind, found in runs.items()}
    for kind, found in done.items():
        if found:
            step = statistics.median(s for r in found for s in r["seconds"])
            row[f"{kind}_tokens_per_s"] = found[0]["num_tokens"] / step
            row[f"{kind}_peak_gib"] = max(r["peak_gib"] for r in found)
            row[f"{kind}_loaded_gib"] = found[0]["loaded_gib"]
    if done["ours"]:
        flops = done["ours"][0]["flops_per_token"]
        rate = max(r["matmul_gflops"] for r in done["ours"])
        row |= {"matmul_gflops": rate, "flops_per_token": flops}
        row["of_roofline"] = row["ours_tokens_per_s"] * flops / (rate * 1e9)
    if all(done.values()):
        row["ours_/_trl"] = row["ours_tokens_per_s"] / row["trl_tokens_per_s"]
        losses = [found[0]["losses"][0] for found in done.values()]
        row["first_losses"] = " / ".join(f"{loss:.4f}" for loss in losses)
    errors = [r["error"] for found in runs.values() for r in found if "error" in r]
    return row | ({"error": errors[0]} if errors else {})


def _aims(rows: list[dict]) -> list[dict]:
    by = {row["tokens"]: row for row in rows}
    ours, theirs = (by[2048].get(f"{kind}_peak_gib") for kind in ("ours", "trl"))
    more = ours / theirs if ours and theirs else None
    return [
        machine.aim("ours / TRL, tokens/s at 2K", by[2048].get("ours_/_trl"), least=1.5),
        machine.aim("ours / TRL, peak memory at 2K", more, most=1.0),
        machine.aim("share of the roofline at 512", by[512].get("of_roofline"), least=0.7),
    ]


# -- one configuration, in a process of its own ---------------------------------------------------


def worker(spec: dict[str, Any]) -> dict[str, Any]:
    """Train a few steps, and say how long each took after the first."""
    torch.manual_seed(0)
    model = adapted_model(spec["model"], recompute=spec["recompute"])
    num_tokens = spec["tokens"] * spec["batch"]
    wants_rate = spec["kind"] == "ours" and spec.get("roofline", True)
    rates = [matmul_rate(model, num_tokens)] if wants_rate else []
    loaded = machine.forget_peak()
    train = {"ours": train_ours, "trl": train_trl}[spec["kind"]]
    ends, losses = train(model, spec)
    found = {
        "seconds": [b - a for a, b in pairwise(ends)],
        "losses": losses,
        "num_tokens": num_tokens,
        "peak_gib": machine.peak_gib(),
        "loaded_gib": loaded,
    }
    if rates:
        from callbacks.throughput import training_flops

        rates.append(matmul_rate(model, num_tokens))
        lengths = [spec["tokens"]] * spec["batch"]
        found["matmul_gflops"] = max(rates) / 1e9
        found["flops_per_token"] = training_flops(model, lengths) / num_tokens
    return found


def examples(spec: dict[str, Any]) -> list[list[Any]]:
    """One list of examples a step; prompt and answer together have `tokens` tokens."""
    target, size = 8, spec["batch"]
    return [
        [encoded(step * size + n, spec["tokens"] - target, target) for n in range(size)]
        for step in range(spec["steps"])
    ]


def train_ours(
    model: nn.Module, spec: dict[str, Any], *, accelerator: str = "cpu", strategy: Any = "auto"
) -> tuple[list[float], list[float]]:
    """When each step of ours ended, and its mean loss."""
    import lightning as L
    from torch.utils.data import DataLoader

    from sce.data.batch import collate
    from sce.decode import DecodeSettings
    from sce.module import SceModule
    from sce.options import OptimizerOptions

    ends: list[float] = []
    losses: list[float] = []

    class Clock(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            ends.append(time.perf_counter())
            losses.append(float(trainer.callback_metrics["train/loss"]))

    module = SceModule(
        lambda: model,
        str,
        optimizer=OptimizerOptions(),
        settings=DecodeSettings(scorers=()),
        facts=_facts(),
    )
    trainer = L.Trainer(
        accelerator=accelerator,
        strategy=strategy,
        devices=1,
        max_steps=spec["steps"],
        gradient_clip_val=1.0,
        callbacks=[Clock()],
        logger=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model.train()
    steps = [collate(step) for step in examples(spec)]
    trainer.fit(module, DataLoader(steps, batch_size=None))  # type: ignore[arg-type]
    return ends, losses


def _facts() -> Any:
    """A run that is nobody's."""
    from sce.records import RunFacts

    names = (
        "run concept context train_sha256 eval_sha256 reference_sha256 prompt_sha256 "
        "weights_sha256 scorer mode match"
    )
    empty: dict[str, Any] = dict.fromkeys(names.split(), "")
    return RunFacts(
        **empty,
        run_dir=Path(),
        seed=0,
        task="mdqa",
        tau=0.1,
        k=20,
        context_tokens=0,
        shape=(1, 1),
    )


def train_trl(model: nn.Module, spec: dict[str, Any]) -> tuple[list[float], list[float]]:
    """The same of TRL's SFTTrainer, under transformers' own SDPA, rows in the same order."""
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **rest) -> None:
            ends.append(time.perf_counter())

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, train_dataset=None) -> SequentialSampler:
            return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]

    model.set_attn_implementation("sdpa")  # type: ignore[operator]
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=spec["batch"],
            max_steps=spec["steps"],
            learning_rate=1e-3,
            max_grad_norm=1.0,
            weight_decay=0.0,
            bf16=False,  # the base is in bfloat16 already; no autocast, as in ours
            gradient_checkpointing=spec["recompute"],
            gradient_checkpointing_kwargs={"use_reentrant": False},
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = InOrder(
            model=model,  # type: ignore[arg-type]
            args=arguments,
            train_dataset=_rows(spec),
            processing_class=_tokenizer(spec["model"]),
            callbacks=[Clock()],
        )
        trained = {p.dtype for p in trainer.model.parameters() if p.requires_grad}  # type: ignore
        if trained != {torch.float32}:
            raise RuntimeError(f"SFTTrainer made the adapter {trained}; ours is float32")
        trainer.train()
    return ends, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def _rows(spec: dict[str, Any]) -> Any:
    """Token ids and labels: the loss is on the answer and its end alone, as ours is."""
    from datasets import Dataset

    rows = []
    for example in (example for step in examples(spec) for example in step):
        answer = [*example.target_ids.tolist(), example.end_id]
        prompt = example.prompt_ids.tolist()
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return Dataset.from_list(rows)


def _tokenizer(name: str) -> Any:
    from sce.model.source import find, load_tokenizer
    from sce.options import ModelOptions

    return load_tokenizer(find(ModelOptions(name_or_path=name)))


def matmul_rate(model: nn.Module, rows: int, repeats: int = 5) -> float:
    """FLOPs a second of this machine's matrix products at the shapes of one decoder layer."""
    shapes = _layer_shapes(model)
    flops = spent = 0.0
    for outputs, inputs in shapes:
        weight = torch.randn(outputs, inputs, dtype=torch.bfloat16)
        x, dy = (torch.randn(rows, n, dtype=torch.bfloat16) for n in (inputs, outputs))
        for product in (lambda: x @ weight.T, lambda: dy @ weight):  # noqa: B023 - run at once
            product()
            spent += statistics.median(seconds(product) for _ in range(repeats))
            flops += 2.0 * rows * outputs * inputs
    return flops / spent


def _layer_shapes(model: nn.Module) -> list[tuple[int, int]]:
    """(out, in) of every frozen linear weight of one layer: those of a like name count once."""
    shapes: dict[str, tuple[int, int]] = {}
    for name, p in model.named_parameters():
        if p.ndim == 2 and not p.requires_grad and ".layers." in name:
            rest = name.split(".layers.", 1)[1].split(".", 1)[1]
            shapes[rest] = (p.shape[0], p.shape[1])
    return list(shapes.values())


def add(parser: argparse.ArgumentParser) -> None:
    """Options of this bench alone."""
    parser.add_argument("--batch", type=int, default=2, help="examples a step")
    parser.add_argument("--steps", type=int, default=4, help="steps a run, the first not counted")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each configuration")
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing, in both")


if __name__ == "__main__":
    machine.run(__doc__ or "", bench, worker, add)
