"""Which weights are tuned, by the names that transformers' decoders give them."""

from torch import nn

from sce.errors import InputError
from sce.options import LoraOptions

# Attention projections, fused ones included.
ATTENTION_PROJECTIONS = (
    *("q_proj", "k_proj", "v_proj", "o_proj"),  # Llama and its relatives, Gemma, Qwen
    *("c_attn", "attn.c_proj"),  # GPT-2
    *("query_key_value", "attention.dense"),  # GPT-NeoX
    *("qkv_proj", "self_attn.dense"),  # Phi
    "self_attn.out_proj",  # LFM2
    *("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),  # latent attention: DeepSeek
)
MLP_PROJECTIONS = (
    *("gate_proj", "up_proj", "down_proj"),  # Llama and its relatives, Gemma, Qwen
    "gate_up_proj",  # Phi-3
    *("c_fc", "mlp.c_proj"),  # GPT-2
    *("dense_h_to_4h", "dense_4h_to_h"),  # GPT-NeoX
    *("fc1", "fc2"),  # Phi
    *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),  # LFM2
)


def is_target(name: str, target: str) -> bool:
    """Whether a module of this full name is one of those called `target`, as PEFT decides it."""
    return name == target or name.endswith(f".{target}")


def targets(model: nn.Module, options: LoraOptions) -> list[str]:
    """The names, of those listed above, that the model's tuned modules have.

    Raises:
        InputError: none of one kind, or MLPs whose experts are no linear layers.
    """
    found = _present(model, ATTENTION_PROJECTIONS, options)
    if options.name != "all_linear":
        return found
    experts = [n for n, p in model.named_parameters() if ".experts." in n and p.ndim == 3]
    if experts:
        raise InputError(
            f"lora=all_linear: the experts of {type(model).__name__} are no linear layers "
            f"({experts[0]}); use lora=attention"
        )
    return found + _present(model, MLP_PROJECTIONS, options)


def _present(model: nn.Module, known: tuple[str, ...], options: LoraOptions) -> list[str]:
    names = [name for name, _ in model.named_modules()]
    found = [target for target in known if any(is_target(name, target) for name in names)]
    if not found:
        raise InputError(
            f"lora={options.name}: {type(model).__name__} has none of the projections "
            f"{', '.join(known)}"
        )
    return found
