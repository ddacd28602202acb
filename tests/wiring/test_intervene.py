"""python -m sce.intervene: what it writes, in every mode, and what it refuses."""

import csv
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_wandb import FakeWandb, wandb_alone

from runs import configured
from sce.errors import InputError
from sce.intervene import intervene, main
from sce.intervene_options import InterveneConfig
from sce.interventions import answering
from sce.model import build
from sce.model.attention import Choice
from sce.model.source import find
from sce.options import LoraOptions, ModelOptions
from sce.records import HeadScores, write_json

TINY = [
    "model.dtype=float32",
    "data.num_train=4",
    "data.num_val=5",
    "data.num_reference=4",
    "data.num_documents=2",
    "max_new_tokens=3",
    "batch.eval=3",
    "logger=none",
    "num_controls=2",
]
MEASURES = ("f1", "exact_match", "answer_nll")


@pytest.fixture(scope="module")
def source(peaky_folder):
    return find(ModelOptions(name_or_path=str(peaky_folder)))


@pytest.fixture(scope="module")
def write_scores(source, tmp_path_factory):
    """Writes a HeadScores file in which some heads of 3 layers x 4 heads score."""
    folder = tmp_path_factory.mktemp("scores")

    def write(name: str, best: dict[tuple[int, int], float], shape=(3, 4), **changes):
        scores = np.zeros(shape)
        for head, value in best.items():
            scores[head] = value
        provenance = {"weights_sha256": source.sha256, **changes}
        file = folder / f"{name}.json"
        HeadScores("copy", "teacher_forced", "exact", scores, 7, provenance=provenance).save(file)
        return file

    return write


@pytest.fixture(scope="module")
def scores(write_scores):
    best = {(1, 2): 0.9, (0, 0): 0.5, (2, 3): 0.3, (1, 1): 0.05}
    return write_scores("copy", best)


@pytest.fixture(scope="module")
def other_scores(write_scores):
    return write_scores("other", {(1, 2): 0.8, (2, 0): 0.6})


