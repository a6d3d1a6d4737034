"""Experiments at toy size: what is paired, kept, resumed and reported."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headway.data import Collator, Encoded, row_of
from headway.errors import HeadwayError
from headway.experiments.reproduce import experiments, finetuning, induction, polynomial, scale, scratch
from headway.experiments.reproduce.configs import SHAPES, FinetuningConfig, InductionConfig, PolynomialConfig, ScaleConfig
from headway.experiments.reproduce.models import fresh_model
from headway.experiments.reproduce.reproduce import reproduce
from headway.experiments.reproduce.runs import Run
from headway.model import HeadwayModel

TINY = {"sizes": ["0.05M"], "tokens": [1, 2], "seeds": 2, "steps": 4, "batch_size": 2, "points": 2, "test_examples": 4}


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_text("def double(x):\n    return x + x  # \u00e9\n" * 30, encoding="utf-8")
    return str(tmp_path / "text.txt")


@pytest.fixture
def config(tmp_path: Path) -> PolynomialConfig:
    return PolynomialConfig(output_dir=tmp_path, pauses=[0], tested=3, **TINY)


def test_results_hold_curves_figures_and_an_answer_and_plots_lie_beside_them(config: PolynomialConfig) -> None:
    results = reproduce(config)
    folder = config.output_dir / "polynomial"
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == results
    assert (folder / "plot.png").read_bytes()[:4] == b"\x89PNG" and "<svg" in (folder / "plot.svg").read_text(encoding="utf-8")
    assert [(run["arm"], run["seed"]) for run in results["runs"]] == [("n=1", 0), ("n=2", 0), ("n=1", 1), ("n=2", 1)]
    for run in results["runs"]:
        assert [point["step"] for point in run["curve"]] == [2, 4]
        assert {"in domain", "out of domain", "m=1", "m=3"} <= run["measures"].keys()
    assert len({run["parameters"] for run in results["runs"]}) == 1
    assert results["answer"] in results["sentence"]


def test_finished_runs_are_kept_and_a_failed_one_is_reported_then_tried_again(
    config: PolynomialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[str] = []

    def learn(config, task, run, folder, advance):
        learnt.append(run.name)
        if run.n == 2 and run.seed == 0 and learnt.count(run.name) == 1:
            raise RuntimeError("out of memory")
        measures = {measure: 0.5 for measure in ("in domain", "out of domain", "m=1", "m=2", "m=3")}
        return {"curve": [{"step": 4, "measures": measures}], "measures": measures}

    monkeypatch.setattr(experiments, "learn", learn)
    first = reproduce(config)
    assert [run.get("error") for run in first["runs"]] == [None, "RuntimeError: out of memory", None, None]
    assert first["comparisons"] == []  # a single pair is left
    second = reproduce(replace(config, seeds=3))
    assert len(learnt) == 4 + 3 and learnt[4:] == ["0.05M-n2-0", "0.05M-n1-2", "0.05M-n2-2"]
    assert all("error" not in run for run in second["runs"]) and second["comparisons"][0]["pairs"] == 3
    reproduce(replace(config, learning_rate=1.0))
    assert len(learnt) == 7 + 4  # other settings are other runs


def test_where_all_runs_fail_it_says_why(config: PolynomialConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(*_):
        raise HeadwayError("The loss became nan by step 3.")

    monkeypatch.setattr(experiments, "learn", learn)
    with pytest.raises(HeadwayError, match="All 4 runs failed, the first of them so: HeadwayError: The loss became nan"):
        reproduce(config)


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_end(config: PolynomialConfig, tmp_path: Path) -> None:
    config = config.resolved()
    task, run = polynomial.task_of(config, 0), Run("n=2", "0.05M", 0, 2)
    whole = scratch.learn(config, task, run, tmp_path / "whole", lambda _: None)
    advanced: list[int] = []

    def killed(steps: int) -> None:
        advanced.append(steps)
        if sum(advanced) == 3:  # after the checkpoint of step 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scratch.learn(config, task, run, tmp_path / "cut", killed)
    assert [point["step"] for point in json.loads((tmp_path / "cut" / "curve.json").read_text())] == [2]
    again: list[int] = []
    assert scratch.learn(config, task, run, tmp_path / "cut", again.append) == whole
    assert again == [2, 1, 1]


@pytest.mark.parametrize("name", ["polynomial", "induction", "scale"])
def test_rows_depend_on_seed_and_index_alone_and_fit_the_length(name: str, text: str) -> None:
    task = {
        "polynomial": lambda: polynomial.task_of(PolynomialConfig(**TINY).resolved(), 3),
        "induction": lambda: induction.task_of(InductionConfig(**TINY).resolved()),
        "scale": lambda: scale.task_of(ScaleConfig(**TINY, text=text, max_length=16).resolved()),
    }[name]()
    rows = [task.row(seed, index) for seed in range(2) for index in range(20)]
    assert rows == [task.row(seed, index) for seed in range(2) for index in range(20)]
    assert rows[:20] != rows[20:]
    assert max(len(row["input_ids"]) for row in rows) <= task.length
    assert not any(task.tokenizer.unk_token_id in row["input_ids"] for row in rows)


def test_real_stories_can_be_learnt_in_place_of_generated_ones(shared: Path) -> None:
    stories = str(shared / "data" / "tinystories_en")
    task = induction.task_of(InductionConfig(**TINY, stories=stories).resolved())
    row = task.tokenizer.convert_ids_to_tokens(task.row(0, 1)["input_ids"])
    assert len(row) > 60 and row.count("<unk>") < 6 and any(token.endswith("~") for token in row)
    assert task.score(fresh_model(SHAPES["0.05M"], 1, len(task.tokenizer), 256, 0))["probability"] < 0.01


def test_an_answer_is_right_where_greedy_decoding_writes_it() -> None:
    model = fresh_model(SHAPES["0.05M"], 1, 20, 64, 0).eval()
    prompts = [[5 + i, 4, 9] for i in range(6)]
    with torch.no_grad():
        written = [
            model.generate(torch.tensor([p]), max_new_tokens=3, eos_token_id=None).sequences[0, 3:].tolist() for p in prompts
        ]
    answers = [w if i % 2 else [w[0], (w[1] + 1) % 20, w[2]] for i, w in enumerate(written)]
    rows = [row_of([Encoded(input_ids=p + a, labels=[-100] * 3 + a)]) for p, a in zip(prompts, answers, strict=True)]
    assert polynomial.exact(model, rows) == 0.5


def test_induction_is_scored_at_the_places_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh_model(SHAPES["0.05M"], 1, 20, 64, 0).eval()
    ids = [4, 9, 5, 6, 4, 9, 7, 4, 9]
    row = row_of([Encoded(input_ids=ids, labels=ids)])
    batch = Collator(0)([row])
    with torch.no_grad():
        guesses = model.trunk(batch["input_ids"]).logits.softmax(-1)[0]
    found = induction.score(model, induction.TestSet([row, row], [[5], [8]]))
    assert found["probability"] == pytest.approx(float(guesses[4, 9] + guesses[7, 9]) / 2, abs=1e-5)
    assert found["accuracy"] == (int(guesses[4].argmax() == 9) + int(guesses[7].argmax() == 9)) / 2


def test_a_small_model_learns_to_negate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.data.generated.polynomial.OPERATORS", ("-",))
    sizes = {"sizes": ["0.25M"], "steps": 120, "batch_size": 16, "test_examples": 50, "points": 1, "trained": 1, "tested": 1}
    config = PolynomialConfig(output_dir=tmp_path, **sizes).resolved()
    found = scratch.learn(config, polynomial.task_of(config, 0), Run("n=2", "0.25M", 0, 2), tmp_path / "run", lambda _: None)
    assert found["measures"]["m=1"] > 0.5  # by chance, 7^-5


def test_scale_measures_the_trunk_alone_and_what_its_heads_draft(tmp_path: Path, text: str) -> None:
    results = reproduce(ScaleConfig(output_dir=tmp_path, **{**TINY, "sizes": ["0.05M", "0.25M"]}, text=text, max_length=16))
    for run in results["runs"]:
        assert run["measures"]["tokens a forward"] >= 1 and (run["n"] > 1 or run["measures"]["tokens a forward"] == 1)
    assert {one["group"] for one in results["comparisons"]} == {"0.05M", "0.25M", "0.25M less 0.05M"}


def test_finetuning_starts_arms_from_random_or_pretrained_heads_and_one_trunk(tmp_path: Path) -> None:
    sizes = {"steps": 1, "batch_size": 1, "examples": 8, "test_examples": 2, "max_length": 128}
    config = FinetuningConfig(output_dir=tmp_path, learning_rate=1e-9, **sizes).resolved()
    arms = ("next-token", "random heads, full weight", "pretrained heads, small weight")
    found = {arm: finetuning.learn(config, Run(arm, "", 0), tmp_path / arm, lambda _: None) for arm in arms}
    losses = [run["measures"]["loss"] for run in found.values()]
    assert max(losses) - min(losses) < 1e-4  # nothing was learnt at such a rate
    own = HeadwayModel.from_pretrained("embedded").heads.layers[0].mlp.up_proj.weight
    moved = {
        arm: float((HeadwayModel.from_pretrained(tmp_path / arm / "model").heads.layers[0].mlp.up_proj.weight - own).abs().mean())
        for arm in arms
    }
    assert moved[arms[0]] < 1e-6 and moved[arms[2]] < 1e-6 and moved[arms[1]] > 0.01


def test_the_papers_scale_takes_one_step(tmp_path: Path) -> None:
    config = InductionConfig(
        scale="paper", output_dir=tmp_path, sizes=["1M"], steps=1, batch_size=2, test_examples=4, points=1
    ).resolved()
    found = scratch.learn(config, induction.task_of(config), Run("n=2", "1M", 0, 2), tmp_path / "run", lambda _: None)
    assert 900_000 < found["parameters"] < 1_100_000 and 0 <= found["measures"]["probability"] <= 1
