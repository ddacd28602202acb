"""sce.score_heads: the scores of python -m sce.score, on a model that is left as it was found."""

import subprocess
import sys
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BloomConfig

import sce
from conftest import ROOT, tiny_llama_config
from plans import make_splits
from runs import TINY, configured, run_score
from sce import heads, scoring
from sce.config import ScoreConfig
from sce.data.encode import Encoder
from sce.data.example import Document, Example, Span
from sce.data.sources import read_questions
from sce.errors import InputError
from sce.model.build import add_lora
from sce.model.weights import weights_sha256
from sce.options import LoraOptions
from sce.records import HeadScores

SAMPLE = ROOT / "sce" / "data" / "sample" / "reference.jsonl"
EVERY = [
    ("copy", "teacher_forced"),
    ("copy", "greedy"),
    ("copy_needle", "greedy"),
    ("query_focused", "prefill"),
    ("ov_write", "teacher_forced"),
]


@pytest.fixture(scope="module")
def examples():
    """Six questions over one to three documents each, so that their prompts differ in length."""
    read = read_questions(str(SAMPLE))[:18:3]
    more = [e.documents[0] for e in read_questions(str(SAMPLE))[20:40:5]]
    return [replace(e, documents=(*e.documents, *more[: n % 3])) for n, e in enumerate(read)]


@pytest.fixture
def model(peaky_folder):
    return AutoModelForCausalLM.from_pretrained(peaky_folder)


def tuned(model, scale: float = 0.3):
    """The model with a LoRA adapter that does something."""
    torch.manual_seed(1)
    adapted = add_lora(model, LoraOptions(r=2))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=scale)
    return adapted