@pytest.fixture(scope="module")
def adapters(source, tmp_path_factory):
    """Two adapters of the tiny model, as training exports them."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("real", "synthetic")):
        model = build.load_model(source, ModelOptions(dtype="float32"), Choice("sdpa", "test"))
        torch.manual_seed(seed)
        model = build.add_lora(model, LoraOptions(r=2))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.2)
        build.save_adapter(model, folder / name)
        note = {"weights_sha256": source.sha256, "rope": {"theta": 10_000.0}, "seed": seed}
        write_json(folder / name / "sce.json", note)
    return {name: folder / name for name in ("real", "synthetic")}


@pytest.fixture
def run(peaky_folder, tmp_path):
    def call(*overrides: str):
        out = tmp_path / "out"
        given = [*TINY, f"model.name_or_path={peaky_folder}", f"out={out}", *overrides]
        intervene(configured("intervene", InterveneConfig, given))
        return json.loads((out / "results.json").read_text()), out

    return call


def test_a_knockout_leaves_results_table_and_figure(run, scores, caplog):
    with caplog.at_level("INFO", logger="sce"):
        result, out = run(f"heads.file={scores}", "heads.k=[1,3]")
    assert sorted(p.name for p in out.iterdir()) == ["figure.png", "results.json", "table.csv"]
    assert result["schema"] == "sce.intervention/1"
    assert [result[n] for n in ("method", "ablation", "positions")] == [
        "knockout",
        "zero",
        "answer",
    ]
    kinds = [(row["kind"], row["k"], row["draw"]) for row in result["rows"]]
    of_k = [("layer_matched", 0), ("layer_matched", 1), ("uniform", 0), ("uniform", 1)]
    expected = [("none", 0, None), ("heads", 1, None), ("heads", 3, None)]
    assert kinds == expected + [(kind, k, draw) for k in (1, 3) for kind, draw in of_k]
    for row in result["rows"]:
        assert row["n"] == 5
        for name in MEASURES:
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    heads = {(s["kind"], s["k"], s["draw"]): s["heads"] for s in result["sets"]}
    assert heads["heads", 1, None] == ["1-2"]
    assert heads["heads", 3, None] == ["0-0", "1-2", "2-3"]
    swept = set(heads["heads", 3, None])
    assert all(not swept & set(h) for (kind, _, _), h in heads.items() if kind != "heads")
    layers = [sorted(h[0] for h in heads[kind, 3, 1]) for kind in ("heads", "layer_matched")[1:]]
    assert layers == [["0", "1", "2"]]
    by_id = result["sets"][0]["per_example"]
    assert len(by_id["f1"]) == 5 and set(by_id) == {*MEASURES, "prediction"}
    assert {(c["name"], c["kind"]) for c in result["curves"]} == {
        ("copy", "heads"),
        ("copy", "layer_matched"),
        ("copy", "uniform"),
    }
    assert [c["control"] for c in result["contrasts"]] == ["layer_matched", "uniform"] * 2
    assert result["provenance"]["weights_sha256"]
    assert len((out / "table.csv").read_text().splitlines()) == 1 + len(kinds)
    with (out / "table.csv").open() as stream:
        assert [row["k"] for row in csv.DictReader(stream)] == [str(k) for _, k, _ in kinds]
    assert "answered 5 of 5 examples" in caplog.text
    assert "no ablation" in caplog.text and "n = 5 examples" in caplog.text


@pytest.mark.parametrize("ablation", ["zero", "mean", "uniform"])
@pytest.mark.parametrize("positions", ["all", "answer"])
def test_every_ablation_changes_the_likelihood(run, scores, ablation, positions):
    options = [f"heads.file={scores}", "heads.tau=0.4", "num_controls=0", "closed_book=null"]
    result, _ = run(*options, f"ablation={ablation}", f"positions={positions}")
    before, heads = result["rows"]
    assert heads["k"] == 2
    assert heads["answer_nll"] != before["answer_nll"]
    assert result["calibration"] == ("reference" if ablation == "mean" else None)


def run_again(run, options, tmp_path):
    shutil.rmtree(tmp_path / "out")
    return run(*options)


def test_a_run_is_repeated_bit_for_bit_and_another_seed_draws_other_controls(run, scores, tmp_path):
    options = [f"heads.file={scores}", "heads.k=[2]", "closed_book=null"]
    result, _ = run(*options)
    again, _ = run_again(run, options, tmp_path)
    assert again == result
    other, _ = run_again(run, [*options, "seed=1"], tmp_path)
    heads = [[s["heads"] for s in r["sets"]] for r in (result, other)]
    assert heads[0][0] == heads[1][0]
    assert heads[0][1:] != heads[1][1:]


def test_only_the_rows_from_the_last_prompt_token_on_are_ablated(run, scores, tmp_path):
    options = [f"heads.file={scores}", "heads.tau=0.2", "num_controls=0", "closed_book=null"]
    answer, _ = run(*options)
    everywhere, _ = run_again(run, [*options, "positions=all"], tmp_path)
    assert answer["no_ablation"]["answer_nll"] == pytest.approx(
        everywhere["no_ablation"]["answer_nll"], rel=1e-4
    )
    assert answer["rows"][1]["answer_nll"] != pytest.approx(
        everywhere["rows"][1]["answer_nll"], rel=1e-3
    )


def test_a_list_of_heads_several_files_and_an_adapter(
    run, scores, other_scores, adapters, tmp_path
):
    options = [f"adapter={adapters['real']}", "closed_book=null", "num_controls=1"]
    result, _ = run("heads.list=[1-2,0-3]", *options)
    assert result["sets"][0]["heads"] == ["0-3", "1-2"]
    assert result["provenance"]["adapters"]["adapter"]["seed"] == 0
    result, _ = run_again(
        run, [f"heads.file=[{scores},{other_scores}]", "heads.k=[1,2]", *options], tmp_path
    )
    names = {(s["name"], s["kind"], s["k"]): s["heads"] for s in result["sets"]}
    assert names["other", "heads", 2] == ["1-2", "2-0"]
    # Uniform controls avoid all that is swept, so both files have the same.
    assert names["copy", "uniform", 2] == names["other", "uniform", 2]
    assert list(result["score_files"]) == [str(scores), str(other_scores)]


def test_questions_without_documents_are_kept_where_they_are_known(run, scores, tmp_path):
    file = tmp_path / "known.jsonl"
    rows = [{"id": "q0", "question": "what comes after a", "answers": ["never said by anyone"]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = [f"heads.file={scores}", "heads.k=[1]", "num_controls=1", f"closed_book={file}"]
    result, _ = run(*options)
    assert result["closed_book"] == {"num_asked": 1, "num_right": 0, "ids": []}
    assert {row["closed_book"] for row in result["rows"]} == {None}
    assert {row["closed_book_n"] for row in result["rows"]} == {0}
    said = first_prediction(run, options, tmp_path)
    file.write_text(json.dumps({**rows[0], "answers": [said]}) + "\n")
    result, _ = run_again(run, options, tmp_path)
    assert result["closed_book"] == {"num_asked": 1, "num_right": 1, "ids": ["q0"]}
    assert result["rows"][0]["closed_book"] == 1
    assert all(row["closed_book"] in (0, 1) for row in result["rows"])


def first_prediction(run, options, tmp_path) -> str:
    """What the model says to the question, found by watching what it is measured by."""
    from sce.metrics import normalize

    seen = []
    patch = pytest.MonkeyPatch()
    patch.setattr(answering, "substring_exact_match", lambda text, answers: bool(seen.append(text)))
    run_again(run, options, tmp_path)
    patch.undo()
    words = [word for word in seen[0].split() if normalize(word)]
    return words[0]


def test_a_target_with_all_heads_of_the_source_is_patched_without_a_complement(
    run, scores, adapters
):
    result, _ = run(
        "method=patch",
        f"source={adapters['real']}",
        f"target={adapters['synthetic']}",
        f"source_scores={scores}",
        f"target_scores={scores}",
        "direction=forward",
    )
    sets = {s["name"] for s in result["directions"]["forward"]["sets"]}
    assert "complement" not in sets and {"intersection", "all"} <= sets
    assert any("sets=complement is left out" in warning for warning in result["warnings"])


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_patching_leaves_results_table_and_figure(
    run, scores, other_scores, adapters, direction, caplog
):
    with caplog.at_level("INFO", logger="sce"):
        result, out = run(
            "method=patch",
            f"source={adapters['real']}",
            f"target={adapters['synthetic']}",
            f"source_scores={scores}",
            f"target_scores={other_scores}",
            f"direction={direction}",
        )
    assert sorted(p.name for p in out.iterdir()) == ["figure.png", "results.json", "table.csv"]
    ways = ["forward", "reverse"] if direction == "both" else ["forward"]
    assert list(result["directions"]) == ways
    forward = result["directions"]["forward"]
    sets = {(s["name"], s["draw"]): s["heads"] for s in forward["sets"]}
    assert sets["intersection", None] == ["1-2"]
    assert sets["complement", None] == ["0-0", "2-3"]
    assert len(sets["all", None]) == 12
    for draw in range(2):
        assert len(sets["complement", draw]) == 2
        assert not {"1-2", "0-0", "2-3"} & {*sets["complement", draw], *sets["intersection", draw]}
    names = [(row["name"], row["kind"]) for row in forward["rows"]]
    assert names[0] == ("original", "none") and names[-1] == ("source", "source")
    for row in forward["rows"][1:-1]:
        assert {"share", "gap", "gap_low", "gap_high", "f1_p", "exact_match_p"} <= set(row)
    assert forward["rows"][1]["answer_nll"] != forward["rows"][0]["answer_nll"]
    assert [c["name"] for c in forward["counter_examples"][:3]] == [
        "intersection",
        "complement",
        "all",
    ]
    assert "source into target" in caplog.text
    if direction == "both":
        reverse = result["directions"]["reverse"]
        assert reverse["original"] == forward["source"]
        assert reverse["source"] == forward["original"]


def test_patching_from_the_untuned_model_a_file_and_a_model_into_itself(
    run, scores, adapters, tmp_path
):
    options = ["method=patch", f"target={adapters['real']}", f"sets=[{scores},random]"]
    result, _ = run(*options)
    forward = result["directions"]["forward"]
    assert forward["sets"][0]["name"] == "copy"
    assert forward["sets"][0]["heads"] == ["0-0", "1-2", "2-3"]
    assert result["provenance"]["adapters"]["source"] is None
    result, _ = run_again(run, [*options, f"source={adapters['real']}"], tmp_path)
    forward = result["directions"]["forward"]
    for one in forward["sets"]:
        assert one["per_example"] == forward["original"] == forward["source"]


def test_curves_go_to_the_logger(run, scores, adapters):
    _, out = run(f"heads.file={scores}", "heads.k=[1,2]", "logger=csv", "closed_book=null")
    (file,) = out.glob("csv/*/metrics.csv")
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    for kind in ("heads", "layer_matched", "uniform"):
        found = [float(row[f"intervene/copy/{kind}/answer_nll"]) for row in rows]
        assert len(set(found)) == 3
        assert all(row[f"intervene/copy/{kind}/f1"] for row in rows)


PATCH = ["method=patch", "source={real}", "target={synthetic}"]
BOTH = [*PATCH, "source_scores={scores}", "target_scores={other}"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "heads.file=SCORES.json, or heads.list"),
        (["heads.file={scores}", "heads.list=[0-1]"], "and not both"),
        (["heads.file={scores}", "heads.k=[13]"], "heads.k=13: the model has 12 heads"),
        (["heads.file={scores}", "heads.k=[5]"], "only 4 heads of .* score above 0"),
        (["heads.file={scores}", "heads.k=[0]"], "whole numbers >= 1"),
        (["heads.file={scores}", "heads.k=[]"], "the list is empty"),
        (["heads.file={scores}", "heads.k=[2,2]"], "stands there twice"),
        (["heads.file={scores}", "heads.k=[2]", "heads.tau=0.1"], "exclude each other"),
        (["heads.file={scores}", "heads.tau=0.95"], "no head of .* scores above it"),
        (["heads.file={scores}", "heads.tau=nan"], "must be a number"),
        (["heads.file=absent.json"], "absent.json: no such file"),
        (["heads.file={truncated}"], "truncated"),
        (["heads.file={shape}"], "2 layers x 4 heads, but the model has 3 x 4"),
        (["heads.file={weights}"], "scored on weights ffff"),
        (["heads.file={nan}"], "head 1-2"),
        (["heads.list=[3-0]"], "head 3-0 is out of range"),
        (["heads.list=[0-4]"], "head 0-4 is out of range"),
        (["heads.list=[one]"], "'one' is no head"),
        (["heads.list=[0-1,0-1]"], "stands there twice"),
        (["heads.list=[0-0,0-1,0-2,0-3,1-0,1-1,1-2]"], "cannot be drawn: 5 of 12 are left"),
        (["heads.file={scores}", "ablation=noise"], "ablation=noise"),
        (["heads.file={scores}", "positions=some"], "positions=some"),
        (["heads.file={scores}", "method=prune"], "method=prune"),
        (["heads.file={scores}", "split=test"], "split=test"),
        (["heads.file={scores}", "num_controls=-1"], "num_controls"),
        (["heads.file={scores}", "ablation=mean", "calibration=val"], "taken over another one"),
        (["heads.file={scores}", "source={real}"], "belong to method=patch"),
        (["heads.file={scores}", "adapter={truncated}"], "no adapter_config.json"),
        (["heads.file={scores}", "adapter={foreign}"], "tuned on weights eeee"),
        (["heads.file={scores}", "closed_book=absent.jsonl"], "absent.jsonl"),
        (["heads.file={scores}", "closed_book={truncated}"], "not JSON"),
        (["heads.file={scores}", "out={real}"], "exists and is not empty"),
        (["heads.file={scores}", "direction=both"], "method=knockout does not use it, but patch"),
        (["heads.file={scores}", "calibration=train"], "only ablation=mean has means to take"),
        ([*BOTH, "sets=[all]", "closed_book=absent.jsonl"], "method=patch does not use it"),
        (["method=patch"], "needs source=FOLDER and target=FOLDER"),
        ([*PATCH], "needs source_scores=A.json and target_scores=B.json"),
        ([*PATCH, "source_scores={scores}", "target_scores={disjoint}"], "intersection is empty"),
        (
            [*PATCH, "source_scores={scores}", "target_scores={scores}", "sets=[complement]"],
            "complement is empty",
        ),
        ([*BOTH, "sets=[]"], "the list is empty"),
        ([*BOTH, "sets=[some]"], "choose from intersection"),
        ([*BOTH, "sets=[all,all]"], "stands there twice"),
        ([*BOTH, "sets=[random]"], "needs a set to be as large as"),
        ([*BOTH, "direction=back"], "direction=back"),
        ([*BOTH, "scorer=copy_needle"], "heads.tau="),
        ([*BOTH, "heads.k=[1]"], "belong to method=knockout"),
        ([*BOTH, "adapter={real}"], "belongs to method=knockout"),
        (["method=patch", "source={real}", "target={foreign}", "sets=[all]"], "different weights"),
        (["method=patch", "source={real}", "target={rope}", "sets=[all]"], "different rope_theta"),
        (
            ["method=patch", "source={real}", "target=absent", "sets=[all]"],
            "no adapter_config.json",
        ),
    ],
)
def test_bad_input_is_one_clear_error_and_nothing_is_written(
    run, scores, other_scores, write_scores, adapters, tmp_path, overrides, message
):
    names = {"scores": scores, "other": other_scores, **adapters}
    text = scores.read_text()
    files = {
        "truncated": text[:200],
        "nan": text.replace("0.9", "NaN"),
    }
    for name, content in files.items():
        names[name] = tmp_path / f"{name}.json"
        names[name].write_text(content)
    names["shape"] = write_scores("shape", {(0, 0): 0.5}, shape=(2, 4))
    names["weights"] = write_scores("weights", {(0, 0): 0.5}, weights_sha256="f" * 64)
    names["disjoint"] = write_scores("disjoint", {(2, 1): 0.5})
    for name, note in (
        ("foreign", {"weights_sha256": "e" * 64}),
        ("rope", {"rope": {"theta": 5e5}}),
    ):
        names[name] = tmp_path / name
        names[name].mkdir()
        for file in adapters["real"].iterdir():
            (names[name] / file.name).write_bytes(file.read_bytes())
        write_json(names[name] / "sce.json", note)
    filled = [text.format(**names) for text in overrides]
    with pytest.raises(InputError, match=message):
        run(*filled)
    assert not (tmp_path / "out").exists()


def test_a_user_s_error_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["sce.intervene", f"out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("sce: method=knockout needs heads.file=")


def test_the_defaults_in_yaml_mirror_those_in_the_code():
    given = configured("intervene", InterveneConfig, ["heads.list=[0-1]"])
    coded = InterveneConfig(heads=given.heads)
    assert given == coded


# -- who, where and over what, by other means than the command's own -----------------------------

MUTED = {(1, 2), (1, 3)}
"""The heads of one key-value head, which an adapter can silence exactly."""


@pytest.fixture(scope="module")
def mute(source, tmp_path_factory):
    """An adapter that takes the values of MUTED away, and changes nothing else."""
    folder = tmp_path_factory.mktemp("mute")
    model = build.load_model(source, ModelOptions(dtype="float32"), Choice("sdpa", "test"))
    model = build.add_lora(model, LoraOptions(r=16))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.zero_()
        values = model.base_model.model.model.layers[1].self_attn.v_proj
        values.lora_A["default"].weight[:] = values.base_layer.weight[16:32]
        values.lora_B["default"].weight[16:32] = -torch.eye(16) / values.scaling["default"]
    build.save_adapter(model, folder)
    write_json(folder / "sce.json", {"weights_sha256": source.sha256, "rope": {"theta": 10_000.0}})
    return folder


def nll_of(per_example) -> list[float]:
    return list(per_example["answer_nll"].values())


def test_patching_from_an_adapter_without_heads_is_knocking_them_out(
    run, write_scores, mute, tmp_path
):
    file = write_scores("muted", dict.fromkeys(MUTED, 0.9))
    patch = ["method=patch", f"source={mute}", f"sets=[{file}]", "direction=both"]
    patched, _ = run(*patch)
    knock = [f"heads.file={file}", "heads.tau=0.1", "num_controls=0", "closed_book=null"]
    knocked_out, _ = run_again(run, knock, tmp_path)
    without = nll_of(knocked_out["sets"][0]["per_example"])
    forward, reverse = (patched["directions"][way] for way in ("forward", "reverse"))
    # Forward: the untuned model is patched, and loses the heads as in the knockout.
    assert nll_of(forward["original"]) == pytest.approx(
        nll_of(knocked_out["no_ablation"]), rel=1e-4
    )
    assert nll_of(forward["sets"][0]["per_example"]) == pytest.approx(without, rel=1e-4)
    # Reverse: the muted model is patched, whose context was read without them.
    assert nll_of(reverse["original"]) == nll_of(forward["source"])
    assert nll_of(reverse["original"]) != pytest.approx(nll_of(forward["original"]), rel=1e-2)
    assert nll_of(reverse["sets"][0]["per_example"]) != pytest.approx(without, rel=1e-2)


def config_of(*overrides: str):
    return configured("intervene", InterveneConfig, [*TINY, *overrides])


@torch.no_grad()
def by_hand(source, overrides, heads, ablation, positions):
    """Answer NLL of every validation example without cache, batch or padding, and head means."""
    from sce.assemble import assemble

    config = config_of(*overrides)
    parts = assemble(config, ["val", config.calibration], on_gpu=False)
    model = build.load_model(parts.source, config.model, parts.attention).eval()
    outputs = [layer.self_attn.o_proj for layer in model.model.layers]

    def forward(one, hook):
        ids = torch.tensor([[*one.prompt_ids.tolist(), *one.target_ids.tolist()]])
        first = len(one.prompt_ids) - 1 if positions == "answer" else 0
        handles = [
            o.register_forward_pre_hook(lambda m, a, n=n: hook(n, a[0], first))
            for n, o in enumerate(outputs)
        ]
        logits = model(input_ids=ids, use_cache=False).logits[0, len(one.prompt_ids) - 1 :]
        for handle in handles:
            handle.remove()
        labels = torch.tensor([*one.target_ids.tolist(), one.end_id])
        return float(torch.nn.functional.cross_entropy(logits, labels))

    seen = {n: [] for n in range(len(outputs))}
    for one in parts.splits[config.calibration].encoded:
        forward(one, lambda n, x, first: seen[n].append(x[0, first:].clone()))
    means = {n: torch.cat(rows).double().mean(dim=0).float() for n, rows in seen.items()}

    def ablate(n, x, first):
        x = x.clone()
        for head in (h for at, h in heads if at == n):
            own = slice(16 * head, 16 * head + 16)
            x[0, first:, own] = means[n][own] if ablation == "mean" else 0
        return (x,)

    return {one.id: forward(one, ablate) for one in parts.splits["val"].encoded}


@pytest.mark.parametrize(
    ("ablation", "positions", "calibration"),
    [
        ("zero", "answer", "reference"),
        ("mean", "answer", "reference"),
        ("mean", "all", "reference"),
        ("mean", "answer", "train"),
    ],
)
def test_an_ablation_is_what_it_is_by_hand(
    run, scores, source, peaky_folder, ablation, positions, calibration
):
    """The same columns, and means over the calibration split at the positions ablated."""
    options = [f"ablation={ablation}", f"positions={positions}", f"calibration={calibration}"]
    options += [f"heads.file={scores}", "heads.k=[3]", "num_controls=0", "closed_book=null"]
    result, _ = run(*options)
    heads = [(0, 0), (1, 2), (2, 3)]
    model = f"model.name_or_path={peaky_folder}"
    expected = by_hand(source, [model, *options], heads, ablation, positions)
    found = result["sets"][0]["per_example"]["answer_nll"]
    assert found == pytest.approx(expected, rel=1e-3)
    assert found != pytest.approx(result["no_ablation"]["answer_nll"], rel=1e-2)


def test_a_curve_of_controls_is_the_mean_of_its_draws(run, scores, tmp_path):
    file = tmp_path / "known.jsonl"
    question = {"id": "q0", "question": "what", "answers": ["a"]}
    file.write_text(json.dumps(question) + "\n")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        # Right without ablation, and with every second set after it.
        every_second = lambda *a: not seen.append(a) and len(seen) % 2 == 1  # noqa: E731
        patch.setattr(answering, "substring_exact_match", every_second)
        result, _ = run(f"heads.file={scores}", "heads.k=[1,3]", f"closed_book={file}")
    for curve in (c for c in result["curves"] if c["kind"] != "heads"):
        for index, k in enumerate(curve["k"]):
            of_k = (curve["name"], curve["kind"], k)
            draws = [r for r in result["rows"] if (r["name"], r["kind"], r["k"]) == of_k]
            assert len(draws) == 2
            assert curve["draws"][index] == [row["f1"] for row in draws]
            for name in ("f1", "answer_nll", "closed_book"):
                mean = sum(row[name] for row in draws) / 2
                assert curve[name][index] == pytest.approx(mean), (of_k, name)
            assert draws[0]["answer_nll"] != pytest.approx(draws[1]["answer_nll"], rel=1e-4)
            assert {row["closed_book"] for row in draws} == {0, 1}


def test_what_is_known_is_asked_in_the_batches_in_which_it_was_found_known(
    run, scores, tmp_path, monkeypatch
):
    """Answers that hang on who else is in the batch, as rounding makes them, stay the same."""
    file = tmp_path / "known.jsonl"
    rows = [{"id": f"q{n}", "question": "what " * (n + 1), "answers": ["red"]} for n in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = answering.decode

    def decode(model, batch, settings, prefix=None):
        ids = {e.id for e in batch.examples}
        for outcome in plain(model, batch, settings, prefix):
            right = "q0" in ids and outcome.example.id != "q0"
            answer = tuple(outcome.example.target_ids.tolist()) if right else ()
            closed = outcome.example.task == "closed_book"
            yield replace(outcome, answer_ids=answer) if closed else outcome

    monkeypatch.setattr(answering, "decode", decode)
    result, _ = run(f"heads.file={scores}", "heads.k=[1]", "num_controls=1", f"closed_book={file}")
    assert result["closed_book"] == {"num_asked": 6, "num_right": 2, "ids": ["q1", "q2"]}
    assert [row["closed_book"] for row in result["rows"]] == [1] * 4


# -- RoPE, controls, W&B -------------------------------------------------------------------------


def with_theta(folder, source, to, theta):
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    write_json(to / "sce.json", {"weights_sha256": source.sha256, "rope": {"theta": theta}})
    return to


@pytest.mark.parametrize("side", ["source", "target"])
def test_the_untuned_model_beside_an_adapter_of_another_theta_is_refused(
    run, adapters, source, scores, tmp_path, side
):
    folder = with_theta(adapters["real"], source, tmp_path / "rope", 5e5)
    options = ["method=patch", f"{side}={folder}", "sets=[all]"]
    match = rf"{side}=.*rope_theta=500000, and the untuned model beside it has 10000; .*"
    with pytest.raises(InputError, match=match) as refused:
        run(*options)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_with_the_theta_given_the_untuned_model_runs_under_it_too(run, adapters, source, tmp_path):
    folder = with_theta(adapters["real"], source, tmp_path / "rope", 5e5)
    theta = "model.rope_theta=500000"
    result, _ = run("method=patch", f"target={folder}", "sets=[all]", theta)
    assert result["directions"]["forward"]["rows"][1]["k"] == 12


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["heads.list=[0-0,0-1,0-2,0-3,1-0,1-1,1-2]"],
            r"layer 0 has 0 left of 4 wanted, layer 1 has 1 left of 3 wanted\); take fewer heads: "
            r"fewer heads in heads.list= \(6 heads at most\), or num_controls=0",
        ),
        (["heads.file={many}", "heads.k=[2,7]"], r"heads.k= \(6 heads at most\), or num"),
        (
            ["heads.file={many}", "heads.tau=0.1"],
            r"higher heads.tau= \(6 heads at most\), or num",
        ),
        (
            ["method=patch", "target={real}", "sets=[{many},random]"],
            r"a higher heads.tau= \(6 heads at most\), or leave random out of sets=",
        ),
        (
            ["method=patch", "target={real}", "sets=[{many},random,all]", "num_controls=0"],
            r"num_controls=0 draws no random heads, but sets= holds random; say sets=\[.*,all\]",
        ),
    ],
)
def test_an_error_about_controls_says_where_and_what_to_type_instead(
    run, write_scores, adapters, overrides, message
):
    best = {(layer, head): 0.5 for layer in range(3) for head in range(4)}
    many = write_scores("many", dict(list(best.items())[:7]))
    with pytest.raises(InputError, match=message):
        run(*[text.format(many=many, real=adapters["real"]) for text in overrides])


def test_controls_of_neighbouring_layers_are_named_by_layer_and_number(run, tmp_path):
    options = ["heads.list=[1-0,1-1,1-2]", "closed_book=null"]
    result, _ = run(*options)
    (warning,) = [line for line in result["warnings"] if "neighbouring" in line]
    assert "2 layer-matched controls" in warning and "layer 1 (2)" in warning
    assert "heads.list=" in warning
    result, _ = run_again(run, [*options, "num_controls=0"], tmp_path)
    assert [row["kind"] for row in result["rows"]] == ["none", "heads"]
    assert not [line for line in result["warnings"] if "neighbouring" in line]


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A W&B server, and no settings or keys but the test's own."""
    with wandb_alone(monkeypatch, tmp_path / "home"), FakeWandb() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        yield fake


