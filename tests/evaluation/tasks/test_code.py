"""pass@k from end to end: the data sets' own solutions, a model's samples, and a run that is killed."""

import json
from dataclasses import replace
from typing import Any

import pytest

from headway.cli import main
from headway.errors import ConfigError
from headway.evaluation import EvalConfig, evaluate, sandbox
from headway.evaluation.sandbox import Limits, run_program
from headway.evaluation.tasks import TASKS
from headway.evaluation.tasks import code as programs
from headway.evaluation.tasks.code_problems import CODE_TASKS, load_problems

STEPS = {"humaneval": 6, "mbpp": 40}  # every how manyeth problem; `headway eval --model reference` runs all


@pytest.fixture(autouse=True)
def contained():
    try:
        sandbox.strongest_isolation()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture
def rows(tmp_path):
    """Three problems that are solved by what makes a comment of one line, or never."""
    file = tmp_path / "rows.jsonl"
    tests = {"easy": "def check(f): pass", "hard": "def check(f): assert f() == 7", "even": "def check(f): assert f() is None"}
    lines = [
        {"task_id": name, "prompt": f"def {name}():\n    pass\n# ", "canonical_solution": "", "test": test, "entry_point": name}
        for name, test in tests.items()
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def config(rows, **settings):
    given = {"model": "embedded", "task": "humaneval", "data": str(rows), "max_new_tokens": 6, "allow_code": True, "speed": False}
    return EvalConfig(**given | settings)


def score(settings: EvalConfig) -> Any:
    (result,) = evaluate(settings).values()
    return result


def completions(result: Any) -> list[list[str]]:
    return [[sample.completion for sample in answer.samples] for answer in result.answers]


@pytest.mark.slow
@pytest.mark.parametrize("name", CODE_TASKS)
def test_the_solutions_of_the_data_sets_pass(name, shared):
    for problem in load_problems(CODE_TASKS[name], str(shared / "data" / name), "all", None, 0)[:: STEPS[name]]:
        verdict = run_program(problem.prefix + problem.reference, problem.tests, list(problem.overridable_builtins), Limits())
        assert verdict.passed, (problem.name, verdict.reason)


def test_solutions_with_their_last_line_removed_mostly_fail(shared):
    failed = 0
    for problem in load_problems(CODE_TASKS["humaneval"], str(shared / "data" / "humaneval"), "test", 8, 0):
        shorter = "\n".join(problem.reference.rstrip().split("\n")[:-1])
        failed += not run_program(problem.prefix + shorter, problem.tests, list(problem.overridable_builtins)).passed
    assert failed >= 7


def test_nothing_runs_unless_it_is_allowed(rows, monkeypatch):
    monkeypatch.setattr(programs, "run_program", lambda *a: pytest.fail("it ran"))
    with pytest.raises(ConfigError, match="--allow-code"):
        evaluate(config(rows, allow_code=False, model="reference"))


def test_nothing_runs_where_nothing_contains_it(rows, monkeypatch):
    monkeypatch.setattr(programs, "strongest_isolation", sandbox.strongest_isolation.__wrapped__)
    monkeypatch.setattr(sandbox, "isolation_issue", lambda isolation: f"no {isolation} today")
    monkeypatch.setattr(programs, "run_program", lambda *a: pytest.fail("it ran"))
    with pytest.raises(ConfigError, match="no namespaces today; landlock: no landlock today"):
        evaluate(config(rows, model="reference"))


@pytest.mark.slow
def test_samples_are_drawn_judged_and_kept(rows):
    sampled = {"samples": 4, "pass_at": [1, 4], "temperature": 1.0}
    result = score(config(rows, **sampled))
    passed = {answer.name: [sample.passed for sample in answer.samples] for answer in result.answers}
    assert not any(passed["hard"]) and all(len(each) == 4 for each in passed.values())
    texts = completions(result)
    assert len({text for of_problem in texts for text in of_problem}) > 6
    assert result.pass_at_k["pass@1"] == pytest.approx(sum(sum(each) / 4 for each in passed.values()) / 3)
    for how in ({"speculative": False}, {"drafter": "ngram"}, {"batch_size": 2}):
        assert completions(score(config(rows, **sampled, **how))) == texts


@pytest.mark.slow
def test_a_killed_run_goes_on_without_drawing_again(rows, tmp_path, monkeypatch):
    out = tmp_path / "results.json"
    sampled = {"samples": 2, "pass_at": [2], "temperature": 1.0, "output_file": out}
    whole = score(config(rows, **sampled | {"output_file": None}))
    calls = []

    def killed(code, *rest):
        calls.append(code)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return run_program(code, *rest)

    monkeypatch.setattr(programs, "run_program", killed)
    monkeypatch.setattr(programs.os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config(rows, **sampled))
    kept = json.loads((tmp_path / "results.json.humaneval.unfinished").read_text())["samples"]
    assert 1 <= len(kept) < 3
    drawn = []
    complete = programs.complete
    monkeypatch.setattr(programs, "complete", lambda *a, **how: drawn.extend(a[2]) or complete(*a, **how))
    with pytest.raises(ConfigError, match=r"other settings \(temperature\)"):
        evaluate(config(rows, **sampled | {"temperature": 0.5}))
    result = score(config(rows, **sampled))
    assert result.resumed == len(kept) and len(drawn) == 3 - len(kept)
    assert completions(result) == completions(whole) and result.pass_at_k == whole.pass_at_k
    assert json.loads(out.read_text())["pass@2"] == whole.pass_at_k["pass@2"]
    assert not list(tmp_path.glob("*.unfinished"))


def test_the_command_saves_every_sample_and_clears_up(rows, tmp_path, capsys):
    out = tmp_path / "results.json"
    words = ["--model", "reference", "--task", "humaneval", "--data", str(rows), "--allow-code", "--output-file", str(out)]
    assert main(["eval", *words]) == 0
    assert "pass@1" in capsys.readouterr().out
    results = json.loads(out.read_text())
    assert [answer["samples"][0]["passed"] for answer in results["answers"]] == [True, False, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "rows.jsonl"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--task", "humanevil"], "Did you mean 'humaneval'?"),
        (["--task", "humaneval", "--samples", "10"], "greedy samples would all be equal"),
        (["--task", "humaneval", "--pass-at", "1", "10"], "pass_at must be from 1 to the number of samples, 1"),
        (["--task", "gsm8k", "--model", "reference"], "reference solutions come with humaneval and mbpp"),
        (["--task", "lm-eval:gsm8k", "--data", "x"], "leave out --data"),
        (["--task", "suite:code", "--quantize", "int8"], "--quantize is not measured on suite:code"),
    ],
)
def test_mistakes_are_one_line(words, complaint, capsys):
    assert main(["eval", "--model", "embedded", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_both_tasks_of_the_suite_keep_what_is_finished_apart(rows, tmp_path, monkeypatch):
    out = tmp_path / "results.json"
    sources = {"humaneval": str(rows), "mbpp": str(tmp_path / "mbpp.jsonl")}
    row = {"task_id": 11, "text": "Add.", "code": "def add(a, b):\r\n    return a + b", "test_list": ["assert add(2, 3) == 5"]}
    (tmp_path / "mbpp.jsonl").write_text(json.dumps(row))
    for name, task in CODE_TASKS.items():
        monkeypatch.setitem(CODE_TASKS, name, replace(task, shots=0))
        monkeypatch.setitem(TASKS, name, replace(TASKS[name], data=sources[name]))
    assert main(["eval", "--model", "reference", "--task", "suite:code", "--allow-code", "--output-file", str(out)]) == 0
    results = json.loads(out.read_text())
    assert results["humaneval"]["pass@1"] == pytest.approx(2 / 3) and results["mbpp"]["pass@1"] == 1
    assert not list(tmp_path.glob("*.unfinished"))


def test_tasks_are_listed_without_a_model_and_without_torch(capsys):
    assert main(["eval", "--list-tasks"]) == 0
    assert "suite:math" in capsys.readouterr().out
