"""lm-eval's scores and outputs through the engine equal those of its own `hf` model, drafting or not."""

import logging
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from headway import HeadwayModel
from headway.cli import main
from headway.evaluation.tasks import SUITES

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from headway.evaluation.tasks.lm_eval_model import HeadwayLM  # noqa: E402

OWN = Path(lm_eval.__file__).parent / "tasks"
GSM8K = """
include: {tasks}/gsm8k/gsm8k.yaml
task: gsm8k_here
dataset_path: json
dataset_name: null
dataset_kwargs:
  data_files:
    train: {data}/gsm8k/train.jsonl.gz
    test: {data}/gsm8k/test.jsonl.gz
num_fewshot: 1
generation_kwargs:
  until: ["Question:", "</s>", "<|im_end|>"]
  do_sample: false
  temperature: 0.0
  max_gen_toks: 48
"""
LAMBADA = """
include: {tasks}/lambada/lambada_openai.yaml
task: lambada_here
dataset_path: json
dataset_name: null
dataset_kwargs:
  data_files:
    test: {data}/tinystories_en/tinystories_first1k.jsonl.xz
"""
STOPPING = """
include: {tasks}/lambada/lambada_openai.yaml
task: stopping
dataset_path: json
dataset_name: null
dataset_kwargs:
  data_files:
    test: {data}/tinystories_en/tinystories_first1k.jsonl.xz
output_type: generate_until
doc_to_text: "{{{{text[:200]}}}}"
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: exact_match
generation_kwargs:
  until: ["She", ".\\n", " the b"]
  max_gen_toks: 48
"""
TASKS = ["gsm8k_here", "lambada_here", "stopping"]


@pytest.fixture(scope="module")
def tasks(shared, tmp_path_factory):
    """lm-eval's own gsm8k and lambada_openai on data that lies beside the repository, and one that stops often."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, text in (("gsm8k", GSM8K), ("lambada", LAMBADA), ("stopping", STOPPING)):
        (folder / f"{name}.yaml").write_text(text.format(tasks=OWN, data=shared / "data"))
    return folder


@pytest.fixture(scope="module")
def manager(tasks):
    return TaskManager(include_path=str(tasks), include_defaults=False)


@pytest.fixture(scope="module")
def folder(shared):
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return str(shared / "models" / "stories260k")


@pytest.fixture(scope="module")
def model(folder):
    return HeadwayModel.from_trunk(folder, count=3).eval()


def scores(lm, manager, tasks=TASKS, limit=8, **settings):
    """Of each task: its metrics, and of each sample what was asked, answered and extracted."""
    found = lm_eval.simple_evaluate(lm, tasks=tasks, task_manager=manager, limit=limit, bootstrap_iters=0, **settings)
    results = {}
    for task in tasks:
        samples = sorted(found["samples"][task], key=lambda sample: (sample["doc_id"], sample["filter"]))
        metrics = {name: value for name, value in found["results"][task].items() if "stderr" not in name}
        results[task] = metrics, [(sample["arguments"], sample["resps"], sample["filtered_resps"]) for sample in samples]
    return results


@pytest.fixture(scope="module")
def by_hf(folder, manager):
    """What plain `hf` gives."""
    return scores(HFLM(pretrained=folder, device="cpu", batch_size=4), manager)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"speculative": False}, {"adaptive": False}, {"drafter": "ngram", "adaptive": False}, {}])
def test_scores_and_outputs_equal_those_of_hf(how, by_hf, model, folder, manager):
    lm = HeadwayLM(model, AutoTokenizer.from_pretrained(folder), batch_size=4, **how)
    found = scores(lm, manager)
    for task in TASKS:
        assert found[task][1] == by_hf[task][1]
        assert found[task][0] == by_hf[task][0]
    drafts = lm.stats.num_draft_tokens
    assert (drafts == 0) if "speculative" in how else (drafts > 0 or not how)


def test_texts_that_differ_are_seen(by_hf):
    texts = [sample[1][0][0] for task in ("stopping", "gsm8k_here") for sample in by_hf[task][1]]
    assert len(set(texts)) > 10 and any(len(text) > 30 for text in texts)
    assert not any("She" in sample[1][0][0] for sample in by_hf["stopping"][1])
    assert 0 < by_hf["lambada_here"][0]["acc,none"] < 1


@pytest.mark.slow
def test_what_the_engine_cannot_do_is_done_as_hf_does_it(model, folder, manager):
    lm = HeadwayLM(model, AutoTokenizer.from_pretrained(folder), batch_size=4)
    beams = {"tasks": ["stopping"], "limit": 2, "gen_kwargs": {"num_beams": 2, "max_gen_toks": 8}}
    with pytest.warns(UserWarning, match="num_beams"):
        found = scores(lm, manager, **beams)
    assert found == scores(HFLM(pretrained=folder, device="cpu", batch_size=4), manager, **beams)


@pytest.mark.slow
def test_every_task_of_a_suite_is_one_of_lm_evals():
    """Looked up in its files: its own index takes 15 seconds to build."""
    wanted = {name for names in SUITES.values() for name in names}
    found = set()
    for file in OWN.rglob("*.yaml"):
        found |= wanted & set(re.findall(r"^(?:task|group|tag|\s*-):?\s+([\w-]+)\s*$", file.read_text("utf-8"), re.MULTILINE))
    assert found == wanted


@pytest.mark.slow
def test_the_command_prints_lm_evals_scores(folder, tasks, tmp_path, capsys):
    out = tmp_path / "scores.json"
    words = ["--model", folder, "--task", "lm-eval:lambada_here,stopping", "--include-path", str(tasks), "--limit", "3"]
    assert main(["eval", *words, "--drafter", "ngram", "--output-file", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "lambada_here.acc,none" in shown and "tokens_per_forward" in shown
    assert '"filtered_resps"' in out.read_text()


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        ("lm-eval:lambada_hare", "lm-eval has no task 'lambada_hare'; did you mean 'lambada_here'?"),
        ("lm-eval:humaneval", "--task humaneval --allow-code"),
        ("lm-eval:unsafe", "would run what the model wrote without protection"),
        ("lm-eval:nowhere", "The data of nowhere cannot be loaded"),
    ],
)
def test_mistakes_are_one_line(task, complaint, folder, tasks, tmp_path, shared, capsys, monkeypatch):
    own = partial(TaskManager, include_path=str(tmp_path))  # all of lm-eval's take 15 seconds to read
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda include_path, include_defaults=True: own(include_defaults=False))
    stopping = STOPPING.format(tasks=OWN, data=shared / "data")
    (tmp_path / "here.yaml").write_text(LAMBADA.format(tasks=OWN, data=shared / "data"))
    (tmp_path / "unsafe.yaml").write_text(stopping.replace("task: stopping", "task: unsafe\nunsafe_code: true"))
    (tmp_path / "nowhere.yaml").write_text(LAMBADA.format(tasks=OWN, data="/nowhere").replace("lambada_here", "nowhere"))
    assert main(["eval", "--model", folder, "--include-path", str(tmp_path), "--task", task, "--limit", "2"]) == 2
    assert complaint in capsys.readouterr().err


def test_a_missing_lm_eval_names_the_extra(folder, capsys, monkeypatch):
    for name in ("headway.evaluation.tasks.lm_eval", "headway.evaluation.tasks.lm_eval_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    assert main(["eval", "--model", folder, "--task", "lm-eval:gsm8k"]) == 2
    assert "pip install 'headway[lm-eval]'" in capsys.readouterr().err
