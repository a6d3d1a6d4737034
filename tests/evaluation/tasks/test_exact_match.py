"""Extraction and comparison agree with lm-eval's own filters and metric, on real model answers."""

import gzip
import json

import pytest
import yaml

from headway.evaluation.tasks.exact_match import extract_flexible, extract_strict, same_answer


@pytest.fixture(scope="module")
def lm_eval_gsm8k():
    """lm-eval's own extraction filters and exact-match arguments for `gsm8k`."""
    lm_eval = pytest.importorskip("lm_eval")
    from pathlib import Path

    from lm_eval.filters.extraction import RegexFilter

    task = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml").read_text())
    filters = {}
    for entry in task["filter_list"]:
        regex = dict(entry["filter"][0])
        regex.pop("function")
        filters[entry["name"]] = RegexFilter(**regex)
    metric = {k: v for k, v in task["metric_list"][0].items() if k in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    return filters, metric


def check(texts, references, lm_eval_gsm8k):
    from lm_eval.api.metrics import exact_match_fn

    filters, metric = lm_eval_gsm8k
    for name, extract in (("strict-match", extract_strict), ("flexible-extract", extract_flexible)):
        theirs = [found[0] for found in filters[name].apply([[text] for text in texts], [{}] * len(texts))]
        assert [extract(text) for text in texts] == theirs
        for found, reference in zip(theirs, references, strict=True):
            expected = exact_match_fn(predictions=[found], references=[reference], **metric)["exact_match"]
            assert same_answer(found, reference) == bool(expected)


def test_real_gsm8k_answers_are_scored_as_lm_eval_scores_them(shared, lm_eval_gsm8k):
    with gzip.open(shared / "data" / "gsm8k" / "example_model_solutions.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file][:400]
    texts, references = [], []
    for row in rows:
        for kind in ("6b_finetuning", "175b_verification"):
            solution = row[kind]
            texts.append(solution["solution"] if isinstance(solution, dict) else solution)
            references.append(row["ground_truth"])
    check(texts, references, lm_eval_gsm8k)


def test_awkward_answers_are_scored_as_lm_eval_scores_them(lm_eval_gsm8k):
    texts = [
        "#### 1,200",
        "#### -5.",
        "so $12.50 it is",
        "no number",
        "####12",
        "3 and 4 and 5.",
        "#### $7",
        "",
        "#### 18\nQuestion: #### 3",
    ]
    check(texts, ["1200", "-5", "12.50", "1", "12", "5", "7", "0", "#### 18"], lm_eval_gsm8k)