def test_every_point_that_is_logged_has_n_and_the_bounds_of_its_interval(
    run, scores, server, adapters, tmp_path
):
    options = ["heads.k=[1,2]", "logger=wandb", "closed_book=null", "num_controls=1"]
    result, _ = run(f"heads.file={scores}", *options)
    rows = [row for row in server.history if "intervene/k" in row]
    assert [row["intervene/k"] for row in rows] == [0, 1, 2]
    for curve in result["curves"]:
        stem = f"intervene/{curve['name']}/{curve['kind']}"
        for index, row in enumerate(rows[1:]):
            assert row[f"{stem}/n"] == 5
            for name in ("f1", "answer_nll"):
                for end in ("", "_low", "_high"):
                    assert row[f"{stem}/{name}{end}"] == curve[f"{name}{end}"][index]
        for name in ("f1_low", "f1_high", "answer_nll_low", "answer_nll_high"):
            assert rows[0][f"{stem}/{name}"] == result["rows"][0][name]
        assert rows[0][f"{stem}/n"] == 5
    server.history.clear()
    patch = ["method=patch", f"target={adapters['real']}", "sets=[all]", "logger=wandb"]
    result, _ = run_again(run, patch, tmp_path)
    (row,) = [row for row in server.history if any("forward" in name for name in row)]
    patched = result["directions"]["forward"]["rows"][1]
    for name in ("n", "f1", "f1_low", "f1_high", "answer_nll_low", "answer_nll_high"):
        assert row[f"intervene/forward/all/heads-0/{name}"] == patched[name]
