"""What other packages say that says nothing about the run."""

import logging
import warnings


def quiet_libraries() -> None:
    """Silence what says nothing about the run: double lines, adverts, others' deprecations."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.WARNING)
    # PEFT imports it where it is installed, and it says that a faster kernel is not.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for message in (
        "`is_gradient_checkpointing` is deprecated",  # PEFT's call into transformers
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's call into torch
        "The '.*_dataloader' does not have many workers",  # examples are encoded beforehand
        "Checkpoint directory .* exists and is not empty",  # a resumed run's own
        "You are using a CUDA device .* that has Tensor Cores",
    ):
        warnings.filterwarnings("ignore", message=message)