def test_it_is_what_the_command_finds_on_the_same_examples(
    peaky_folder, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (file,) = run_score(peaky_folder, "out=command.json")
    command = HeadScores.load(file)
    kept = [o for o in TINY if o.startswith("data.")]
    options = configured("score", ScoreConfig, [*kept, f"model.name_or_path={peaky_folder}"]).data
    made = make_splits(options, Encoder(tokenizer), names=["reference"])["reference"]
    model = AutoModelForCausalLM.from_pretrained(peaky_folder)
    found = sce.score_heads(model, tokenizer, made.examples)
    assert found.scores.max() > 0
    np.testing.assert_allclose(found.per_example, command.per_example, atol=1e-9)
    for name in ("data_sha256", "prompt_sha256", "context_tokens", "dtype", "rope"):
        assert found.provenance[name] == command.provenance[name], name
    assert (found.num_examples, found.provenance["num_offered"]) == (5, 5)
    assert found.provenance["weights_sha256"] is None
    found.save(tmp_path / "saved.json")
    np.testing.assert_allclose(HeadScores.load(tmp_path / "saved.json").scores, found.scores)


@pytest.mark.parametrize("implementation", ["sdpa", "eager", "sce_fused", "sce_eager"])
def test_any_attention_gives_the_same_scores_and_is_there_again_afterwards(
    peaky_folder, tokenizer, examples, implementation
):
    model = AutoModelForCausalLM.from_pretrained(peaky_folder, attn_implementation=implementation)
    expected = AutoModelForCausalLM.from_pretrained(peaky_folder)
    found = sce.score_heads(model, tokenizer, examples)
    assert found.scores.max() > 0
    np.testing.assert_array_equal(
        found.per_example, sce.score_heads(expected, tokenizer, examples).per_example
    )
    assert model.config._attn_implementation == implementation


def test_the_attention_of_each_part_of_a_composite_config_is_put_back(tokenizer, examples):
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    config = Gemma3Config(
        text_config={
            **small,
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
            **{"vocab_size": 800, "max_position_embeddings": 2048},
        },
        vision_config={**small, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    )
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(config)
    model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    before = [model.config, model.config.text_config, model.config.vision_config]
    before = [config._attn_implementation for config in before]
    assert len(set(before)) == 2
    found = sce.score_heads(model, tokenizer, examples[:2])
    assert found.shape == (2, 4)
    after = [model.config, model.config.text_config, model.config.vision_config]
    assert [config._attn_implementation for config in after] == before


def state_of(model) -> list:
    # Python's own generator is left out: beartype, which checks shapes here, draws from it.
    return [
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        model.config._attn_implementation,
        model.config.use_cache,
        [sorted(vars(module)) for module in model.modules()],
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 - the state that users' code shares
    ]


def same(one: list, other: list) -> bool:
    def equal(a, b) -> bool:
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, list):
            return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
        return a == b

    return equal(one, other)


@pytest.fixture
def in_training(model, tokenizer):
    """A model in the middle of training: some parts frozen and in eval mode, some gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # renamed in late versions
        model.gradient_checkpointing_enable()
    model.train()
    model.model.layers[0].eval()
    model.model.embed_tokens.requires_grad_(False)
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    return model


@pytest.mark.parametrize(("scorer", "mode"), EVERY)
def test_the_model_and_the_random_generators_are_left_as_they_were(
    in_training, tokenizer, examples, scorer, mode
):
    before = state_of(in_training)
    assert any(grad is not None for grad in before[2])
    sce.score_heads(in_training, tokenizer, examples[:3], scorer=scorer, mode=mode, batch_size=2)
    assert same(before, state_of(in_training))


def test_and_so_they_are_after_an_error(in_training, tokenizer, examples, monkeypatch):
    monkeypatch.setattr(scoring, "decode", lambda *_: (_ for _ in ()).throw(RuntimeError("x")))
    before = state_of(in_training)
    with pytest.raises(RuntimeError, match="x"):
        sce.score_heads(in_training, tokenizer, examples)
    assert same(before, state_of(in_training))


@pytest.mark.parametrize(("scorer", "mode"), [pair for pair in EVERY if "greedy" not in pair])
def test_the_size_of_a_batch_changes_no_score(model, tokenizer, examples, scorer, mode):
    one, many = (
        sce.score_heads(model, tokenizer, examples, scorer=scorer, mode=mode, batch_size=size)
        for size in (1, 4)
    )
    assert np.abs(one.per_example).max() > 0
    np.testing.assert_allclose(one.per_example, many.per_example, rtol=1e-4, atol=1e-6)


def test_the_size_of_a_batch_changes_no_answer(model, tokenizer, examples, monkeypatch):
    # A random model's answers copy nothing, so the answers themselves are looked at.
    answers: dict[int, dict] = {1: {}, 4: {}}
    real, size = scoring.decode, 1

    def decode(*args):
        outcomes = real(*args)
        answers[size].update((o.example.id, o.answer_ids) for o in outcomes)
        return outcomes

    monkeypatch.setattr(scoring, "decode", decode)
    for size in answers:
        sce.score_heads(model, tokenizer, examples, mode="greedy", batch_size=size)
    assert answers[1] == answers[4]
    assert len(set(answers[1].values())) == len(examples)


def test_an_adapter_is_scored_as_it_is_switched_on(model, tokenizer, examples, tmp_path):
    base = sce.score_heads(model, tokenizer, examples)
    adapted = tuned(model)
    with_adapter = sce.score_heads(adapted, tokenizer, examples)
    assert not np.array_equal(base.scores, with_adapter.scores)
    adapted.save_pretrained(tmp_path)
    assert with_adapter.provenance["adapter_sha256"] == weights_sha256(tmp_path)
    with adapted.disable_adapter():
        without = sce.score_heads(adapted, tokenizer, examples)
    np.testing.assert_array_equal(without.per_example, base.per_example)
    assert base.provenance["adapter_sha256"] is without.provenance["adapter_sha256"] is None


def test_another_adapter_has_another_hash(model, tokenizer, examples):
    adapted = tuned(model)
    first = sce.score_heads(adapted, tokenizer, examples[:1]).provenance["adapter_sha256"]
    with torch.no_grad():
        next(p for n, p in adapted.named_parameters() if "lora_B" in n)[0, 0] += 1
    assert sce.score_heads(adapted, tokenizer, examples[:1]).provenance["adapter_sha256"] != first


@pytest.mark.filterwarnings("ignore:Adapter name 'lora' should not")
@pytest.mark.parametrize("name", ["lora", "model", "q_proj", "default_1"])
def test_an_adapter_s_hash_is_that_of_its_saved_folder_whatever_its_name(
    model, tokenizer, examples, tmp_path, name
):
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(model, config, adapter_name="default")
    adapted.add_adapter(name, config)
    hashes = {}
    for active in ("default", name):
        adapted.set_adapter(active)
        hashes[active] = sce.score_heads(adapted, tokenizer, examples[:1]).provenance[
            "adapter_sha256"
        ]
    adapted.save_pretrained(tmp_path)
    assert hashes == {
        "default": weights_sha256(tmp_path),
        name: weights_sha256(tmp_path / name),
    }
    assert len(set(hashes.values())) == 2


def test_adapters_that_act_together_have_a_hash_of_both(model, tokenizer, examples):
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(model, config, adapter_name="one")
    adapted.add_adapter("two", config)
    hashes = []
    for active in (["one"], ["two"], ["one", "two"], ["two", "one"]):
        adapted.base_model.set_adapter(active)
        found = sce.score_heads(adapted, tokenizer, examples[:1])
        hashes.append(found.provenance["adapter_sha256"])
    assert hashes[2] == hashes[3]
    assert len(set(hashes)) == 3


class Compiled(torch.nn.Module):
    """What torch.compile wraps a model in, as far as it can be seen from outside."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


def test_compiled_and_parallel_wrappers_are_looked_into(model, tokenizer, examples):
    expected = sce.score_heads(model, tokenizer, examples[:2]).per_example
    for wrapped in (Compiled(model), torch.nn.DataParallel(model)):
        found = sce.score_heads(wrapped, tokenizer, examples[:2])
        np.testing.assert_array_equal(found.per_example, expected)


def test_a_path_examples_and_dicts_are_the_same(model, tokenizer, examples, tmp_path):
    import json

    rows = [example.to_json() for example in examples]
    file = tmp_path / "examples.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sets = [sce.score_heads(model, tokenizer, given) for given in (file, str(file), examples, rows)]
    for found in sets[1:]:
        np.testing.assert_array_equal(found.per_example, sets[0].per_example)
        assert found.provenance == sets[0].provenance


def test_one_example_needs_no_list(model, tokenizer, examples):
    expected = sce.score_heads(model, tokenizer, examples[:1])
    for given in (examples[0], examples[0].to_json()):
        found = sce.score_heads(model, tokenizer, given)
        np.testing.assert_array_equal(found.per_example, expected.per_example)
        assert found.provenance == expected.provenance


def test_examples_that_are_all_evidence_carry_one_warning(model, tokenizer, examples, caplog):
    bare = [replace(e, id=f"bare-{n}", documents=e.documents[:1]) for n, e in enumerate(examples)]
    assert all(e.gold_ids == {e.documents[0].id} for e in bare)
    sce.score_heads(model, tokenizer, examples)
    sce.score_heads(model, tokenizer, [bare[0], examples[1]])
    assert caplog.text == ""
    sce.score_heads(model, tokenizer, bare)
    (record,) = caplog.records
    assert "every document of every example (such as bare-0) holds evidence" in record.getMessage()


def test_examples_are_in_the_order_of_their_ids(model, tokenizer, examples):
    forth = sce.score_heads(model, tokenizer, examples)
    back = sce.score_heads(model, tokenizer, examples[::-1])
    np.testing.assert_array_equal(forth.per_example, back.per_example)
    first = min(examples, key=lambda example: example.id)
    alone = sce.score_heads(model, tokenizer, [first])
    np.testing.assert_array_equal(alone.per_example[0], forth.per_example[0])


def test_greedy_answers_have_as_many_tokens_as_asked_for(model, tokenizer, examples, monkeypatch):
    asked = []
    real = scoring.decode

    def decode(model, batch, settings):
        asked.append((settings.max_new_tokens, settings.modes, settings.canonical is None))
        return real(model, batch, settings)

    monkeypatch.setattr(scoring, "decode", decode)
    sce.score_heads(model, tokenizer, examples[:1], mode="greedy", max_new_tokens=2)
    sce.score_heads(model, tokenizer, examples[:1], mode="greedy", match="surface")
    sce.score_heads(model, tokenizer, examples[:1])
    assert asked == [
        (2, ("greedy",), True),
        (16, ("greedy",), False),
        (0, ("teacher_forced",), True),
    ]


def test_examples_that_the_scorer_did_not_keep_are_counted_out(
    model, tokenizer, examples, monkeypatch
):
    kept = sce.score_heads(model, tokenizer, examples[1:])
    real, target = heads.SCORERS["copy"].score, examples[0]
    prompt = torch.from_numpy(Encoder(tokenizer).encode(target).prompt_ids).long()

    def score(trace):
        found = real(trace)
        return found * float("nan") if torch.equal(trace.prompt, prompt) else found

    monkeypatch.setattr(heads.SCORERS["copy"], "score", score)
    found = sce.score_heads(model, tokenizer, examples)
    assert (found.num_examples, found.provenance["num_offered"]) == (5, 6)
    np.testing.assert_allclose(found.scores, kept.scores)
    with pytest.raises(InputError, match="kept none of the 1 examples"):
        sce.score_heads(model, tokenizer, examples[:1])


def test_the_best_heads_come_first_and_ties_by_place():
    scores = HeadScores(
        "copy",
        "teacher_forced",
        "exact",
        np.array([[0.2, 0.0, 0.5], [0.2, np.nan, -1.0]]),
        4,
    )
    assert sce.top(scores, 2) == [(0, 2, 0.5), (0, 0, 0.2)]
    # A head that scores nothing does not retrieve.
    assert sce.top(scores, 6) == [(0, 2, 0.5), (0, 0, 0.2), (1, 0, 0.2)]
    for k in (0, 7):
        with pytest.raises(InputError, match=f"k={k}: choose from 1 to 6"):
            sce.top(scores, k)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scorer": "cpoy"}, "scorer=cpoy: choose from copy, "),
        ({"mode": "prefill"}, "scorer=copy is .*mode=teacher_forced or mode=greedy"),
        ({"mode": "gredy"}, "scorer=copy is .*mode=teacher_forced or mode=greedy"),
        ({"scorer": "query_focused"}, "query_focused is .*mode=prefill"),
        ({"scorer": "insight"}, "scorer=insight is .*data=mdqa"),
        ({"match": "fuzzy"}, "match=fuzzy: choose from exact, surface"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1, got 0"),
    ],
)
def test_wrong_choices_are_one_clear_line(model, tokenizer, examples, options, message):
    with pytest.raises(InputError, match=message):
        sce.score_heads(model, tokenizer, examples, **options)


