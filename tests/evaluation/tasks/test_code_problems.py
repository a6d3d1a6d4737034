"""Prompts and stop strings equal those of lm-eval's own tasks."""

import ast
from functools import partial
from pathlib import Path

import pytest
import yaml

from headway.errors import ConfigError, DataError
from headway.evaluation.tasks.code_problems import CODE_TASKS, load_problems


def lm_evals(task):
    """The settings of a task; its functions, which need the network to import, as their names."""
    lm_eval = pytest.importorskip("lm_eval")
    folder = Path(lm_eval.__file__).parent / "tasks" / task
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda _, node: node.value)
    shots = next(
        (
            ast.literal_eval(node.body[0].value)
            for node in ast.parse((folder / "utils.py").read_text()).body
            if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples"
        ),
        [],
    )
    return yaml.load((folder / f"{task}.yaml").read_text(), loader), shots


def problems(shared, name, **settings):
    settings = {"split": "test", "limit": 20, "shots": None, **settings}
    return load_problems(CODE_TASKS[name], str(shared / "data" / name), **settings)


@pytest.mark.parametrize("name", CODE_TASKS)
def test_stops_and_shots_are_lm_evals(name):
    task, _ = lm_evals(name)
    assert list(CODE_TASKS[name].stops) == task["generation_kwargs"]["until"]
    assert CODE_TASKS[name].max_new_tokens == task["generation_kwargs"].get("max_gen_toks", 256)
    assert CODE_TASKS[name].shots == task["num_fewshot"]


def test_mbpp_prompts_are_lm_evals(shared):
    from lm_eval.utils import apply_template

    from headway.data import load_rows

    task, shots = lm_evals("mbpp")
    rows = {row["task_id"]: row for _, row in load_rows(shared / "data" / "mbpp" / "mbpp.jsonl.gz")}
    asked, answered = (partial(apply_template, task[name]) for name in ("doc_to_text", "doc_to_target"))
    shown = "".join(f"{asked(shot)}{answered(shot)}\n\n" for shot in shots)
    found = problems(shared, "mbpp")
    assert [problem.name for problem in found] == [f"MBPP/{number}" for number in range(11, 31)]
    for problem in found:
        row = rows[int(problem.name.removeprefix("MBPP/"))]
        assert problem.prompt == shown + asked(row)
        assert problem.tests.strip() == answered(row).strip()


def test_humaneval_prompts_are_lm_evals(shared):
    from lm_eval.utils import apply_template

    from headway.data import load_rows

    task, _ = lm_evals("humaneval")
    for problem, (_, row) in zip(problems(shared, "humaneval"), load_rows(shared / "data" / "humaneval"), strict=False):
        assert problem.prompt == problem.prefix == apply_template(task["doc_to_text"], row)
        assert problem.tests.strip() == apply_template(task["doc_to_target"], row).strip()


def test_splits_of_mbpp_are_those_of_the_paper(shared):
    splits = ("prompt", "test", "validation", "train", "all")
    counts = {split: len(problems(shared, "mbpp", split=split, limit=None)) for split in splits}
    assert counts == {"prompt": 10, "test": 500, "validation": 90, "train": 374, "all": 974}


def test_the_sanitized_data_set_brings_its_imports(shared):
    file = str(shared / "data" / "mbpp" / "sanitized-mbpp.jsonl.gz")
    found = {problem.name: problem for problem in load_problems(CODE_TASKS["mbpp"], file, "test", None, 0)}
    assert len(found) == 257 and found["MBPP/82"].tests.startswith("import math\nassert")


def test_what_is_missing_is_named(tmp_path, shared):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"task_id": "x", "prompt": "def f():"}\n')
    with pytest.raises(DataError, match=r"line 1 has no text in column 'canonical_solution'"):
        load_problems(CODE_TASKS["humaneval"], str(file), "test", None, None)
    with pytest.raises(DataError, match="no problem of MBPP"):
        load_problems(CODE_TASKS["mbpp"], str(file), "test", None, None)
    with pytest.raises(ConfigError, match="shows no solved examples"):
        problems(shared, "humaneval", shots=2)
    with pytest.raises(ConfigError, match="prompt, test, validation, train and all"):
        problems(shared, "mbpp", split="dev")
