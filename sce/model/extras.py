"""What optional packages add: 4-bit weights (bitsandbytes), fused kernels (liger-kernel).

Asked for and not to be had is an error, in one line, before any weights load.
"""

import os
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from sce.errors import InputError
from sce.options import LoraOptions, ModelOptions


def require_usable(options: ModelOptions, lora: LoraOptions | None, *, on_gpu: bool) -> None:
    """Refuse options that this run cannot have.

    Args:
        options: of the model.
        lora: of its tuning; None: it is not tuned.
        on_gpu: whether the model will run on a GPU.

    Raises:
        InputError: a package or a GPU is lacking, or two options exclude each other.
    """
    if options.quantization is not None:
        _require("model.quantization=nf4", "bitsandbytes", "nf4", on_gpu=on_gpu)
        if lora is not None and lora.name == "none":
            raise InputError(
                "lora=none tunes the attention weights themselves, and 4-bit weights cannot be "
                "tuned; use lora=attention, or leave model.quantization out"
            )
    if options.liger:
        _require("model.liger=true", "liger_kernel", "liger", on_gpu=on_gpu)


def _require(option: str, package: str, extra: str, *, on_gpu: bool) -> None:
    if not on_gpu:
        raise InputError(f"{option} needs a GPU, and this run is on the CPU; leave it out")
    if find_spec(package) is None:
        raise InputError(f"{option} needs the package {package}: pip install 'sce[{extra}]'")


def quantized(options: ModelOptions) -> dict[str, Any]:
    """What `from_pretrained` is told of quantisation; nothing where there is none."""
    if options.quantization is None:
        return {}
    # Lightning sets the device later; its own launcher's first process has no number yet.
    local_rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": local_rank}}


def fuse(model: PreTrainedModel) -> None:
    """Liger's norms and rotary embedding in the places of the model's own.

    Its losses stay out: lm_head runs on the answer's few rows alone.

    Raises:
        InputError: liger-kernel does not know the architecture.
    """
    from liger_kernel.transformers import monkey_patch  # pyright: ignore[reportMissingImports]

    kind = model.config.get_text_config().model_type
    apply = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN.get(kind)
    if apply is None:
        raise InputError(f"model.liger=true: liger-kernel has nothing for {kind}; leave it out")
    accepted = apply.__code__.co_varnames[: apply.__code__.co_argcount]
    wanted = {
        **{"rope": True, "rms_norm": True, "layer_norm": False, "swiglu": False, "geglu": False},
        **{"cross_entropy": False, "fused_linear_cross_entropy": False},
    }
    try:
        apply(model=model, **{name: on for name, on in wanted.items() if name in accepted})
    except NotImplementedError as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"model.liger=true: not for {kind} ({line}); leave it out") from None
