"""Several questions behind one context: the loss, gradients and tokens of separate examples."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, LlamaConfig

import families
from plans import make_splits
from runs import run_train
from sce.data import expressions
from sce.data.batch import IGNORE, Batch, collate, collate_shared
from sce.data.build import build_missing, open_splits
from sce.data.datamodule import SplitsDataModule
from sce.data.encode import Encoded, Encoder
from sce.data.example import Document, Example, Span
from sce.data.plan import plan_splits
from sce.data.text import holds_answer
from sce.data.together import Fit, Member, clash, joined
from sce.data_options import DataOptions, MixOptions
from sce.errors import InputError
from sce.model import attention, bfloat16, suffixes
from sce.model.capture import probing
from sce.model.layers import wrap_layers
from sce.model.projections import attention_modules
from sce.options import BatchOptions, LoraOptions, ModelOptions
from test_attention import NoSquares

# -- what the model makes of it -------------------------------------------------------------------


def encoded(name: str, prompt: np.ndarray, target: int, rng: np.random.Generator) -> Encoded:
    return Encoded(
        id=name,
        task="mdqa",
        prompt_ids=prompt.astype(np.int32),
        target_ids=rng.integers(3, 97, target).astype(np.int32),
        end_id=2,
        evidence=np.array([1], dtype=np.int32),
        answers=("a",),
        needles=np.array([0], dtype=np.int32),
        cited=np.full(target, -1, dtype=np.int32),
    )


def contexts(*shapes: tuple[int, list[tuple[int, int]]], seed: int = 0) -> list[list[Encoded]]:
    """For each context its length, and length of question and target of each of its examples."""
    rng = np.random.default_rng(seed)
    made = []
    for number, (length, questions) in enumerate(shapes):
        context = rng.integers(3, 97, length)
        made.append(
            [
                encoded(
                    f"{number}-{n}",
                    # Different first tokens, or the context would be longer than said.
                    np.concatenate([context, [10 + n], rng.integers(3, 97, question - 1)]),
                    target,
                    rng,
                )
                for n, (question, target) in enumerate(questions)
            ]
        )
    return made


TWO = [(19, [(5, 2), (8, 4), (3, 1)]), (27, [(4, 3), (9, 1), (6, 6)])]
SHAPES = {
    "two": [(21, [(4, 2), (7, 3)])],
    "five of unequal lengths": [(30, [(2, 1), (9, 3), (5, 7), (1, 2), (12, 1)])],
    "two contexts": TWO,
    "one token in common": [(1, [(6, 2), (3, 3)])],
    "longer questions than context": [(3, [(20, 2), (14, 5), (17, 1)])],
}


def loss_of(model, batch: Batch) -> torch.Tensor:
    logits = model(**batch.inputs, use_cache=False).logits
    batch.check_pass(model)
    return cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE, reduction="sum"
    )


def trained(model, batches: list[Batch]) -> tuple[float, dict[str, torch.Tensor]]:
    """The summed loss, and every gradient."""
    model.zero_grad()
    loss = torch.stack([loss_of(model, batch) for batch in batches]).sum()
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return float(loss.detach()), gradients


def assert_equal(
    model, groups: list[list[Encoded]], shared: Batch | None = None, rounding: float = 1e-5
) -> None:
    separate = [collate([example]) for group in groups for example in group]
    loss, expected = trained(model, separate)
    own_loss, found = trained(model, [shared or collate_shared(groups)])
    assert own_loss == pytest.approx(loss, rel=rounding)
    assert found.keys() == expected.keys()
    assert expected
    for name, gradient in expected.items():
        atol = 2 * rounding * float(gradient.abs().max()) + 1e-7
        torch.testing.assert_close(found[name], gradient, atol=atol, rtol=1e-3)


def llama(**changes):
    torch.manual_seed(1)
    config = {**families.CONFIGS["llama"].to_diff_dict(), **changes}
    config.pop("model_type", None)
    return families.AutoModelForCausalLM.from_config(
        LlamaConfig(**config), attn_implementation="sce_fused"
    )


@pytest.fixture(scope="module")
def tuned():
    """LoRA on attention, both its matrices drawn, dropout 0."""
    from sce.model import build

    torch.manual_seed(4)
    model = build.add_lora(llama(initializer_range=0.3), LoraOptions(r=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


@pytest.mark.parametrize("recomputed", [False, "full", "selective"])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_every_lora_gradient_are_those_of_separate_examples(tuned, shape, recomputed):
    model = copy.deepcopy(tuned).train()
    wrap_layers(model, ModelOptions(activation_checkpointing=recomputed))
    assert_equal(model, contexts(*SHAPES[shape]))


KEEP_APART = [name for name in families.CONFIGS if name not in families.STATEFUL]


@pytest.mark.parametrize("name", KEEP_APART)
def test_so_it_is_with_windows_caps_sinks_experts_and_absolute_positions(name):
    model = families.build(name, "sce_fused")
    assert_equal(model, contexts(*TWO))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss"])
def test_so_it_is_under_the_eager_backend(name):
    assert_equal(families.build(name, "sce_eager"), contexts(*TWO))


def test_so_it_is_when_rows_take_several_chunks(tuned, monkeypatch):
    monkeypatch.setattr(suffixes, "CHUNK_ROWS", 7)
    assert_equal(copy.deepcopy(tuned), contexts(*TWO))


def test_so_it_is_with_kernels_that_put_rows_before_heads(tuned, monkeypatch):
    """In memory, as the memory-efficient kernel on a GPU does."""
    kernel = torch.nn.functional.scaled_dot_product_attention

    def rows_first(*args, **kwargs):
        return kernel(*args, **kwargs).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", rows_first)
    assert_equal(copy.deepcopy(tuned), contexts(*TWO))


def test_so_it_is_in_bfloat16_on_a_cpu_without_instructions_for_it(tuned, monkeypatch):
    monkeypatch.setattr(bfloat16, "emulates_bfloat16", lambda: True)
    model = copy.deepcopy(tuned).bfloat16()
    bfloat16.emulate(model)
    assert_equal(model, contexts(*TWO), rounding=2.0**-7)


def test_flash_is_handed_the_context_alone(monkeypatch):
    """Without a GPU: the kernel's place is taken by SDPA."""
    seen = []

    def kernel(query, key, value, padding, **kwargs):
        seen.append((query.shape[1], padding.shape[1], kwargs["position_ids"]))
        q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
        output = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=kwargs["softmax_scale"], enable_gqa=True
        )
        return output.transpose(1, 2)

    monkeypatch.setattr(attention, "_flash_attention_forward", kernel)
    groups = contexts((21, [(4, 2), (7, 3)]))
    flash, fused = (families.build("llama", name) for name in ("sce_fa2", "sce_fused"))
    expected = trained(fused, [collate_shared(groups)])[0]
    assert trained(flash, [collate_shared(groups)])[0] == pytest.approx(expected, rel=1e-5)
    assert seen == [(21, 21, None)] * families.LAYERS