def citing(example: Example) -> Example:
    return replace(example, id="c", task="summhay", answers=tuple(sorted(example.gold_ids)))


def test_wrong_examples_are_one_clear_line(model, tokenizer, examples, tmp_path):
    broken = {**examples[0].to_json(), "answers": 3}
    outside = replace(examples[0], evidence=(Span("nowhere", 0, 1),))
    cases = {
        "there are none": [],
        r"examples\[1\]: a malformed example": [examples[1], broken],
        r"examples\[0\]: .* evidence in document nowhere": [outside],
        r"examples\[0\]: a str, not an Example": ["who?"],
        "stands 2 times": [examples[0], examples[0]],
        r"several tasks \(mdqa, summhay\)": [examples[0], citing(examples[1])],
        "absent.jsonl": tmp_path / "absent.jsonl",
    }
    for message, given in cases.items():
        with pytest.raises(InputError, match=message):
            sce.score_heads(model, tokenizer, given)


def test_wrong_tokenizers_are_one_clear_line(model, tokenizer, examples):
    slow = SimpleNamespace(is_fast=False, name_or_path="some/slow")
    with pytest.raises(InputError, match="no offset mapping"):
        sce.score_heads(model, slow, examples)
    for name, given in {"NoneType": None, "str": "gpt2"}.items():
        with pytest.raises(InputError, match=f"tokenizer: a {name}, .*give the model's own"):
            sce.score_heads(model, given, examples)
    small = AutoModelForCausalLM.from_config(tiny_llama_config(vocab_size=300))
    with pytest.raises(InputError, match="the model knows 300 tokens: give the model's own"):
        sce.score_heads(small, tokenizer, examples)


