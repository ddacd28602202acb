"""What is tuned: adapters on attention or on all linear layers, or the attention weights."""

import json
import re
import sys
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import bitsandbytes
import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from families import CONFIGS
from runs import run_score, run_train
from sce import assemble
from sce.errors import InputError
from sce.model import build, extras
from sce.model.adapters import load_adapters
from sce.model.attention import Choice
from sce.model.full_tuning import TUNED_FILE, Float32Conv1D, Float32Linear
from sce.model.projections import head_outputs
from sce.model.source import find
from sce.options import LoraOptions, ModelOptions
from sce.records import HeadScores

SDPA = Choice("sdpa", "test")
NONE, ALL = LoraOptions(name="none"), LoraOptions(name="all_linear", r=2)


def of(name: str, dtype=torch.float32):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(
        deepcopy(CONFIGS[name]), attn_implementation="sce_fused", dtype=dtype
    )
    return model.requires_grad_(False)


def trained_names(model) -> set[str]:
    """Modules with trained weights, by the last two parts of their names."""
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    paths = [re.sub(r"\.(lora_.*|weight|bias)$", "", name) for name in names]
    return {".".join(path.split(".")[-2:]) for path in paths}


LLAMA = {f"self_attn.{n}_proj" for n in "qkvo"}
ALL_LINEAR = {
    "llama": LLAMA | {f"mlp.{n}_proj" for n in ("gate", "up", "down")},
    "phi": {f"self_attn.{n}" for n in ("q_proj", "k_proj", "v_proj", "dense")}
    | {"mlp.fc1", "mlp.fc2"},
    "phi3": {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"},
    "gpt2": {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"},
    "gpt_neox": {
        *("attention.query_key_value", "attention.dense"),
        *("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    },
    "lfm2": {f"self_attn.{n}_proj" for n in ("q", "k", "v", "out")}
    | {f"feed_forward.w{n}" for n in (1, 2, 3)},
    "olmo2": LLAMA | {f"mlp.{n}_proj" for n in ("gate", "up", "down")},
}


@pytest.mark.parametrize("name", ALL_LINEAR)
def test_all_linear_adapts_the_mlps_too(name):
    model = build.tune(of(name), ALL)
    assert trained_names(model) == ALL_LINEAR[name]
    model(input_ids=torch.full((1, 9), 5), use_cache=False).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "qwen3_next"])
def test_all_linear_refuses_experts_that_are_no_linear_layers(name):
    with pytest.raises(InputError, match=r"lora=all_linear: the experts .* use lora=attention"):
        build.tune(of(name), ALL)


@pytest.mark.parametrize("name", ["llama", "phi", "gpt2", "gpt_neox", "gpt_oss", "lfm2"])
def test_without_an_adapter_the_attention_weights_are_trained_in_float32(name):
    model = build.tune(of(name, torch.bfloat16), NONE)
    assert model.training
    attention = trained_names(build.tune(of(name), LoraOptions(r=2)))
    assert trained_names(model) == attention
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    model(input_ids=torch.full((1, 9), 5), use_cache=False).logits.float().sum().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_master_copies_compute_what_the_base_computes(name):
    """A step too small for bfloat16 is kept, though the output only moves when enough have come."""
    plain, model = of(name, torch.bfloat16), build.tune(of(name, torch.bfloat16), NONE)
    plain, model = plain.eval(), model.eval()
    ids = torch.arange(3, 20)[None]
    assert torch.equal(plain(ids).logits, model(ids).logits)
    kinds = {type(m) for m in model.modules()} & {Float32Linear, Float32Conv1D}
    assert kinds == {Float32Conv1D if name == "gpt2" else Float32Linear}
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim == 2]
    before = [w.clone() for w in weights]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(1 + 2**-12)
    assert torch.equal(plain(ids).logits, model(ids).logits)
    assert all(not torch.equal(w, b) for w, b in zip(weights, before, strict=True))


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi"])
def test_tuned_weights_are_loaded_bit_for_bit(name, tmp_path):
    model = build.tune(of(name, torch.bfloat16), NONE)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    build.save_adapter(model, tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {TUNED_FILE}
    saved = load_file(tmp_path / TUNED_FILE)
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert saved.keys() == own.keys()
    loaded = build.load_adapter(of(name, torch.bfloat16), tmp_path)
    ids = torch.arange(3, 20)[None]
    assert torch.equal(model.eval()(ids).logits, loaded.eval()(ids).logits)
    assert all(torch.equal(p, saved[n]) for n, p in loaded.named_parameters() if n in saved)
    assert build.read_adapter_note(tmp_path) == {}


def test_tuned_weights_of_another_model_are_refused(tmp_path):
    build.save_adapter(build.tune(of("llama"), NONE), tmp_path)
    with pytest.raises(InputError, match=r"does not fit this model \(.*k_proj"):
        build.load_adapter(of("olmo2"), tmp_path)
    with pytest.raises(InputError, match="here no such weight"):
        build.load_adapter(of("gpt2"), tmp_path)
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        load_adapters(of("llama"), {"source": tmp_path})


def test_tuned_weights_that_were_not_copied_whole_are_refused(tmp_path):
    build.save_adapter(build.tune(of("llama"), NONE), tmp_path)
    file = tmp_path / TUNED_FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"its weights are damaged or were not copied whole"):
        build.load_adapter(of("llama"), tmp_path)


def test_a_model_that_nothing_was_trained_of_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="none of its weights is trained"):
        build.save_adapter(of("llama"), tmp_path)


