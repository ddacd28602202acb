"""The one door to Hugging Face models and to PEFT: from options to a model to train or score."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from sce.errors import InputError
from sce.model import extras, rope
from sce.model.attention import Choice
from sce.model.bfloat16 import emulate
from sce.model.full_tuning import TUNED_FILE, load_tuned, save_tuned, tune_attention, tuned_weights
from sce.model.layers import wrap_layers
from sce.model.source import OUTSIDE, Source, explained, load_config
from sce.model.targets import is_target, targets
from sce.options import LoraOptions, ModelOptions

SCE_FILE = "sce.json"


def load_model(source: Source, options: ModelOptions, attention: Choice) -> PreTrainedModel:
    """The frozen base model, its RoPE changed before the weights load.

    Raises:
        InputError: the model is gated, absent, has no rotary embedding to change, or cannot take
            the attention interface or an option.
    """
    config = load_config(source)
    own = rope.own_scaling(config)
    if options.rope_theta is not None:
        rope.set_rope_theta(config, options.rope_theta)
    scaling = rope.resolved(options.scaling, config)
    if options.scaling is not None:
        rope.set_rope_scaling(config, options.scaling)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    with explained(source, "weights"):
        model = AutoModelForCausalLM.from_pretrained(
            source.location,
            revision=source.revision,
            config=config,
            dtype=getattr(torch, options.dtype),
            attn_implementation=attention.implementation,
            use_safetensors=True,
            **extras.quantized(options),
        )
    if bars:
        transformers_logging.enable_progress_bar()
    if not model._can_set_attn_implementation():
        raise InputError(f"model.name_or_path={source.name}: {OUTSIDE}")
    theta = rope.rope_theta(config)
    if theta is not None and (options.rope_theta is not None or scaling is not None):
        rope.check_tables(model, theta, scaling or own)
    if options.liger:
        extras.fuse(model)
    model.requires_grad_(False)
    if attention.emulated:
        emulate(model)
    wrap_layers(model, options)
    lm_head = model.get_output_embeddings()
    if lm_head is not None:
        lm_head.register_forward_pre_hook(_as_rows)
    return model


def _as_rows(lm_head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The answer's columns side by side: of a slice torch's matmul copies the weight per example.

    With 49,152 tokens and two examples of 512 that was 15% of a training step.
    """
    del lm_head
    hidden, *rest = inputs
    return (hidden.contiguous(), *rest)


def tune(model: PreTrainedModel, options: LoraOptions) -> nn.Module:
    """What is trained: an adapter on the model, or with lora=none its own attention weights.

    Raises:
        InputError: nothing to tune by a known name.
    """
    return tune_attention(model, options) if options.name == "none" else add_lora(model, options)


def add_lora(model: PreTrainedModel, options: LoraOptions) -> PeftModel:
    """A float32 adapter on the model's projections, its A drawn from torch's global generator.

    Raises:
        InputError: no projection by a known name.
    """
    present = targets(model, options)
    adapted = [m for n, m in model.named_modules() if any(is_target(n, t) for t in present)]
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules=present,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in adapted),
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return peft_model.train()  # type: ignore[return-value]


def read_adapter_note(folder: Path) -> dict:
    """What sce wrote beside an adapter: base model, RoPE change, hashes, scores. Empty if nothing.

    Raises:
        InputError: `folder` holds no adapter, or the note is not JSON.
    """
    if not any((folder / name).is_file() for name in ("adapter_config.json", TUNED_FILE)):
        raise InputError(f"adapter={folder}: no adapter_config.json in it, and no {TUNED_FILE}")
    note = folder / SCE_FILE
    if not note.is_file():
        return {}
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{note}: not JSON ({error.msg})") from None


def fit_options_to_adapter(options: ModelOptions, source: Source, folder: Path) -> None:
    """Take the adapter's RoPE over, and refuse an adapter of another base model.

    Raises:
        InputError: the adapter was tuned on other weights, or with another RoPE than asked for.
    """
    note = read_adapter_note(folder)
    expected = note.get("weights_sha256")
    if expected and expected != source.sha256:
        raise InputError(
            f"adapter={folder}: tuned on weights {expected[:12]}, but {source.name} is "
            f"{source.sha256[:12]}; name the base model it was tuned on"
        )
    config, tuned = load_config(source), note.get("rope") or {}
    theta, own = tuned.get("theta"), rope.rope_theta(config)
    if theta is not None and options.rope_theta is None and theta != own:
        options.rope_theta = float(theta)
    used = options.rope_theta or own
    if theta is not None and used != theta:
        raise InputError(
            f"adapter={folder}: tuned with rope_theta={theta:g}, not {used:g}; "
            "leave model.rope_theta out"
        )
    scaling = rope.recorded_scaling(tuned)
    if options.rope_scaling is None:
        options.rope_scaling = scaling
    given = rope.resolved(options.scaling, config)
    if tuned and given != scaling:
        raise InputError(
            f"adapter={folder}: tuned with rope_scaling={scaling}, not {given}; "
            "leave model.rope_scaling out"
        )