def test_a_question_that_sees_another_is_noticed(tuned):
    """The mutant: all suffixes are one, so that the second question sees the first."""
    groups = contexts(*SHAPES["two"])
    batch = collate_shared(groups)
    assert batch.suffixes is not None
    batch.suffixes = replace(batch.suffixes, width=2 * batch.suffixes.width)
    with pytest.raises(AssertionError):
        assert_equal(copy.deepcopy(tuned), groups, batch)


def test_positions_that_do_not_begin_anew_are_noticed(tuned):
    groups = contexts(*SHAPES["two"])
    batch = collate_shared(groups)
    batch.position_ids = torch.arange(batch.input_ids.shape[1])[None]
    with pytest.raises(AssertionError):
        assert_equal(copy.deepcopy(tuned), groups, batch)


def test_a_window_in_columns_in_place_of_positions_is_noticed():
    groups = contexts(*TWO)
    batch = collate_shared(groups)
    assert batch.suffixes is not None
    columns = torch.arange(batch.input_ids.shape[1]).expand(2, -1)
    batch.suffixes = replace(batch.suffixes, position_ids=columns)
    with pytest.raises(AssertionError):
        assert_equal(families.build("mistral", "sce_fused"), groups, batch)


def test_a_question_reads_the_context_and_itself_alone(tuned):
    model = copy.deepcopy(tuned).eval()
    batch = collate_shared(contexts(*SHAPES["two"]))
    assert batch.suffixes is not None
    first, width = batch.suffixes.num_context, batch.suffixes.width

    def second(column: int) -> torch.Tensor:
        changed = replace(batch, input_ids=batch.input_ids.clone())
        changed.input_ids[0, column] = (changed.input_ids[0, column] + 1) % 97
        with torch.no_grad():
            logits = model(**changed.inputs, use_cache=False).logits
        return logits[0, batch.labels.shape[1] // 2 :]

    none = second(first + width - 1)  # the last column of the first question
    assert torch.equal(second(first + width - 2), none)
    assert not torch.equal(second(0), none)
    assert not torch.equal(second(first + width + 1), none)


def test_no_tensor_of_tokens_by_tokens_is_made():
    groups = contexts((1200, [(150, 4)] * 8))
    batch = collate_shared(groups)
    with NoSquares(1100):
        loss_of(llama().train(), batch).backward()


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss"])
def test_nor_is_one_where_rows_are_worked_out_explicitly(name):
    batch = collate_shared(contexts((700, [(50, 4)] * 8)))
    with NoSquares(600):
        loss_of(families.build(name, "sce_fused"), batch).backward()
    families.build(name, "sce_fused").zero_grad()


@pytest.mark.parametrize("name", families.STATEFUL)
def test_models_with_a_state_are_refused(name):
    with pytest.raises(InputError, match="keep a state"):
        loss_of(families.build(name, "sce_fused"), collate_shared(contexts(*TWO)))


def test_masks_cut_into_chunks_are_refused():
    config = families.chunked_config()
    model = families.AutoModelForCausalLM.from_config(config, attn_implementation="sce_fused")
    with pytest.raises(InputError, match="causal within a window"):
        loss_of(model, collate_shared(contexts(*TWO)))


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_tables_that_follow_the_longest_position_are_refused(kind):
    parameters = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    if kind == "longrope":
        parameters |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
        parameters |= {"original_max_position_embeddings": 16}
    model = llama(head_dim=16, rope_parameters=parameters)
    with pytest.raises(InputError, match="a question would depend on its neighbours"):
        loss_of(model, collate_shared(contexts(*TWO)))


def test_a_model_that_drops_the_layout_is_refused():
    class Drops(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = families.build("llama", "sce_fused")
            self.config = self.inner.config

        def forward(self, suffixes=None, **kwargs):
            return self.inner(**kwargs)

    with pytest.raises(InputError, match="0 of this model's 3 layers"):
        loss_of(Drops(), collate_shared(contexts(*TWO)))


def test_heads_are_not_scored_over_shared_contexts():
    model = families.build("llama", "sce_fused")
    batch = collate_shared(contexts(*TWO))
    with probing(attention_modules(model)), pytest.raises(InputError, match="for training"):
        loss_of(model, batch)


# -- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_every_token_and_position_is_that_of_the_single_example(shape):
    groups = contexts(*SHAPES[shape])
    batch = collate_shared(groups)
    layout = batch.suffixes
    assert layout is not None
    assert batch.attention_mask is not None
    labels = batch.labels.view(len(groups), len(groups[0]), -1)
    for row, group in enumerate(groups):
        for number, example in enumerate(group):
            first = layout.num_context + number * layout.width
            columns = [*range(layout.num_context), *range(first, first + layout.width)]
            real = [c for c in columns if batch.attention_mask[row, c]]
            tokens = np.concatenate([example.prompt_ids, example.target_ids])
            assert batch.input_ids[row, real].tolist() == tokens.tolist()
            assert batch.position_ids[row, real].tolist() == list(range(len(tokens)))
            told = labels[row, number]
            assert told[told != IGNORE].tolist() == [*example.target_ids.tolist(), example.end_id]


def test_tokens_and_labels_are_counted_once():
    groups = contexts(*TWO)
    batch = collate_shared(groups).to(torch.device("cpu"))
    rests = sum(q + t for _, questions in TWO for q, t in questions)
    assert batch.num_tokens == 19 + 27 + rests
    assert batch.num_labels == sum(t + 1 for _, questions in TWO for _, t in questions)
    assert batch.num_labels == int((batch.labels != IGNORE).sum())
    assert len(batch.examples) == 6


def test_the_same_prompt_twice_leaves_each_a_token_of_its_own():
    ((one, _),) = contexts((12, [(3, 2), (3, 2)]))
    batch = collate_shared([[one, one]])
    assert batch.suffixes is not None
    assert batch.suffixes.num_context == len(one.prompt_ids) - 1
    assert_equal(families.build("llama", "sce_fused"), [[one, one]])


# -- which questions share a context --------------------------------------------------------------


def plan_of(tokenizer, count: int, **changes):
    options = DataOptions(**{"questions_per_context": count, "num_documents": 2 * count, **changes})
    return plan_splits(options, Encoder(tokenizer), 3, ["train"])


def groups_of(examples: list, count: int) -> list[list]:
    return [examples[n : n + count] for n in range(0, len(examples), count)]


CELLS = [
    ("mdqa", 4, "real", "real", {}),
    ("mdqa", 4, "limited", "real", {"limited": "who"}),
    ("mdqa", 4, "high", "real", {}),
    ("mdqa", 4, "real", "low", {}),
    ("mdqa", 4, "low_entity", "high", {"entity_base": "real"}),
    ("mdqa", 4, "low", "low", {}),
    ("mdqa", 4, "high", "high", {}),
    ("mdqa", 4, "symbolic", "symbolic", {}),
    ("mdqa", 3, "real", "real", {"num_documents": None, "context_tokens": 900}),
    ("mdqa", 3, "real", "real", {"distractors": "bm25"}),
    ("musique", 2, "real", "real", {"num_documents": 10}),
    ("musique", 2, "high", "real", {"num_documents": 10}),
    ("musique", 2, "symbolic", "symbolic", {"num_documents": 10}),
    ("summhay", 2, "real", "real", {"num_documents": 16}),
    ("summhay", 2, "high", "real", {"num_documents": 16}),
    ("summhay", 2, "high", "high", {"num_documents": 16}),
]
IDS = [f"{t}-{k}-{c}-{x}{'-' * bool(o)}{'-'.join(o)}" for t, k, c, x, o in CELLS]


@pytest.mark.parametrize(("task", "count", "concept", "context", "more"), CELLS, ids=IDS)
def test_one_context_holds_all_that_each_needs_and_no_answer_besides(
    tokenizer, task, count, concept, context, more
):
    values = {"task": task, "concept": concept, "context": context, **more}
    recipe = plan_of(tokenizer, count, **values).recipes["train"]
    assert len(recipe) % count == 0
    examples = [recipe.example(index) for index in range(min(len(recipe), 4 * count))]
    encoder = Encoder(tokenizer)
    for group in groups_of(examples, count):
        assert len({example.question for example in group}) == count
        assert len({example.id for example in group}) == count
        for example in group:
            example.check()
            assert example.documents == group[0].documents
            if task != "summhay":
                others = [d for d in example.documents if d.id not in example.gold_ids]
                assert not any(holds_answer(f"{d.title} {d.text}", example.secrets) for d in others)
            if "context_tokens" in more:
                assert encoder.num_prompt_tokens(example) <= more["context_tokens"]
        made = [encoder.encode(example) for example in group]
        batch = collate_shared([made])
        assert batch.suffixes is not None
        shortest = min(len(e.prompt_ids) for e in made)
        # Documents and instruction are shared: what is left is the question and the turn's end.
        assert batch.suffixes.num_context > 0.8 * shortest
        for example in made:
            assert example.evidence.max() < batch.suffixes.num_context


def test_a_citation_names_every_document_that_states_the_insight(tokenizer):
    """Known by the haystack's own marks: a shared context holds none that is left out."""
    recipe = plan_of(tokenizer, 2, task="summhay", concept="real", num_documents=16).recipes
    alone = make_splits(
        DataOptions(task="summhay", concept="real", num_documents=None), Encoder(tokenizer), 3
    )["train"]
    whole = {e.question: {d.text for d in e.documents} for e in alone.examples}
    cited = {
        e.question: {d.text for d in e.documents if d.id in e.gold_ids} for e in alone.examples
    }
    for example in recipe["train"].examples():
        shown = {d.text for d in example.documents}
        assert shown <= whole[example.question]
        found = {d.text for d in example.documents if d.id in example.gold_ids}
        assert found == shown & cited[example.question] == cited[example.question]


def test_example_i_depends_on_seed_and_i_alone(tokenizer):
    values = {"concept": "real", "context": "real", "num_train": 24}
    first = plan_of(tokenizer, 4, **values).recipes["train"]
    again = plan_of(tokenizer, 4, **{**values, "num_train": 40}).recipes["train"]
    assert again.example(21) == first.example(21)
    assert first.example(5) == again.example(5)
    assert first.examples() == again.examples()[:24]
    options = DataOptions(questions_per_context=4, num_documents=8, **values)
    other = plan_splits(options, Encoder(tokenizer), 4, ["train"]).recipes["train"]
    assert other.example(5).question != first.example(5).question


def test_each_question_is_asked_once(tokenizer):
    plan = plan_of(tokenizer, 4, concept="real", context="real")
    ids = [example.id for example in plan.recipes["train"].examples()]
    assert len(ids) == len(set(ids)) == len(plan.questions["train"]) // 4 * 4


def test_a_mixture_shares_contexts_within_a_part(tokenizer):
    mix = [MixOptions("real", weight=1.0), MixOptions("low", "low", 3.0)]
    examples = plan_of(tokenizer, 4, mix=mix, num_train=64).recipes["train"].examples()
    low = [example.id.startswith("train-low-low") for example in examples]
    assert sum(low) == 48
    assert all(len(set(group)) == 1 for group in groups_of(low, 4))
    assert len({example.id for example in examples}) == 64


def test_one_question_a_context_is_what_there_was_without_the_option(tokenizer):
    alone = make_splits(DataOptions(concept="low", num_train=6), Encoder(tokenizer))
    one = make_splits(
        DataOptions(concept="low", num_train=6, questions_per_context=1), Encoder(tokenizer)
    )
    assert one["train"].sha256 == alone["train"].sha256


def test_validation_and_reference_are_never_shared(tokenizer):
    values = {"concept": "low", "num_train": 8, "num_documents": 8}
    alone = make_splits(DataOptions(**values), Encoder(tokenizer))
    shared = make_splits(DataOptions(**values, questions_per_context=4), Encoder(tokenizer))
    assert shared["train"].sha256 != alone["train"].sha256
    for name in ("val", "reference"):
        assert shared[name].sha256 == alone[name].sha256
        assert shared[name].recipe.together == 1


def question(name: str, documents: list[tuple[str, str]], answer: str, gold: int = 0) -> Example:
    listed = tuple(Document(d, "", text) for d, text in documents)
    start = listed[gold].text.index(answer)
    span = Span(listed[gold].id, start, start + len(answer))
    return Example(name, "mdqa", listed, f"{name}?", (answer,), (span,))


A = question("a", [("d0", "Ada was born in Ulm."), ("d1", "Rain fell on Bern.")], "Ulm")
B = question("b", [("d0", "Bob was born in Bern."), ("d1", "Ulm is old.")], "Bern")
C = question("c", [("d0", "Cy moved from Ulm to Rome.")], "Rome")
D = question("d", [("d0", "Ada was born in Ulm."), ("d1", "Snow fell.")], "Ada")


def test_questions_whose_documents_answer_each_other_are_kept_apart():
    fit = Fit(2)
    assert fit.grouped([A, C, B], [0, 1, 2]) == [0, 2]  # c's document holds a's answer
    assert fit.grouped([A, D], [0, 1]) == []
    assert clash([Member(A), Member(C)]) == (0, 1)
    assert clash([Member(A), Member(B)]) is None


def test_invented_questions_with_one_answer_are_drawn_anew(tokenizer, monkeypatch):
    plan = plan_of(tokenizer, 2, concept="high", context="high", num_train=4)
    draw, drawn = expressions.draw, []

    def first_twice(*args):
        drawn.append(draw(*args))
        return drawn[0 if len(drawn) == 2 else -1]

    monkeypatch.setattr(expressions, "draw", first_twice)
    pair = [plan.recipes["train"].example(n) for n in range(2)]
    assert len({example.answers for example in pair}) == 2
    for example in pair:
        others = [d for d in example.documents if d.id not in example.gold_ids]
        assert not any(holds_answer(f"{d.title} {d.text}", example.secrets) for d in others)


def test_a_joint_context_leaves_out_what_answers_any_of_its_questions(tokenizer):
    whole, own = joined([Member(A), Member(B)], Encoder(tokenizer))
    # Both second documents hold the other's answer; ids that stand for two documents differ.
    assert [d.text for d in whole.documents] == ["Ada was born in Ulm.", "Bob was born in Bern."]
    assert len({d.id for d in whole.documents}) == 2
    assert own[0].meta["own_drops"] == 2
    assert set(whole.secrets) == {"Ulm", "Bern"}
    assert [e.evidence[0].document for e in own] == [d.id for d in whole.documents]


# -- from options to training batches -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions_per_context": 0}, "must be >= 1"),
        ({"questions_per_context": 8, "num_documents": 3}, "a document for each"),
        ({"questions_per_context": 3, "num_documents": 6, "num_train": 10}, "no multiple"),
        ({"questions_per_context": 2, "task": "needle"}, "asks one question of a text"),
        (
            {"questions_per_context": 2, "concept": "low_entity", "context": "real"},
            "low_entity in a real context",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        DataOptions(**changes)
    assert "\n" not in str(caught.value)


def test_what_only_the_questions_tell_is_refused_by_name(tokenizer):
    with pytest.raises(InputError, match="too few questions that fit one context"):
        plan_of(tokenizer, 500, concept="real")
    recipe = plan_of(tokenizer, 4, task="musique", concept="real", num_documents=5).recipes
    with pytest.raises(InputError, match=r"and the 3 that share its context: .* over data.num_doc"):
        recipe["train"].example(0)


def test_built_data_is_served_context_by_context(tokenizer, tmp_path):
    values = {"concept": "low", "num_train": 24, "num_val": 4, "num_reference": 4}
    encoder = Encoder(tokenizer)
    options = DataOptions(questions_per_context=3, num_documents=4, **values)
    plan = plan_splits(options, encoder, 0)
    folders = build_missing(plan, encoder, out=tmp_path)
    splits, _ = open_splits(folders)
    assert len(splits["train"].encoded) == 24
    alone = plan_splits(DataOptions(num_documents=4, **values), encoder, 0)
    cached, other = build_missing(plan, encoder), build_missing(alone, encoder)
    assert cached["train"] != other["train"]
    assert cached["val"] == other["val"]
    served = SplitsDataModule(plan, encoder, BatchOptions(train=2), 0)
    served.setup("fit")
    batches = list(served.train_dataloader())
    assert len(batches) == 4
    assert sorted(e.id for b in batches for e in b.examples) == sorted(
        e.id for e in splits["train"].encoded
    )
    for batch in batches:
        assert batch.input_ids.shape[0] == 2
        assert len(batch.examples) == 6
        for group in groups_of(batch.examples, 3):
            assert len({int(e.id.split("-")[-1]) // 3 for e in group}) == 1
    small = SplitsDataModule(plan, encoder, BatchOptions(train=9), 0)
    small.splits = splits
    with pytest.raises(InputError, match="8 contexts, fewer than one optimiser step takes"):
        small.train_dataloader()


def test_a_run_trains_on_shared_contexts(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = ("data.questions_per_context=3", "data.num_documents=4", "batch.train=2")
    folder = run_train(
        tiny_folder, *shared, "trainer.max_steps=2", "trainer.accumulate_grad_batches=1"
    )
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2
    options = DataOptions(questions_per_context=3, num_documents=4, num_train=12)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    made = make_splits(options, Encoder(tokenizer))["train"].encoded
    # Two steps of two contexts are one epoch: every answer and its end once.
    assert rows[-1]["target_tokens"] == sum(len(e.target_ids) + 1 for e in made)
