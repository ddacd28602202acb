"""A model that somebody else built and goes on using: read as it stands, left as it was found."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import PreTrainedConfig, PreTrainedModel

from sce.errors import InputError
from sce.model.attention import IMPLEMENTATIONS
from sce.model.build import adapter_states, base_of, is_adapted
from sce.model.weights import weights_sha256


@contextmanager
def borrowed(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode and under our attention within the block.

    Yields what `torch.compile` or data parallelism wraps, with its adapters. Afterwards, also after
    an error, the attention and the mode of every module are the owner's again.

    Raises:
        InputError: it is no causal LM of transformers on one device, an adapter puts tokens of its
            own before the prompt, or its attention does not go through AttentionInterface.
    """
    inner = _unwrapped(model)
    _require_causal_lm(inner)
    modes = [(module, module.training) for module in inner.modules()]
    inner.eval()
    try:
        with own_attention(base_of(inner)):
            yield inner
    finally:
        for module, training in modes:
            module.training = training


def _unwrapped(model: nn.Module) -> nn.Module:
    model = getattr(model, "_orig_mod", model)  # torch.compile
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        return _unwrapped(model.module)
    return model


def _require_causal_lm(model: nn.Module) -> None:
    known = isinstance(model, PreTrainedModel) or is_adapted(model)
    if not known or base_of(model).get_output_embeddings() is None:
        raise InputError(
            f"{type(model).__name__} is no causal LM of transformers; give an "
            "AutoModelForCausalLM, with or without a PEFT adapter"
        )
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise InputError(
            "this adapter puts tokens of its own before the prompt (prompt learning), so positions "
            "are not the prompt's; score the model without it"
        )
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1 or devices == ["meta"]:
        raise InputError(f"the model lies on {', '.join(devices)}; load it on one device")


@contextmanager
def own_attention(base: PreTrainedModel) -> Iterator[None]:
    """Our attention over the kernel that the model has, SDPA for kernels that we do not know."""
    before = _implementations(base.config)
    own = base.config.get_text_config()._attn_implementation
    if own in IMPLEMENTATIONS.values():
        yield
        return
    wanted = IMPLEMENTATIONS.get(str(own), IMPLEMENTATIONS["sdpa"])
    try:
        try:
            base.set_attn_implementation(wanted)
        except (ValueError, ImportError) as error:
            line = " ".join(str(error).split())[:200]
            raise InputError(f"{type(base).__name__} cannot take our attention: {line}") from None
        if base.config.get_text_config()._attn_implementation != wanted:
            raise InputError(
                f"{type(base).__name__}: its attention does not go through transformers' "
                "AttentionInterface, so its heads cannot be read; use an architecture that "
                "supports set_attn_implementation"
            )
        yield
    finally:
        base.set_attn_implementation(before)


def _implementations(config: PreTrainedConfig) -> str | dict:
    """What `set_attn_implementation` takes to put a config and those inside it as they are now."""
    own = config._attn_implementation
    inside = {name: getattr(config, name, None) for name in config.sub_configs}
    parts = {name: _implementations(part) for name, part in inside.items() if part is not None}
    return {"": own, **parts} if parts else own  # type: ignore[return-value]


def adapter_sha256(model: nn.Module) -> str | None:
    """Identity of the adapters that are switched on; None where there is none.

    Of a LoRA adapter it is the `weights_sha256` of the folder that PEFT saves it to, unless it
    tunes embeddings; of several together the sha256 over theirs, in no order.
    """
    switches = [bool(m.disable_adapters) for m in model.modules() if hasattr(m, "disable_adapters")]
    if not is_adapted(model) or all(switches):
        return None
    hashes = sorted(_state_sha256(state) for state in adapter_states(model))
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _state_sha256(state: dict[str, Tensor]) -> str:
    copied = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in state.items()}
    with tempfile.TemporaryDirectory() as folder:
        save_file(copied, Path(folder) / "adapter_model.safetensors")
        return weights_sha256(Path(folder))
