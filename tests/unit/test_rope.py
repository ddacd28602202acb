"""RoPE changes: in the tables before the weights load, recorded, compared, and never forgotten."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PhiConfig,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from conftest import tiny_llama_config
from runs import run_score, run_train
from sce import assemble
from sce.errors import InputError
from sce.model import build, rope
from sce.model.attention import Choice
from sce.model.source import find
from sce.options import ModelOptions, RopeScaling
from sce.records import origin_differences

SDPA = Choice("sdpa", "test")
LINEAR, YARN = {"type": "linear", "factor": 2}, {"type": "yarn", "factor": 4}
YARN_FROM = {**YARN, "original_max_position_embeddings": 99}
SMALL = {"hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 50}
CONFIGS = {
    "llama": tiny_llama_config,
    "partly rotated": lambda: PhiConfig(**SMALL, num_attention_heads=2, pad_token_id=None),
    "llama 3.1's own scaling": lambda: LlamaConfig(
        **SMALL,
        num_attention_heads=2,
        head_dim=128,
        max_position_embeddings=131072,
        rope_parameters={
            **{"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0},
            **{"high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        },
    ),
    "local and global layers": lambda: Gemma3TextConfig(
        **{**SMALL, "num_hidden_layers": 2},
        num_attention_heads=2,
        head_dim=32,
        layer_types=["sliding_attention", "full_attention"],
    ),
}


def loaded(folder, **changes):
    options = ModelOptions(name_or_path=str(folder), **changes)
    return build.load_model(find(options), options, SDPA), options


def test_theta_reaches_the_tables_before_the_weights_load(tiny_folder):
    model, _ = loaded(tiny_folder, rope_theta=5e5)
    table = model.model.rotary_emb.inv_freq
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, 5e5 ** (-torch.arange(0, 16, 2) / 16))
    with pytest.raises(RuntimeError, match="did not reach"):
        rope.check_tables(model, 1e4, None)
    model.model.rotary_emb.to(torch.bfloat16)
    with pytest.raises(RuntimeError, match="must stay float32"):
        rope.check_tables(model, 5e5, None)


@pytest.mark.parametrize("theta", [None, 2e6])
@pytest.mark.parametrize("scaling", [LINEAR, YARN, YARN_FROM])
def test_tables_are_those_of_transformers_own_functions(tiny_folder, scaling, theta):
    model, options = loaded(tiny_folder, rope_scaling=scaling, rope_theta=theta)
    fresh = tiny_llama_config()
    fresh.rope_parameters = {
        "rope_theta": theta or 10000.0,
        "rope_type": scaling["type"],
        "factor": float(scaling["factor"]),
    }
    if scaling["type"] == "yarn":
        own = scaling.get("original_max_position_embeddings", fresh.max_position_embeddings)
        fresh.rope_parameters["original_max_position_embeddings"] = own
    table, factor = ROPE_INIT_FUNCTIONS[scaling["type"]](fresh, torch.device("cpu"))
    rotary = model.model.rotary_emb
    assert torch.equal(rotary.inv_freq, table)
    assert rotary.attention_scaling == factor
    assert rotary.inv_freq.dtype == torch.float32
    ours, scale = rope.frequencies(
        theta or 10000.0, len(table), rope.resolved(options.scaling, tiny_llama_config())
    )
    torch.testing.assert_close(ours.float(), table, rtol=1e-5, atol=0)
    assert scale == pytest.approx(factor)


@pytest.mark.parametrize("scaling", [None, LINEAR, YARN])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_change_reaches_every_kind_of_table_and_its_absence_is_noticed(name, scaling):
    config = CONFIGS[name]()
    options = ModelOptions(rope_scaling=scaling)
    full = rope.resolved(options.scaling, config)
    plain = AutoModelForCausalLM.from_config(config)
    rope.set_rope_theta(config, 3e6)
    if options.scaling is not None:
        rope.set_rope_scaling(config, options.scaling)
    rope.check_tables(AutoModelForCausalLM.from_config(config), 3e6, full)
    with pytest.raises(RuntimeError, match="did not reach inv_freq"):
        rope.check_tables(plain, 3e6, full)


def test_local_layers_keep_their_tables():
    config = CONFIGS["local and global layers"]()
    before = dict(config.rope_parameters["sliding_attention"])
    rope.set_rope_scaling(config, RopeScaling("linear", 8))
    assert config.rope_parameters["sliding_attention"] == before
    assert config.rope_parameters["full_attention"]["factor"] == 8


def test_an_attention_factor_that_is_missing_is_noticed(tiny_folder):
    model, options = loaded(tiny_folder, rope_scaling=YARN)
    full = rope.resolved(options.scaling, tiny_llama_config())
    rope.check_tables(model, 1e4, full)
    model.model.rotary_emb.attention_scaling = 1.0
    with pytest.raises(RuntimeError, match="did not reach"):
        rope.check_tables(model, 1e4, full)


def test_a_model_s_own_interpolation_stays_under_a_new_theta(save_model):
    own = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    folder = save_model(tiny_llama_config(rope_parameters=own))
    model, _ = loaded(folder, rope_theta=1e6)
    expected = 1e6 ** (-torch.arange(0, 16, 2) / 16) / 4
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected)


def longrope(theta: float, short: float) -> Phi3Config:
    return Phi3Config(
        **SMALL,
        num_attention_heads=2,
        pad_token_id=None,
        max_position_embeddings=4096,
        rope_parameters={
            **{"rope_type": "longrope", "rope_theta": theta, "factor": 2.0},
            **{"short_factor": [short + n / 16 for n in range(16)], "long_factor": [9.0] * 16},
            "original_max_position_embeddings": 2048,
        },
    )


@pytest.mark.parametrize("short", [1.0, 1.3])
def test_longrope_divides_every_pair_by_a_factor_of_its_own(short):
    own = rope.own_scaling(longrope(1e4, short))
    model = AutoModelForCausalLM.from_config(longrope(1e6, short))
    rope.check_tables(model, 1e6, own)
    for theta, scaling in ((1e4, own), (1e6, rope.own_scaling(longrope(1e4, short + 0.1)))):
        with pytest.raises(RuntimeError, match="did not reach inv_freq"):
            rope.check_tables(model, theta, scaling)


def test_a_longrope_model_takes_a_new_theta(save_model):
    folder = save_model(longrope(1e4, 1.3))
    model, _ = loaded(folder, rope_theta=1e6)
    factors = 1.3 + torch.arange(16) / 16
    expected = 1e6 ** (-torch.arange(0, 32, 2) / 32) / factors
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, expected)


def test_a_model_without_rotary_embeddings_refuses_every_change():
    config = AutoConfig.for_model("gpt2")
    assert rope.rope_theta(config) is None
    with pytest.raises(InputError, match=r"rope_theta=1e\+06: gpt2 has no rotary embedding"):
        rope.set_rope_theta(config, 1e6)
    with pytest.raises(InputError, match=r"rope_scaling=.*: gpt2 has no rotary embedding"):
        rope.set_rope_scaling(config, RopeScaling())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("yarn", "give its fields"),
        ({"type": "ntk"}, "choose from linear, yarn"),
        ({"factor": 1}, "factor must be > 1, got 1"),
        ({"factor": "two"}, "factor must be > 1, got two"),
        ({"tpye": "yarn"}, "rope_scaling has no tpye"),
        ({"original_max_position_embeddings": 0}, "whole number >= 1"),
        ({**LINEAR, "original_max_position_embeddings": 9}, "for type: yarn alone"),
    ],
)
def test_a_wrong_scaling_is_one_line(asked, message):
    with pytest.raises(InputError, match=message) as caught:
        ModelOptions(rope_scaling=asked)
    assert "\n" not in str(caught.value)


def noted(folder, source, recorded):
    (folder / "adapter_config.json").write_text("{}")
    note = {"weights_sha256": source.sha256, "rope": recorded}
    (folder / "sce.json").write_text(json.dumps(note))


@pytest.mark.parametrize("scaling", [LINEAR, YARN])
def test_an_adapter_brings_its_scaling_along(tiny_folder, tmp_path, scaling):
    tuned = ModelOptions(name_or_path=str(tiny_folder), rope_scaling=scaling, rope_theta=5e5)
    config, source = tiny_llama_config(), find(tuned)
    noted(tmp_path, source, rope.in_use(config, tuned.rope_theta, tuned.scaling))
    options = ModelOptions(name_or_path=str(tiny_folder))
    build.fit_options_to_adapter(options, source, tmp_path)
    assert options.rope_theta == 5e5
    assert rope.resolved(options.scaling, config) == rope.resolved(tuned.scaling, config)
    wrong = replace(options, rope_scaling={"type": "yarn", "factor": 3})
    with pytest.raises(InputError, match=r"tuned with rope_scaling=.*leave model\.rope"):
        build.fit_options_to_adapter(wrong, source, tmp_path)


def test_an_adapter_tuned_without_a_scaling_refuses_one(tiny_folder, tmp_path):
    options = ModelOptions(name_or_path=str(tiny_folder), rope_scaling=YARN)
    noted(tmp_path, find(options), {"theta": 1e4, "was": 1e4})
    with pytest.raises(InputError, match="rope_scaling=None, not"):
        build.fit_options_to_adapter(options, find(options), tmp_path)


def test_scores_under_another_scaling_differ_in_their_origin():
    config = tiny_llama_config()
    plain, yarn = (
        {"rope": rope.in_use(config, None, ModelOptions(rope_scaling=s).scaling)}
        for s in (None, YARN)
    )
    assert origin_differences(plain, plain) == []
    (found,) = origin_differences(plain, yarn)
    assert found.startswith("rope_scaling (unknown and {'yarn': 4.0")
    assert origin_differences({"rope": {"theta": 1e4}}, plain) == []


@pytest.fixture
def short_folder(save_model):
    """A model with positions for fewer tokens than two documents take."""
    return save_model(tiny_llama_config(max_position_embeddings=64))


def test_prompts_beyond_the_positions_are_refused_before_weights_load(short_folder, monkeypatch):
    monkeypatch.setattr(assemble.build, "load_model", pytest.fail)
    for command in (run_train, run_score):
        with pytest.raises(InputError, match=r"has positions for 64; .*type: yarn, factor: ") as e:
            command(short_folder)
        assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="positions for 64"):
        run_train(short_folder, "model.rope_theta=10000")  # the model's own
    with pytest.raises(InputError, match="positions for 64"):
        run_train(short_folder, "model.rope_theta=5000")  # turns faster still
    with pytest.raises(InputError, match="positions for 128"):
        run_train(short_folder, "model.rope_scaling={type: linear, factor: 2}")


class Loaded(Exception):
    pass


def test_answers_need_positions_too(save_model, tiny_folder, monkeypatch):
    """Those emitted in scoring, and the gold ones, which may be longer."""

    def load(*_args):
        raise Loaded

    monkeypatch.setattr(assemble.build, "load_model", load)
    found = []
    require = assemble.Parts._require_positions
    monkeypatch.setattr(
        assemble.Parts,
        "_require_positions",
        lambda self, longest: [found.append(longest), require(self, longest)],
    )
    with pytest.raises(Loaded):
        run_score(tiny_folder, "max_new_tokens=30")
    with pytest.raises(Loaded):
        run_score(tiny_folder, "max_new_tokens=1")
    emitted, gold = found
    assert emitted - 30 < gold < emitted  # a prompt alone is shorter than with its gold answer
    folder = save_model(tiny_llama_config(max_position_embeddings=emitted))
    with pytest.raises(Loaded):
        run_score(folder, "max_new_tokens=30")
    with pytest.raises(InputError, match=f"up to {emitted + 1} tokens.*positions for {emitted};"):
        run_score(folder, "max_new_tokens=31")
    folder = save_model(tiny_llama_config(max_position_embeddings=gold - 1))
    with pytest.raises(InputError, match=f"up to {gold} tokens.*positions for {gold - 1};"):
        run_score(folder, "max_new_tokens=1")


@pytest.mark.parametrize(
    "change", ["model.rope_theta=1e6", "model.rope_scaling={type: yarn, factor: 64}"]
)
def test_a_rope_change_opens_longer_prompts(short_folder, monkeypatch, change):
    def load(*_args):
        raise Loaded

    monkeypatch.setattr(assemble.build, "load_model", load)
    with pytest.raises(Loaded):
        run_score(short_folder, change)
