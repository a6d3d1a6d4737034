"""A mixture samples tasks in the proportions of T0 and T5, and renders rows with templates."""

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headway.data import PromptCompletion, Text, load_examples
from headway.data.mixtures import load_mixture, proportions, task_size
from headway.errors import ConfigError, DataError
from headway.model import load_tokenizer
from headway.training.configs import FinetuneConfig
from headway.training.datasets import build_dataset


def write(folder: Path, sizes: dict[str, int], **mixture: object) -> Path:
    """Sources a, b, ... of so many rows, and a mixture of them all with one template each, where `mixture` has no others."""
    for name, size in sizes.items():
        rows = [{"question": f"{name}{i}", "answer": str(i), "label": i % 2} for i in range(size)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"data": f"{name}.jsonl", "templates": ["{{ question }} ||| {{ answer }}"]} for name in sizes]
    file = folder / "mixture.yaml"
    file.write_text(yaml.safe_dump({"sources": sources, **mixture}))
    return file


def test_sizes_and_proportions_are_those_of_t0_and_t5():
    # sizes as T0 treats them: over 500,000 examples a data set counts as 500,000 / templates
    assert task_size(400_000, 10, 500_000) == 400_000
    assert task_size(500_000, 10, 500_000) == 500_000
    assert task_size(650_000, 10, 500_000) == 50_000
    assert proportions([100, 300]) == [0.25, 0.75]
    assert proportions([100, 400], temperature=2) == pytest.approx([1 / 3, 2 / 3])  # 10 to 20
    assert proportions([1, 1e6], temperature=1e9) == pytest.approx([0.5, 0.5], abs=1e-6)


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=8), st.floats(0.5, 20))
def test_proportions_sum_to_one_and_keep_the_order_of_sizes(sizes, temperature):
    found = proportions(sizes, temperature)
    assert sum(found) == pytest.approx(1)
    assert all(a <= b + 1e-12 for (_, a), (_, b) in zip(*[iter(sorted(zip(sizes, found, strict=True)))] * 2, strict=False))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"a": 30 / 630, "b": 200 / 630, "c": 400 / 630}),
        ({"cap": 100}, {"a": 30 / 230, "b": 100 / 230, "c": 100 / 230}),
        ({"temperature": 2.0}, {"a": 30**0.5, "b": 200**0.5, "c": 20}),
    ],
)
def test_sources_are_drawn_in_proportion_to_their_capped_sizes(tmp_path, options, expected):
    file = write(tmp_path, {"a": 30, "b": 200, "c": 400}, size=6000, **options)
    counts = Counter(example.prompt[0] for example in load_mixture(file))
    total = sum(expected.values())
    assert stats.chisquare([counts[name] for name in "abc"], [6000 * expected[name] / total for name in "abc"]).pvalue > 1e-3


def test_a_capped_source_counts_by_its_templates(tmp_path):
    three = ["one {{ question }} ||| x", "two {{ question }} ||| x", "three {{ question }} ||| x"]
    sources = [{"data": "a.jsonl", "templates": three}, {"data": "b.jsonl", "templates": three[:1]}]
    file = write(tmp_path, {"a": 300, "b": 60}, sources=sources, size=6000, cap=120)
    counts = Counter((example.prompt.split()[0], example.prompt.split()[1][0]) for example in load_mixture(file))
    expected = {("one", "a"): 40, ("two", "a"): 40, ("three", "a"): 40, ("one", "b"): 60}  # 120 / 3 with each of three
    assert set(counts) == set(expected)
    assert stats.chisquare([counts[key] for key in expected], [6000 * n / 180 for n in expected.values()]).pvalue > 1e-3


def test_the_default_size_is_the_sum_of_the_tasks_and_no_row_repeats_before_all_have_occurred(tmp_path):
    file = write(tmp_path, {"a": 20, "b": 70})
    examples = load_mixture(file)
    assert len(examples) == 90
    rows = Counter(example.prompt for example in examples)
    for name, size in (("a", 20), ("b", 70)):
        times = [rows[f"{name}{i}"] for i in range(size)]
        assert max(times) - min(times) <= 1
    assert [example.prompt for example in examples] != sorted(example.prompt for example in examples)


def test_a_seed_decides_the_examples(tmp_path):
    file = write(tmp_path, {"a": 20, "b": 70}, seed=1)
    first = load_examples(file)
    assert load_mixture(file) == first and load_examples(file, limit=10) == load_mixture(file, limit=10)
    assert len(load_examples(file, limit=10)) == 10
    file.write_text(file.read_text().replace("seed: 1", "seed: 2"))
    assert load_mixture(file) != first


