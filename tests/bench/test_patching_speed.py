"""What patching costs beside plain decoding: `make bench`, with nothing else running."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_speed import batch, ratio

from sce.decode import DecodeSettings, decode, prefix_cache
from sce.interventions.patching import Side, patched
from sce.interventions.select import all_heads
from sce.model import build
from sce.model.adapters import use_adapter
from sce.model.attention import Choice
from sce.model.build import head_shape
from sce.options import ModelOptions

pytestmark = [pytest.mark.real_model, pytest.mark.slow]
SETTINGS = DecodeSettings(max_new_tokens=16, fixed_steps=True, scorers=())


@pytest.fixture(scope="module")
def adapted(real_source):
    """The default model with two adapters that change something."""
    torch.set_num_threads(2)
    base = build.load_model(real_source, ModelOptions(), Choice("sdpa", "bench"))
    config = LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    model = get_peft_model(base, config, "source")
    model.add_adapter("target", config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02)
    return model.eval()


@pytest.mark.parametrize("shared", [False, True], ids=["with context", "after the context"])
def test_patching_all_heads_against_plain_decoding(adapted, shared):
    """Batch of 8, 1,024 tokens, 16 steps; the context computed too, or at hand for both models."""
    data = batch(8, 1024)
    sides = {name: Side(adapted, name) for name in ("source", "target")}
    contexts = {}
    for name in sides:
        use_adapter(adapted, name)
        contexts[name] = prefix_cache(adapted, data) if shared else None
    heads = all_heads(head_shape(adapted))
    both = (contexts["target"], contexts["source"]) if shared else None

    def plain() -> object:
        use_adapter(adapted, "target")
        return decode(adapted, data, SETTINGS, contexts["target"])

    def patching() -> object:
        first = data.num_prompt - 1
        with patched(sides["target"], sides["source"], heads, from_column=first, prefixes=both):
            return decode(adapted, data, SETTINGS, contexts["target"])

    cost, plain_s = ratio(8 if shared else 4, patching, plain)
    print(f"\nplain decoding: {plain_s:.2f} s, patched / plain: {cost:.3f}")
    assert cost <= 2.2
