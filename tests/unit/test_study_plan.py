"""A study's plan: which runs, in which order, compared with what; and what is wrong with it."""

from dataclasses import asdict
from pathlib import Path

import pytest

from runs import configured
from sce.config import CONF, composed
from sce.errors import InputError
from sce.records import append_jsonl
from sce.studies.checking import check_data, checked
from sce.studies.estimate import duration, estimate
from sce.studies.folder import begin, differences, read_jobs, started_in
from sce.studies.plan import DIR, Command, Job, jobs_of, kind_of
from sce.studies.tell import plan_text
from sce.study_options import (
    EstimateOptions,
    InterventionStudy,
    StudyConfig,
    StudyOptions,
    TaskStudy,
)

SYMBOLIC = ["data.concept=symbolic", "data.context=symbolic"]


def study(**changes) -> StudyOptions:
    values = {
        "name": "s",
        "tasks": {"mdqa": TaskStudy(every=["data.num_val=7"], settings={"symbolic": SYMBOLIC})},
    }
    return StudyOptions(**(values | changes))


def named(jobs) -> dict[str, Job]:
    return {job.name: job for job in jobs}


def test_every_setting_and_seed_is_a_run_and_real_data_is_always_one_of_them():
    jobs = named(jobs_of(study(seeds=[0, 1]), "none"))
    runs = {job.name: (job.kind, job.setting, job.seed) for job in jobs.values() if job.folder}
    assert runs == {
        "mdqa-reference-seed100": ("real", "reference", 100),
        "mdqa-reference-seed101": ("real", "reference", 101),
        "mdqa-real-seed0": ("real", "real", 0),
        "mdqa-real-seed1": ("real", "real", 1),
        "mdqa-symbolic-seed0": ("synthetic", "symbolic", 0),
        "mdqa-symbolic-seed1": ("synthetic", "symbolic", 1),
    }


def test_every_setting_of_every_task_comes_once_before_any_comes_twice():
    tasks = {task: TaskStudy(settings={"symbolic": SYMBOLIC}) for task in ("mdqa", "musique")}
    order = [job for job in jobs_of(study(tasks=tasks, seeds=[4, 2]), "none") if job.stage == 2]
    assert [job.seed for job in order if job.folder] == [4] * 4 + [2] * 4
    assert all(job.seed != 2 for job in order[: order.index(named(order)["musique-knockout"])])


def test_what_a_job_needs_is_made_in_an_earlier_stage():
    jobs = jobs_of(study(), "none")
    assert [job.stage for job in jobs] == sorted(job.stage for job in jobs)
    made: dict[str, int] = {}
    for job in jobs:
        made |= {command.out: job.stage for command in job.commands}
    for job in jobs:
        own = {command.out for command in job.commands}
        for command in job.commands:
            for out, stage in made.items():
                uses = any(f"{DIR}/{out}" in override for override in command.overrides)
                assert not uses or out in own or stage < job.stage, (job.name, out)


def test_no_run_is_compared_with_a_reference_it_took_part_in():
    jobs = named(jobs_of(study(), "none"))
    average = " ".join(jobs["mdqa-reference"].commands[0].overrides)
    for job in jobs.values():
        if job.folder and job.setting != "reference":
            assert job.folder not in average
    assert "reference=none" in jobs["mdqa-reference-seed100"].commands[0].overrides
    with pytest.raises(InputError, match=r"share \[1\].*it took part in"):
        study(seeds=[0, 1], reference_seeds=[1, 2])


def test_patching_is_of_the_first_seed_of_each_setting_that_is_not_real():
    jobs = named(jobs_of(study(seeds=[3, 4]), "none"))
    patched = {name for name, job in jobs.items() if len(job.commands) > 1}
    assert patched == {"mdqa-symbolic-seed3"}
    patch = jobs["mdqa-symbolic-seed3"].commands[1].overrides
    assert f"source={DIR}/runs/mdqa-reference-seed100/adapter" in patch
    assert f"target={DIR}/runs/mdqa-symbolic-seed3/adapter" in patch