def test_templates_are_rendered_as_promptsource_does(tmp_path):
    templates = [
        "Is {{ question }} odd? {{ ['Yes or no', 'Say'] | choice }}.\n|||\n{{ ['No', 'Yes'][label] }}",
        "{% if label == 1 %}{{ question }} is ||| odd{% endif %}",
        {"prompt": "Q: {{ question | upper }}\nA:", "completion": " {{ answer }}"},
        {"text": "{{ question }} {{ answer }}"},
    ]
    file = write(tmp_path, {"a": 40}, sources=[{"data": "a.jsonl", "templates": templates}])
    with pytest.warns(UserWarning, match="were left out"):
        examples = load_mixture(file)
    for example in examples:
        if isinstance(example, Text):
            name, number = example.text.split()
            assert name == f"a{number}"
        elif example.prompt.startswith("Is"):
            number = int(example.prompt.split()[1][1:])
            assert example.prompt in (f"Is a{number} odd? Yes or no.", f"Is a{number} odd? Say.")
            assert example.completion == (" Yes" if number % 2 else " No")
        elif example.prompt.startswith("Q"):
            assert example.prompt == f"Q: A{example.completion.strip()}\nA:"
        else:
            assert int(example.prompt.split()[0][1:]) % 2 == 1 and example.completion == " odd"
    asked = [example.prompt for example in examples if not isinstance(example, Text) and example.prompt.startswith("Is")]
    assert {prompt.split("? ")[1] for prompt in asked} == {"Yes or no.", "Say."}
    with pytest.warns(UserWarning, match="were left out"):
        assert load_mixture(file) == examples


def test_data_with_the_separator_is_not_split(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "x ||| y", "answer": "z"}) + "\n")
    file = tmp_path / "mixture.yaml"
    file.write_text(yaml.safe_dump({"sources": [{"data": "a.jsonl", "templates": ["{{ question }} ||| {{ answer }}"]}]}))
    assert load_mixture(file) == [PromptCompletion("x ||| y", " z")]


def test_a_source_without_templates_stays_unchanged_and_generated_sources_have_splits(tmp_path):
    file = tmp_path / "mixture.yaml"
    plain = {"data": "word-problems:2", "limit": 5}
    file.write_text(yaml.safe_dump({"sources": [plain, {**plain, "templates": ["{{ prompt }} ||| {{ completion }}"]}]}))
    for split in ("train", "test"):
        known = {example.prompt for example in load_examples("word-problems:2", split, 5)}
        assert {example.prompt for example in load_mixture(file, split)} <= known


def test_a_mixture_serves_as_training_data(tmp_path):
    file = write(tmp_path, {"a": 20, "b": 30})
    config = FinetuneConfig(model="embedded", data=str(file), output_dir=tmp_path / "out", max_length=32)
    assert len(build_dataset(config, load_tokenizer("embedded"), completion_only=True)) > 0


MISTAKES = [
    ({"data": "a.jsonl", "templates": ["{{ questions }} ||| x"]}, "'questions' is undefined; did you mean 'question'"),
    ({"data": "a.jsonl", "templates": ["{{ question }}"]}, r"template 1 has no \|\|\|"),
    ({"data": "a.jsonl", "templates": ["{{ question ||| x"]}, "no Jinja template.*line 1"),
    ({"data": "a.jsonl", "templates": [{"prompt": "x"}]}, "neither"),
    ({"data": "a.jsonl", "templates": ["{{ question / 2 }} ||| x"]}, "row|line 1.*cannot be rendered"),
    ({"data": "a.jsonl", "templates": ["{{ question.__class__.__mro__ }} ||| x"]}, "unsafe|undefined"),
    ({"data": "a.jsonl", "templates": ["{% if false %}{{ question }} ||| x{% endif %}"]}, "every template came out empty"),
    ({"data": "empty.jsonl"}, "source empty.jsonl .* has no rows"),
    ({"data": "gone.jsonl"}, "no file gone.jsonl"),
    ({"data": "other.yaml"}, "a mixture itself"),
]


@pytest.mark.parametrize(("source", "message"), MISTAKES)
def test_mistakes_are_named_with_their_location(tmp_path, source, message):
    (tmp_path / "empty.jsonl").write_text("")
    file = write(tmp_path, {"a": 3}, sources=[source])
    with pytest.raises(DataError, match=message):
        load_mixture(file)


def test_wrong_keys_and_numbers_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        load_mixture(write(tmp_path, {"a": 3}, temprature=2))
    with pytest.raises(ConfigError, match="cap of a mixture must be above 0"):
        load_mixture(write(tmp_path, {"a": 3}, cap=0))
    with pytest.raises(DataError, match="its own columns"):
        load_examples(write(tmp_path, {"a": 3}), columns={"prompt": "question"})
