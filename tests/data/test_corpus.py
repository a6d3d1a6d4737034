"""The script for the corpus of the embedded model, on a small scale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "embedded" / "corpus.py"


@pytest.fixture(scope="module")
def corpus(shared, tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    command = [sys.executable, str(SCRIPT), "--shared", str(shared), "--out", str(out), "--characters", "4000000"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True)
    return out


def texts(path):
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_no_held_out_text_is_in_train_and_every_domain_has_some(corpus):
    train = set(texts(corpus / "train.jsonl"))
    valid = texts(corpus / "valid.jsonl")
    domains = [texts(corpus / f"valid-{name}.jsonl") for name in ("stories", "arithmetic", "code", "books")]
    assert sorted(valid) == sorted(text for domain in domains for text in domain)
    assert all(len(domain) > 150 for domain in domains)
    assert not train & set(valid)
    assert 3_500_000 < sum(map(len, texts(corpus / "train.jsonl"))) < 7_500_000  # the real stories come whole, six times


def test_the_tokenizer_round_trips_and_splits_digits(corpus):
    tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    assert len(tokenizer) == 2048
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>" and tokenizer.bos_token is None
    for text in ["def f(x):\n\treturn 'é' + 12\n", "Tom has 3 apples. 3 + 14 = 17.", "  — “naïve” 日本 \n\n"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert [t for t in tokenizer.tokenize("1207") if t.isdigit()] == ["1", "2", "0", "7"]