def test_heads_are_taken_out_of_each_setting_where_that_is_asked_for():
    asked = InterventionStudy(knockout=["heads.k=[2]"], knockout_each=["heads.k=[1]"])
    jobs = named(jobs_of(study(seeds=[3, 4], interventions=asked), "none"))
    commands = jobs["mdqa-symbolic-seed3"].commands
    assert [command.out for command in commands[1:]] == [
        "knockout/mdqa-symbolic-seed3",
        "patch/mdqa-symbolic-seed3",
    ]
    own, real = commands[1].overrides, jobs["mdqa-knockout"].commands[0].overrides
    heads = f"heads.file={DIR}/reference/mdqa.json"
    assert {"heads.k=[1]", heads, f"adapter={DIR}/runs/mdqa-symbolic-seed3/adapter"} <= set(own)
    assert {"heads.k=[2]", heads, f"adapter={DIR}/runs/mdqa-reference-seed100/adapter"} <= set(real)
    assert not any(len(job.commands) > 1 for name, job in jobs.items() if name.endswith("seed4"))


def test_a_single_reference_run_is_the_reference_as_it_is():
    (job,) = (j for j in jobs_of(study(reference_seeds=[9]), "none") if j.kind == "reference")
    assert job.commands[0].overrides[:2] == ("action=convert", "to=sce")


def test_the_reference_is_made_with_the_runs_own_threshold_and_k():
    jobs = jobs_of(study(train=["scorer.k=3", "scorer.tau=0.2"]), "none")
    (job,) = (j for j in jobs if j.kind == "reference")
    assert {"k=3", "tau=0.2"} <= set(job.commands[0].overrides)


def test_what_reads_heads_beside_the_runs_reads_them_alike():
    jobs = named(jobs_of(study(train=["scorer=ov_write", "scorer.tau=0.2"]), "none"))
    for command in (jobs["mdqa-looks"].commands[0], jobs["mdqa-symbolic-seed0"].commands[1]):
        assert {"scorer=ov_write", "scorer.tau=0.2"} <= set(command.overrides)


def test_what_is_null_is_left_out():
    left_out = InterventionStudy(baselines=None, knockout=None, patch=None, looks=None)
    jobs = jobs_of(study(interventions=left_out), "none")
    assert {job.kind for job in jobs} == {"real", "synthetic", "reference"}
    assert all(len(job.commands) == 1 for job in jobs)


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        (["data.concept=real", "data.context=real"], "real"),
        (["data.concept=real"], "real"),
        (["data.concept=real", "data.context=low"], "synthetic"),
        (["data.concept=limited", "data.context=real", "data.limited=who"], "limited"),
        (["data.concept=real", "data.num_train=8"], "limited"),
        (["data.mix=[{concept:real,weight:1},{concept:low,weight:3}]"], "mixture"),
        (SYMBOLIC, "synthetic"),
        (["data.train.path=mine.jsonl", "data.label=mine"], "synthetic"),
    ],
)
def test_what_kind_of_data_a_setting_is(overrides, kind):
    assert kind_of(overrides) == kind


def test_without_a_cell_it_is_the_task_s_own_which_a_path_makes_real():
    assert kind_of(["data.num_train=8"]) == kind_of([]) == "synthetic"
    assert kind_of(["data.num_train=8"], "real") == "limited"
    assert kind_of([], "real") == "real"