@pytest.mark.slow
def test_a_run_without_an_adapter_is_scored_from_its_folder(tiny_folder, tmp_path):
    options = ("model.rope_scaling={type: yarn, factor: 2}", "model.dtype=bfloat16")
    run = run_train(
        tiny_folder,
        *options,
        "lora=none",
        "optimizer.lr=0.01",
        "model.activation_checkpointing=selective",
        f"run_dir={tmp_path}/run",
    )
    files = {file.name for file in (run / "adapter").iterdir()}
    assert files == {TUNED_FILE, "sce.json"}
    note = json.loads((run / "adapter" / "sce.json").read_text())
    assert note["rope"] == {"theta": 1e4, "was": 1e4, "yarn": 2.0, "yarn_from": 8192}
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    trained = {key.split(".")[-2] for key in checkpoint["state_dict"]}
    assert trained == {"q_proj", "k_proj", "v_proj", "o_proj"}
    # The scaling comes from the adapter's note.
    (file,) = run_score(
        tiny_folder, options[1], f"adapter={run}/adapter", f"out={tmp_path}/scores.json"
    )
    scored = HeadScores.load(file)
    assert np.array_equal(scored.scores, HeadScores.load(run / "heads" / "step-000004.json").scores)
    assert scored.provenance["rope"] == note["rope"]
    assert scored.provenance["adapter_sha256"] == note["adapter_sha256"]


# -- what optional packages add -------------------------------------------------------------------

NF4, LIGER = ModelOptions(quantization="nf4"), ModelOptions(liger=True)


@pytest.mark.parametrize(
    ("options", "on_gpu", "message"),
    [
        (NF4, False, "model.quantization=nf4 needs a GPU, and this run is on the CPU"),
        (NF4, True, r"needs the package bitsandbytes: pip install 'sce\[nf4\]'"),
        (LIGER, False, "model.liger=true needs a GPU"),
        (LIGER, True, r"needs the package liger_kernel: pip install 'sce\[liger\]'"),
    ],
)
def test_what_is_not_to_be_had_is_one_line(monkeypatch, options, on_gpu, message):
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=message):
        extras.require_usable(options, None, on_gpu=on_gpu)


def test_4_bit_weights_are_not_tuned_themselves(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda _: object())
    extras.require_usable(NF4, LoraOptions(), on_gpu=True)
    with pytest.raises(InputError, match="4-bit weights cannot be tuned"):
        extras.require_usable(NF4, NONE, on_gpu=True)