def test_models_that_cannot_be_read_are_one_clear_line(model, tokenizer, examples):
    from peft import PromptTuningConfig, get_peft_model

    prompting = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    bloom = AutoModelForCausalLM.from_config(
        BloomConfig(vocab_size=800, hidden_size=16, n_layer=1, n_head=2)
    )
    cases = {
        "Linear is no causal LM": torch.nn.Linear(2, 2),
        "LlamaModel is no causal LM": model.model,
        "does not go through transformers' AttentionInterface": bloom,
        "load it on one device": AutoModelForCausalLM.from_config(tiny_llama_config()).to("meta"),
        "prompt learning": get_peft_model(model, prompting),
    }
    for message, given in cases.items():
        with pytest.raises(InputError, match=message):
            sce.score_heads(given, tokenizer, examples)
    assert bloom.config._attn_implementation == "eager"


def test_prompts_longer_than_the_model_was_made_for_are_mentioned(
    tokenizer, examples, caplog, monkeypatch
):
    short = AutoModelForCausalLM.from_config(tiny_llama_config(max_position_embeddings=64))
    with caplog.at_level("WARNING", logger="sce"):
        sce.score_heads(short, tokenizer, examples[:1])
    assert "the model was made for 64" in caplog.text


def test_other_documents_or_answers_are_other_data(examples):
    one = examples[0]
    other = replace(one, documents=(*one.documents, Document("more", "More", "More text.")))
    hashes = {scoring.data_sha256(e) for e in ([one], [other], [one, other], [other, one])}
    assert len(hashes) == 4


LIGHT = """
import sys, sce
heavy = {"torch", "numpy", "transformers", "lightning", "datasets"} & set(sys.modules)
assert not heavy, heavy
assert {"score_heads", "top", "HeadScores"} <= set(dir(sce)) and set(sce.__all__) <= set(dir(sce))
try:
    sce.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise SystemExit("an attribute out of nothing")
"""


def test_importing_the_package_is_light_and_its_names_are_there_when_asked_for():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    # Asked for after its module was imported: no module stands in the function's place.
    assert sce.score_heads is scoring.score_heads
    assert sce.top is scoring.top
    assert sce.HeadScores is HeadScores