def test_the_kind_of_a_setting_follows_from_what_all_runs_have_in_common_too():
    def kinds(**task):
        jobs = jobs_of(study(tasks={"mdqa": TaskStudy(**task)}), "none")
        return {job.setting: job.kind for job in jobs if job.folder}

    high = ["data.concept=high", "data.context=high", "data.num_train=8"]
    assert kinds(path="q.jsonl", train=high, settings={"r8": ["lora.r=8"]})["r8"] == "synthetic"
    own = {"r8": ["lora.r=8"], "few": ["data.num_train=4"]}
    found = kinds(path="q.jsonl", train=["data.num_train=8"], settings=own)
    assert (found["r8"], found["few"]) == ("real", "limited")
    needle = jobs_of(study(tasks={"needle": TaskStudy(settings={"x": ["lora.r=8"]})}), "none")
    assert {job.kind for job in needle if job.setting == "x"} == {"real"}


def test_a_setting_may_have_a_training_file_of_its_own_where_nothing_is_dealt_from_it():
    mine = {"mine": ["data.train.path=mine.jsonl"]}
    both = ["data.val.path=v.jsonl", "data.reference.path=r.jsonl"]
    assert check(study(tasks={"mdqa": TaskStudy(path="q.jsonl", every=both, settings=mine)}))
    with pytest.raises(InputError, match=r"data.train.path is mine.jsonl, and q.jsonl"):
        check(study(tasks={"mdqa": TaskStudy(path="q.jsonl", settings=mine)}))


def test_a_command_names_the_last_scores_that_are_there(tmp_path):
    command = Command("headset", (f"files=[{DIR}/a/heads/last.json,{DIR}/b/heads/last.json]",), "o")
    for run, step in (("a", 4), ("a", 12), ("b", 8)):
        (tmp_path / run / "heads").mkdir(parents=True, exist_ok=True)
        (tmp_path / run / "heads" / f"step-{step:06d}.json").touch()
    files = f"{tmp_path}/a/heads/step-000012.json,{tmp_path}/b/heads/step-000008.json"
    assert command.at(tmp_path).overrides == (f"files=[{files}]",)
    (tmp_path / "b" / "heads" / "step-000008.json").unlink()
    with pytest.raises(InputError, match="no scores there"):
        command.at(tmp_path)


# -- checked before anything runs ------------------------------------------------------------------


def check(options: StudyOptions) -> dict[str, float]:
    return dict(checked(jobs_of(options, "none"), Path("/s"), EstimateOptions(), composed).tokens)


def test_every_command_of_a_plan_is_one_that_its_program_takes():
    tokens = check(study())
    assert all(count > 0 for name, count in tokens.items() if "seed" in name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": ["trainer.max_stepz=3"]}, "mdqa-reference-seed100: .*max_stepz"),
        ({"train": ["trainer.devices=2"]}, "one device a run"),
        (
            {"train": ["lora=none"]},
            "mdqa-symbolic-seed0: patching .*patch=null",
        ),
        ({"every": ["data.num_reference=0"]}, "num_reference must be >= 1"),
        ({"interventions": InterventionStudy(knockout=["heads.k=[0]"])}, "mdqa-knockout: heads.k"),
        (
            {"tasks": {"mdqa": TaskStudy(settings={"x": [SYMBOLIC[0], "data.context=low"]})}},
            "no cell",
        ),
        ({"tasks": {"long": TaskStudy(every=["data=mdqa"])}}, "study.tasks.mdqa"),
        (
            {"tasks": {"mdqa": TaskStudy(settings={"many": ["data.num_documents=9"]})}},
            "mdqa-many-seed0: data.num_documents is 9, and 3 for other runs of its task",
        ),
        (
            {"tasks": {"mdqa": TaskStudy(settings={"nf4": ["model.quantization=nf4"]})}},
            "mdqa-nf4-seed0: model.quantization is nf4, and None for",
        ),
    ],
)
def test_a_wrong_option_is_named_with_its_job_before_anything_runs(changes, message):
    with pytest.raises(Exception, match=message) as error:
        check(study(**changes))
    assert isinstance(error.value, InputError)


def runs_of(**task):
    options = study(tasks={"mdqa": TaskStudy(**task)})
    return checked(jobs_of(options, "none"), Path("/s"), EstimateOptions(), composed).runs


