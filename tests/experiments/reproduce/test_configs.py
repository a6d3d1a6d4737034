"""Settings of each scale are valid, and the command line refuses mistakes in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from headway.cli import main
from headway.errors import ConfigError
from headway.experiments.reproduce.configs import (
    EXPERIMENTS,
    FinetuningConfig,
    InductionConfig,
    PolynomialConfig,
    ScratchConfig,
)


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_every_scale_sets_everything_and_flags_take_precedence(name: str, scale: str) -> None:
    config = EXPERIMENTS[name](scale=scale, steps=7).resolved()
    assert config.steps == 7
    assert not [key for key in config.SCALES[scale] if getattr(config, key) is None]
    assert set(config.SCALES["cpu"]) == set(config.SCALES["paper"])


def test_the_papers_settings_are_the_published_ones() -> None:
    induction, polynomial = InductionConfig(scale="paper").resolved(), PolynomialConfig(scale="paper").resolved()
    for config in (induction, polynomial):
        assert (config.steps, config.learning_rate) == (100_000, 1e-4)
    assert induction.batch_size * induction.max_length == 2**18 == polynomial.batch_size * 32
    assert (induction.sizes, induction.tokens) == (["1M", "3M", "10M", "30M"], [1, 2])
    assert (polynomial.trained, polynomial.test_examples, polynomial.pauses) == (5, 2000, [0, 5, 10])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"seeds": 1}, "seeds must be at least 2"),
        ({"steps": 0}, "steps must be above 0"),
        ({"tokens": [2, 4]}, "hold 1, the baseline"),
        ({"sizes": ["1N"]}, "no size '1N'; did you mean '1M'"),
        ({"sizes": ["3M"], "tokens": [1, 5]}, "3M has 4 layers, too few to predict 5"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ScratchConfig(**settings)


def test_rows_must_divide_into_forward_passes() -> None:
    with pytest.raises(ConfigError, match="10 rows cannot be divided into 3"):
        FinetuningConfig(batch_size=10, gradient_accumulation=3).resolved()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["inductoin"], "there is no 'reproduce inductoin'; did you mean 'reproduce induction'?"),
        (["induction", "--pauses", "3"], "unknown argument '--pauses'"),
        (["finetuning", "--model", "nowhere/at-all"], "brings no heads"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words]) == 2
    told = capsys.readouterr().err
    assert complaint in told and "Traceback" not in told


def test_the_command_without_a_name_lists_the_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce"]) == 0
    shown = capsys.readouterr().out
    assert all(f"headway reproduce {name}" in shown for name in ("induction", "polynomial", "finetuning", "scale"))


def test_help_of_an_experiment_loads_no_torch(tmp_path: Path) -> None:
    code = "import sys; from headway.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code, "reproduce", "polynomial", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--pauses" in shown and "--scale cpu|paper" in shown
