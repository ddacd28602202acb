"""The one door to Hugging Face models and to PEFT: from options to a model to train or score."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from sce.errors import InputError
from sce.model.attention import Choice
from sce.model.rope import check_inv_freq, rope_theta, set_rope_theta
from sce.model.weights import converted_gguf, packaged_gguf, weights_sha256
from sce.options import LoraOptions, ModelOptions

# Names of the attention projections in transformers' decoders, fused ones included.
ATTENTION_PROJECTIONS = (
    *("q_proj", "k_proj", "v_proj", "o_proj"),  # Llama and its relatives, Gemma, Qwen
    *("c_attn", "attn.c_proj"),  # GPT-2
    *("query_key_value", "attention.dense"),  # GPT-NeoX
    *("qkv_proj", "self_attn.dense"),  # Phi
    "self_attn.out_proj",  # LFM2
)
SCE_FILE = "sce.json"


@dataclass(frozen=True)
class Source:
    """Where a model's files are, and which model it is."""

    name: str
    """What the user asked for."""
    location: str
    """Local folder or hub id, for from_pretrained."""
    revision: str | None

    @cached_property
    def folder(self) -> Path:
        """The local folder of the files; a hub id's are downloaded."""
        if Path(self.location).is_dir():
            return Path(self.location)
        with _explained(self, "weights"):
            patterns = ["model*.safetensors", "*.json", "tokenizer*", "*.jinja"]
            found = snapshot_download(
                self.location, revision=self.revision, allow_patterns=patterns
            )
        return Path(found)

    @cached_property
    def sha256(self) -> str:
        """Identity of the weights."""
        return weights_sha256(self.folder)


def find(options: ModelOptions) -> Source:
    """Resolve `model.name_or_path`; GGUF files are converted on first use.

    Raises:
        InputError: a local path or package that is not there.
    """
    name = options.name_or_path
    if name.startswith("package:"):
        return Source(name, str(converted_gguf(packaged_gguf(name.removeprefix("package:")))), None)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"model.name_or_path={name}: no such file")
        return Source(name, str(converted_gguf(path)), None)
    if name.startswith(("/", ".", "~")) and not path.is_dir():
        raise InputError(f"model.name_or_path={name}: no such folder")
    return Source(name, str(path) if path.is_dir() else name, options.revision)


@contextmanager
def _explained(source: Source, what: str) -> Iterator[None]:
    """Turn the hub's many errors into one line that says what to do."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        text = " ".join(str(error).split())
        lower = text.lower()
        if "gated" in lower or "401" in lower or "403" in lower:
            advice = "it is gated: accept its licence on the hub and run `hf auth login`"
        elif "connect" in lower or "offline" in lower or "couldn't" in lower or "resolve" in lower:
            advice = "it is not on this machine and the hub cannot be reached; give a local folder"
        elif "attention implementation" in lower:
            advice = "it cannot run under this attention; use attention=eager, or flash on a GPU"
        elif "is not a local folder" in lower or "not a valid model identifier" in lower:
            advice = "no such model; give a hub id or a local folder"
        else:
            advice = text[:200]
        raise InputError(
            f"model.name_or_path={source.name}: its {what} cannot be loaded: {advice}"
        ) from error


def load_config(source: Source) -> PreTrainedConfig:
    """The model's config, from disk or the hub."""
    with _explained(source, "config"):
        return AutoConfig.from_pretrained(source.location, revision=source.revision)


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The model's tokenizer."""
    with _explained(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source.location, revision=source.revision)


def load_model(source: Source, options: ModelOptions, attention: Choice) -> PreTrainedModel:
    """The frozen base model, its RoPE theta changed before the weights load.

    Raises:
        InputError: the model is gated, absent, has no rotary embedding to change, or cannot take
            the attention interface.
    """
    config = load_config(source)
    if options.rope_theta is not None:
        set_rope_theta(config, options.rope_theta)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    with _explained(source, "weights"):
        model = AutoModelForCausalLM.from_pretrained(
            source.location,
            revision=source.revision,
            config=config,
            dtype=getattr(torch, options.dtype),
            attn_implementation=attention.implementation,
            use_safetensors=True,
        )
    if bars:
        transformers_logging.enable_progress_bar()
    if options.rope_theta is not None:
        check_inv_freq(model, options.rope_theta)
    model.requires_grad_(False)
    if options.activation_checkpointing:
        model.config.use_cache = False
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def add_lora(model: PreTrainedModel, options: LoraOptions) -> PeftModel:
    """A float32 adapter on the attention projections, its A drawn from torch's global generator.

    Raises:
        InputError: no projection by a known name.
    """
    leaves = {name for name, module in model.named_modules() if isinstance(module, nn.Module)}
    present = [
        target
        for target in ATTENTION_PROJECTIONS
        if any(name == target or name.endswith(f".{target}") for name in leaves)
    ]
    if not present:
        raise InputError(
            f"lora={options.name}: {model.config.model_type} has none of the projections "
            f"{', '.join(ATTENTION_PROJECTIONS)}"
        )
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules=present,
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
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"adapter={folder}: no adapter_config.json in it")
    note = folder / SCE_FILE
    if not note.is_file():
        return {}
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{note}: not JSON ({error.msg})") from None


def fit_options_to_adapter(options: ModelOptions, source: Source, folder: Path) -> None:
    """Take the adapter's RoPE theta over, and refuse an adapter of another base model.

    Raises:
        InputError: the adapter was tuned on other weights, or with another theta than asked for.
    """
    note = read_adapter_note(folder)
    expected = note.get("weights_sha256")
    if expected and expected != source.sha256:
        raise InputError(
            f"adapter={folder}: tuned on weights {expected[:12]}, but {source.name} is "
            f"{source.sha256[:12]}; name the base model it was tuned on"
        )
    theta = (note.get("rope") or {}).get("theta")
    own = rope_theta(load_config(source))
    if theta is not None and options.rope_theta is None and theta != own:
        options.rope_theta = float(theta)
    used = options.rope_theta or own
    if theta is not None and used != theta:
        raise InputError(
            f"adapter={folder}: tuned with rope_theta={theta:g}, not {used:g}; "
            "leave model.rope_theta out"
        )


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The model with a saved adapter on it, in float32.

    Raises:
        InputError: the folder holds no adapter in safetensors, or one of another shape.
    """
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"adapter={folder}: no adapter_model.safetensors in it")
    try:
        with warnings.catch_warnings():  # of a name that PEFT still calls transformers by
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            return PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=True)
    except (RuntimeError, ValueError, TypeError) as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"adapter={folder}: does not fit this model ({line})") from None


def is_adapted(model: nn.Module) -> bool:
    """Whether there is an adapter on the model."""
    return isinstance(model, PeftModel)


def save_adapter(model: nn.Module, folder: Path, state: dict | None = None) -> None:
    """Write the adapter as PEFT does, in safetensors.

    Args:
        model: with an adapter.
        folder: to create.
        state: its weights, gathered from all ranks; None: the model's own.
    """
    if not isinstance(model, PeftModel):
        raise TypeError("there is no adapter on this model")
    model.save_pretrained(str(folder), state_dict=state)
    (folder / "README.md").unlink(missing_ok=True)  # a template of a model card


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