def test_it_is_refused_before_data_and_weights(tiny_folder, monkeypatch):
    monkeypatch.setattr(assemble, "plan_splits", pytest.fail)
    for override in ("model.liger=true", "model.quantization=nf4"):
        with pytest.raises(InputError, match="needs a GPU"):
            run_train(tiny_folder, "model.dtype=bfloat16", override)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization": "int8"}, "choose from null, nf4"),
        ({"quantization": "nf4", "dtype": "float32"}, "leave model.dtype=bfloat16"),
    ],
)
def test_a_wrong_quantisation_is_one_line(changes, message):
    with pytest.raises(InputError, match=message):
        replace(ModelOptions(), **changes)


@pytest.mark.parametrize("changes", [{"r": 4}, {"alpha": 32.0}, {"dropout": 0.1}])
def test_no_adapter_takes_no_adapter_s_options(changes):
    with pytest.raises(InputError, match="lora=none has no adapter"):
        LoraOptions(name="none", **changes)


def test_nf4_is_asked_for_with_double_quantisation(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    asked = extras.quantized(NF4)
    assert asked["device_map"] == {"": 3}
    config = asked["quantization_config"]
    assert (config.load_in_4bit, config.bnb_4bit_quant_type) == (True, "nf4")
    assert config.bnb_4bit_use_double_quant
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert extras.quantized(ModelOptions()) == {}


def test_4_bit_weights_train_as_whole_weights_of_the_same_values_do(tiny_folder, monkeypatch):
    asked = extras.quantized(NF4) | {"device_map": {"": "cpu"}}
    monkeypatch.setattr(extras, "quantized", lambda options: asked if options.quantization else {})
    options = ModelOptions(name_or_path=str(tiny_folder), quantization="nf4")
    source = find(options)
    packed = build.load_model(source, options, SDPA)
    whole = build.load_model(source, replace(options, quantization=None), SDPA)
    number = 0
    for name, module in packed.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight, state = module.weight.data, module.weight.quant_state
            own = whole.get_submodule(name).weight
            unpacked = dequantize_4bit(weight, state)
            assert not torch.equal(own, unpacked)
            own.data.copy_(unpacked)
            number += 1
    assert number == 7 * packed.config.num_hidden_layers
    ids = torch.arange(40)[None] % packed.config.vocab_size
    losses, gradients, pulled = [], [], []
    direction = torch.randn(1, 3, packed.config.hidden_size)
    for base in (packed, whole):
        torch.manual_seed(1)
        model = build.tune(base, LoraOptions(r=2))
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
        heads = head_outputs(model, packed.config.num_attention_heads)
        with torch.inference_mode():
            pulled.append(heads[1].pulled_back(direction))  # of which ov_write is made
    assert torch.equal(*losses)
    torch.testing.assert_close(*pulled, atol=0.02, rtol=0.02)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert any(gradient.abs().max() > 0 for gradient in gradients[0])


def test_liger_puts_in_norms_and_rotary_embedding_and_no_loss(monkeypatch):
    calls = []

    def apply_to_llama(rope=True, rms_norm=True, fused_linear_cross_entropy=True, model=None):
        calls.append((rope, rms_norm, fused_linear_cross_entropy, type(model).__name__))

    def apply_to_glm(rope=True, model=None):
        raise NotImplementedError("no rotary embedding here")

    patch = SimpleNamespace(
        MODEL_TYPE_TO_APPLY_LIGER_FN={"llama": apply_to_llama, "olmo2": apply_to_glm}
    )
    inner = SimpleNamespace(monkey_patch=patch)
    monkeypatch.setitem(sys.modules, "liger_kernel", SimpleNamespace(transformers=inner))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", inner)
    extras.fuse(of("llama"))
    assert calls == [(True, True, False, "LlamaForCausalLM")]
    with pytest.raises(InputError, match="liger-kernel has nothing for gpt2"):
        extras.fuse(of("gpt2"))
    with pytest.raises(InputError, match=r"not for olmo2 \(no rotary"):
        extras.fuse(of("olmo2"))
