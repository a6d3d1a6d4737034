"""SliCK: the definitions of the paper's figure 2, and models that know exactly so much."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from headway.cli import main
from headway.data import PromptCompletion, load_examples, row_of_example
from headway.errors import ConfigError, DataError
from headway.evaluation.probes.configs import SlickConfig
from headway.evaluation.probes.slick import category, is_right, load, probe
from tests.evaluation.probes.fakes import Fake

EXAMPLES = [PromptCompletion(f"Q: capital {n}?\nA:", f" City {n}") for n in range(8)]


def config(**settings: Any) -> SlickConfig:
    return SlickConfig(**{"data": "unused", "exemplar_sets": 6, "shots": 2, "samples": 5} | settings)


def asked(prompt: str) -> int:
    return int(re.findall(r"capital (\d)", prompt)[-1])


def knows(prompt: str, seed: int | None) -> str:
    """0: always. 1: after some prompts. 2: only when drawing, now and then. The others never."""
    n = asked(prompt)
    shown = int(re.findall(r"capital (\d)", prompt)[0])
    right = n == 0 or (n == 1 and shown % 2 == 0) or (n == 2 and seed is not None and seed % 4 == 0)
    return f" city {n}.\nmore" if right else " Nowhere"


def test_categories_are_those_of_the_paper() -> None:
    assert category(1.0, None) == "HighlyKnown" and category(1.0, 0.1) == "HighlyKnown"
    assert category(0.1, None) == category(0.9, 0.0) == "MaybeKnown"
    assert category(0.0, 0.01) == "WeaklyKnown" and category(0.0, 0.0) == "Unknown"


def test_a_model_that_knows_so_much_is_sorted_so() -> None:
    fake = Fake(knows)
    found = probe(fake, EXAMPLES, [""] * 8, range(4), config())
    assert [known.category for known in found] == ["HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown"]
    assert [known.p_sampled is None for known in found] == [True, True, False, False]
    assert len(fake.asked) == 4 * 6 + 2 * 6 * 5  # samples only where the greedy answers leave it open
    expected = sum(seed % 4 == 0 for prompt, seed in fake.asked if seed is not None and asked(prompt) == 2) / 30
    assert found[2].p_sampled == expected
    every = probe(Fake(knows), EXAMPLES, [""] * 8, range(4), config(sample_all=True))
    assert [known.category for known in every] == [known.category for known in found]
    assert every[0].p_sampled == 1.0 and every[2] == found[2]


def test_exemplars_are_others_as_many_as_asked_and_differ_from_set_to_set() -> None:
    fake = Fake(knows)
    probe(fake, EXAMPLES, [""] * 8, [3], config())
    shown = [re.findall(r"capital (\d)", prompt) for prompt, seed in fake.asked if seed is None]
    assert all(len(numbers) == 3 and numbers[-1] == "3" and "3" not in numbers[:2] for numbers in shown)
    assert len({tuple(numbers) for numbers in shown}) > 1
    assert "A: City" in fake.asked[0][0] and fake.asked[0][0].endswith("capital 3?\nA:")


def test_samples_of_an_example_do_not_depend_on_the_other_examples_asked() -> None:
    alone, together = Fake(knows), Fake(knows)
    probe(alone, EXAMPLES, [""] * 8, [3], config())
    probe(together, EXAMPLES, [""] * 8, range(8), config())
    assert alone.asked == [each for each in together.asked if asked(each[0]) == 3]
    seeds = [seed for _, seed in alone.asked if seed is not None]
    assert len(set(seeds)) == len(seeds) == 30


def test_exemplars_come_from_the_same_group_and_too_few_are_an_error() -> None:
    fake = Fake(knows)
    groups = ["a", "b"] * 4
    probe(fake, EXAMPLES, groups, [1], config())
    assert {n for prompt, _ in fake.asked for n in re.findall(r"capital (\d)", prompt)} <= {"1", "3", "5", "7"}
    with pytest.raises(DataError, match="4 solved examples are needed before each question, and 'b' has 3"):
        probe(fake, EXAMPLES, groups, [1], config(shots=4))


def test_the_share_of_weakly_known_is_found_where_the_truth_is_known() -> None:
    draw = random.Random(0)
    truth = [draw.choice([0.0, 0.5, 1.0]) for _ in range(8)]
    fake = Fake(
        lambda prompt, seed: f" City {asked(prompt)}" if random.Random(f"{prompt}{seed}").random() < truth[asked(prompt)] else ""
    )
    found = probe(fake, EXAMPLES, [""] * 8, range(8), config(exemplar_sets=10, samples=16))
    names = {0.0: "Unknown", 0.5: "MaybeKnown", 1.0: "HighlyKnown"}
    assert [known.category for known in found] == [names[p] for p in truth]


def test_text_and_numbers_are_compared_each_in_their_way() -> None:
    assert is_right(" the City, 3\nmore", "city 3", "text") and not is_right("\ncity 3", "city 3", "text")
    assert is_right(" 2 + 2 = 4\n#### 4", " 1 + 3 = 4\n#### 4", "number") and not is_right("4", "#### 4", "number")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [row_of_example(row) | {"relation": "even" if n % 2 == 0 else "odd"} for n, row in enumerate(EXAMPLES)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "train.jsonl"


def test_the_command_writes_categories_and_a_file_that_training_reads(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.parent / "slick.json"
    words = ["probe", "slick", "--data", str(data), "--group", "relation", "--limit", "3", "--shots", "2"]
    words += ["--exemplar-sets", "2", "--samples", "2", "--max-new-tokens", "4"]
    assert main([*words, "--keep", "WeaklyKnown", "Unknown", "MaybeKnown", "HighlyKnown", "--output-file", str(out)]) == 0
    assert "Kept 3 of 3" in capsys.readouterr().out
    kept = load_examples(data.parent / "slick.kept.jsonl")
    assert len(kept) == 3 and all(example in EXAMPLES for example in kept)
    lines = [json.loads(line) for line in (data.parent / "slick.categories.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [example.prompt for example in kept if isinstance(example, PromptCompletion)]
    assert sum(each["right"] for each in json.loads(out.read_text())["categories"].values()) == 3
    assert main([*words, "--keep", "HighlyKnown", "--output-file", str(out)]) == 2  # the embedded model knows none of them
    assert "no example is HighlyKnown" in capsys.readouterr().err


def test_mistakes_are_named(data: Path) -> None:
    with pytest.raises(ConfigError, match="give --output-file"):
        config(keep=["Unknown"])
    with pytest.raises(DataError, match="has no column 'topic'; it has: prompt, completion, relation"):
        load(config(data=str(data), group="topic"))
    with pytest.raises(ConfigError, match="column of a local file"):
        load(config(data="word-problems", group="topic"))
    (data.parent / "text.txt").write_text("just text")
    with pytest.raises(DataError, match="no prompts and completions"):
        load(config(data=str(data.parent / "text.txt")))