def test_data_that_a_setting_lacks_is_named_before_anything_runs():
    """Of 240 questions of the sample few ask where; the setting comes last."""
    limited = ["data.concept=limited", "data.context=real", "data.limited=where"]
    runs = runs_of(train=["data.num_train=96"], settings={"x": SYMBOLIC, "where": limited})
    with pytest.raises(InputError, match=r"mdqa-where-seed0: data.num_train=96, but the split has"):
        check_data(runs)
    assert check_data({name: run for name, run in runs.items() if "where" not in name}) == []


def test_synthetic_data_of_one_s_own_is_a_setting_beside_the_others(tmp_path):
    """As docs/study.md says: real questions in three files, and a fourth with a label."""
    sample = CONF.parent / "sce" / "data" / "sample"
    mine = tmp_path / "mine.jsonl"
    mine.write_text((sample / "train.jsonl").read_text().replace("Who", "Which person"))
    own = [f"data.train.path={mine}", "data.label=mine", "data.on_overlap=error"]
    every = [f"data.{name}.path={sample / name}.jsonl" for name in ("val", "reference")]
    path = str(sample / "train.jsonl")
    runs = runs_of(path=path, every=every, settings={"mine": own, "x": SYMBOLIC})
    assert runs["mdqa-mine-seed0"].data.training == ("mine", "mine")
    assert runs["mdqa-real-seed0"].data.train.path == path
    assert check_data(runs) == []
    jobs = jobs_of(study(tasks={"mdqa": TaskStudy(path=path, settings={"mine": own})}), "none")
    assert {job.kind for job in jobs if job.setting == "mine"} == {"synthetic"}
    with pytest.raises(InputError, match=r"data.train.path is None, and .*train.jsonl for"):
        runs_of(path=path, settings={"mine": own})  # validation would be dealt of other data
    assert "mdqa-mine-seed0" in runs_of(settings={"mine": own})  # all on the sample


def test_real_seeds_that_meet_the_same_questions_are_warned_of():
    few = ["data.num_train=200", "trainer.max_steps=24"]
    assert check_data(runs_of(train=few)) == []  # 96 of 200, drawn for each seed
    (warning,) = check_data(runs_of(train=["data.num_train=200", "trainer.max_steps=240"]))
    assert "real runs tune on 200 of 240 questions" in warning


def test_fewer_validation_examples_than_asked_for_are_warned_of():
    (warning,) = check_data(runs_of(every=["data.num_val=500"]))
    assert "80 val examples, not data.num_val=500" in warning


def test_the_quick_study_can_run_as_it_ships():
    options = configured("study", StudyConfig, ["study=quick"], CONF / "studies").study
    found = checked(jobs_of(options, "none"), Path("/s"), options.estimate, composed)
    assert check_data(found.runs) == []


def test_a_context_that_no_question_fits_is_found_before_anything_runs():
    with pytest.raises(InputError, match=r"mdqa-reference-seed100: .*over data.context_tokens=40"):
        check_data(runs_of(every=["data.context_tokens=40"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "study.seeds is empty"),
        ({"seeds": [1, 1]}, "there twice"),
        ({"reference_seeds": []}, "study.reference_seeds is empty"),
        ({"tasks": {"mdqa": TaskStudy(settings={"../x": []})}}, "names a folder"),
        ({"tasks": {"..": TaskStudy()}}, "names a folder"),
        ({"name": "a b"}, "names a folder"),
    ],
)
def test_a_study_that_is_none_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        study(**changes)


def test_a_study_without_a_task_is_refused():
    with pytest.raises(InputError, match=r"study.tasks is empty"):
        jobs_of(StudyOptions(), "none")


# -- the folder ------------------------------------------------------------------------------------


def test_a_folder_keeps_its_plan_and_takes_the_same_configuration_again(tmp_path):
    jobs = jobs_of(study(), "none")
    begin(tmp_path / "s", asdict(study()), jobs)
    begin(tmp_path / "s", asdict(study()), jobs)
    assert read_jobs(tmp_path / "s") == jobs