def load_adapter(model: PreTrainedModel, folder: Path) -> nn.Module:
    """The model with a saved adapter on it, or with its tuned weights in it, in float32.

    Raises:
        InputError: the folder holds neither in safetensors, or one of another shape.
    """
    if require_whole(folder).name == TUNED_FILE:
        with fitted(f"adapter={folder}"):
            return load_tuned(model, folder)
    with fitted(f"adapter={folder}"), warnings.catch_warnings():
        # Of a name that PEFT still calls transformers by.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        return PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=True)


def require_whole(folder: Path) -> Path:
    """The file of an adapter's weights, or of tuned ones, if nothing of it is missing.

    Raises:
        InputError: the folder holds neither in safetensors, or it was not copied whole.
    """
    file = folder / TUNED_FILE
    if not file.is_file():
        file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise InputError(f"adapter={folder}: no {file.name} in it")
    with fitted(f"adapter={folder}"), safe_open(file, "pt"):
        return file


@contextmanager
def fitted(option: str) -> Iterator[None]:
    """Say in one line that saved weights are damaged, or of another model.

    Args:
        option: what the user gave: "adapter=FOLDER".

    Raises:
        InputError: the body failed to load them.
    """
    try:
        yield
    except InputError:
        raise
    except SafetensorError as error:
        raise InputError(
            f"{option}: its weights are damaged or were not copied whole ({error})"
        ) from None
    except (RuntimeError, ValueError, TypeError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{option}: does not fit this model ({line})") from None


def is_adapted(model: nn.Module) -> bool:
    """Whether there is an adapter on the model."""
    return isinstance(model, PeftModel)


def save_adapter(model: nn.Module, folder: Path, state: dict | None = None) -> None:
    """Write what was trained: an adapter as PEFT does, or tuned weights, in safetensors.

    Args:
        model: with an adapter, or with weights of its own that are trained.
        folder: to create.
        state: the trained weights, gathered from all ranks; None: the model's own.
    """
    if not isinstance(model, PeftModel):
        weights = tuned_weights(model)
        if not weights:
            raise TypeError("there is no adapter on this model, and none of its weights is trained")
        save_tuned(weights if state is None else {name: state[name] for name in weights}, folder)
        return
    model.save_pretrained(str(folder), state_dict=state)
    (folder / "README.md").unlink(missing_ok=True)  # a template of a model card


def adapter_states(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    """Weights of every active adapter, by the names that PEFT saves them under.

    Without the base model's embeddings, which PEFT saves beside an adapter that tunes them.
    """
    names = model.active_adapters if isinstance(model, PeftModel) else []
    options = {"save_embedding_layers": False}  # else it asks the hub how large they were
    return [get_peft_model_state_dict(model, adapter_name=name, **options) for name in names]


def base_of(model: nn.Module) -> PreTrainedModel:
    """The causal LM itself, with or without an adapter around it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model  # type: ignore[return-value]


def head_shape(model: nn.Module) -> tuple[int, int]:
    """(layers, query heads a layer)."""
    config = base_of(model).config.get_text_config()
    return int(config.num_hidden_layers), int(config.num_attention_heads)


def sliding_window(config: PreTrainedConfig) -> int | None:
    """Tokens that every attention layer is limited to; None if some layer sees all."""
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    layers = getattr(text, "layer_types", None) or []
    switched_off = getattr(text, "use_sliding_window", True) is False
    if window is None or switched_off or "full_attention" in layers:
        return None
    return int(window)


def end_token_ids(model: nn.Module) -> set[int]:
    """Tokens that end a generation, by the model's own generation config."""
    ids = getattr(base_of(model).generation_config, "eos_token_id", None)
    return (
        {int(i) for i in ids}
        if isinstance(ids, (list, tuple))
        else ({int(ids)} if ids is not None else set())
    )
