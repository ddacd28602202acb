"""What a checkpoint holds besides Lightning's own, so that any strategy can go on from it.

One file: the trained weights by name, the optimiser's moments by the same names (Lightning numbers
them, and each strategy in its own way), loops, loader and callbacks. On disk it is replaced whole.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sce.errors import InputError
from sce.records import RunFacts

SCHEMA = "sce.checkpoint/2"
_COUNTERS = ("ready", "started", "processed", "completed")


def pack(checkpoint: dict[str, Any], net: nn.Module, own: dict[str, Any]) -> None:
    """Turn Lightning's checkpoint into ours, in place.

    Args:
        checkpoint: as Lightning made it; on ranks that write nothing some parts are empty.
        net: the LightningModule.
        own: plain values to keep under "sce".
    """
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: state[name] for name in trained if name in state}
    for optimizer in filter(None, checkpoint["optimizer_states"]):
        ids = [i for group in optimizer["param_groups"] for i in group["params"]]
        names = dict(zip(ids, trained, strict=True))
        optimizer["state"] = {names[i]: moments for i, moments in optimizer["state"].items()}
        for group in optimizer["param_groups"]:
            group["params"] = [names[i] for i in group["params"]]
    checkpoint["sce"] = {"schema": SCHEMA, **own}


def unpack(checkpoint: dict[str, Any], accumulate: int) -> dict[str, Any]:
    """What `pack` kept; counters of micro-batches are those of this run's `accumulate` from now on.

    With as many examples a step, other devices take other numbers of micro-batches to it.
    """
    own = checkpoint["sce"]
    if own["accumulate"] != accumulate:
        loop = checkpoint["loops"]["fit_loop"]
        progress = loop["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            ready = counts["ready"]
            scaled = ready * accumulate // own["accumulate"]
            # Of the batch under way the later counters are one behind, and stay so.
            counts |= {name: scaled - (ready - counts[name]) for name in _COUNTERS}
        for loader in loop["state_dict"]["combined_loader"]:
            loader["batches"] = loader["batches"] * accumulate // own["accumulate"]
        own["accumulate"] = accumulate
    return own


def read(file: Any, known: RunFacts) -> dict[str, Any]:
    """The checkpoint of a run that is to go on, its tensors left on disk.

    Args:
        file: the checkpoint.
        known: the facts of the run as it would go on.

    Raises:
        InputError: it cannot be read, was written by another version, or belongs to another model,
            adapter, data, score or recipe; names what differs.
    """
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        theirs = saved["sce"]["identity"]
    except Exception as error:  # torch raises many kinds for what is no checkpoint
        line = " ".join(str(error).split())[:120]
        raise InputError(f"resume=true: {file} cannot be read ({line})") from None
    schema = saved["sce"].get("schema")
    if schema != SCHEMA:
        raise InputError(
            f"resume=true: {file} is of another version of sce ({schema}, not {SCHEMA}); go on "
            "with the version that wrote it, or start anew"
        )
    # Another version may have noted other options, so that comes first.
    ordered = sorted(known.identity.items(), key=lambda item: not item[0].startswith("version"))
    for name, value in ordered:
        if theirs.get(name) != value:
            again = f"repeat the options it was started with ({known.run_dir}/config.yaml)"
            if name.startswith("version"):
                again = "go on with the version of sce that began it, or start anew"
            raise InputError(
                f"resume=true: the run has {name}={theirs.get(name)}, this command {name}={value}; "
                f"{again}"
            )
    return saved


@cache
def code_sha256() -> str:
    """Identity of the code that takes a step: what the model computes, in which order, and how."""
    folder = Path(__file__).parent
    names = ("module", "optimizer", "parallel", "checkpoint", "data/batch", "data/loader")
    files = [*(folder / f"{name}.py" for name in names), *sorted((folder / "model").glob("*.py"))]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()