def test_another_configuration_is_refused_with_what_differs(tmp_path):
    begin(tmp_path / "s", asdict(study()), jobs_of(study(), "none"))
    other = study(seeds=[0, 1, 2], every=["batch.eval=4"])
    with pytest.raises(InputError) as error:
        begin(tmp_path / "s", asdict(other), jobs_of(other, "none"))
    assert "study.seeds is [0, 1] there and [0, 1, 2] here" in str(error.value)
    assert 'study.every is [] there and ["batch.eval=4"] here' in str(error.value)


@pytest.mark.parametrize("text", ["", '{"schema": "sce.study/1"', "[]"])
def test_a_torn_study_is_named(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(InputError, match=r"study\.json: "):
        read_jobs(tmp_path)


def test_an_estimate_is_no_configuration(tmp_path):
    begin(tmp_path / "s", asdict(study()), jobs_of(study(), "none"))
    faster = study(estimate=EstimateOptions(tokens_per_s=9000))
    begin(tmp_path / "s", asdict(faster), jobs_of(faster, "none"))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no study"):
        begin(tmp_path, asdict(study()), jobs_of(study(), "none"))
    assert [file.name for file in tmp_path.iterdir()] == ["precious.txt"]


def test_a_study_that_was_killed_as_it_began_begins_again(tmp_path):
    (tmp_path / "s" / "jobs").mkdir(parents=True)
    (tmp_path / "s" / "tmpabc.tmp").write_text("{")
    begin(tmp_path / "s", asdict(study()), jobs_of(study(), "none"))
    assert read_jobs(tmp_path / "s")


@pytest.mark.parametrize("name", ["a,b", "a=b", "a[1]", "it's"])
def test_a_folder_whose_name_hydra_would_take_apart_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="in a path is read as more"):
        begin(tmp_path / name, asdict(study()), jobs_of(study(), "none"))
    assert not (tmp_path / name).exists()


def test_commands_run_where_the_study_was_begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / "s", asdict(study()), jobs_of(study(), "none"))
    monkeypatch.chdir("/")
    assert started_in(tmp_path / "s") == tmp_path


def test_differences_go_into_what_is_nested():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, "s") == [
        "s.a.c is 2 there and 3 here"
    ]


# -- estimates -------------------------------------------------------------------------------------


def test_an_estimate_is_taken_from_the_study_s_own_finished_runs(tmp_path):
    jobs = jobs_of(study(), "none")
    tokens = dict.fromkeys((job.name for job in jobs), 1000.0)
    before = estimate(tmp_path, jobs, tokens, EstimateOptions(tokens_per_s=10))
    assert before.seconds == len(jobs) * 100
    assert before.measured == 0
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "mdqa-real-seed0.json").write_text('{"exit_code": 0, "seconds": 20}')
    after = estimate(tmp_path, jobs, tokens, EstimateOptions(tokens_per_s=10))
    assert after.measured == 1
    assert after.seconds == pytest.approx((len(jobs) - 1) * 20)
    # Killed and gone on with, a run took longer than its last process.
    (tmp_path / "runs" / "mdqa-real-seed0").mkdir(parents=True)
    rows = [{"step": 0, "seconds": 4}, {"step": 4, "seconds": 50}]
    for row in rows:
        append_jsonl(tmp_path / "runs" / "mdqa-real-seed0" / "records.jsonl", row)
    later = estimate(tmp_path, jobs, tokens, EstimateOptions(tokens_per_s=10))
    assert later.seconds == pytest.approx((len(jobs) - 1) * 50)
    assert f"{len(jobs) - 1} of {len(jobs)} jobs" in plan_text(tmp_path, jobs, after)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "nothing"), (20, "less than a minute"), (150, "2 min"), (4000, "1 h 07 min")],
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text
