"""Settings are strict, and say what is wrong with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.config import choices_from, field, load, save
from headway.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """A group of settings."""

    kind: Literal["constant", "cosine"] = field("constant", "shape of the curve")
    warmup: int = field(10, "steps")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One of each type."""

    model: str = field(help="which model")
    learning_rate: float = field(1e-3, "step size, 5% is much")
    steps: int = field(100, "how many")
    limit: int | None = field(None, "at most")
    lora: bool = field(False, "adapters")
    out: Path = field(Path("runs"), "folder")
    targets: list[str] = field(["q", "v"], "modules")
    weights: tuple[float, ...] = field((1.0, 0.5), "of the heads")
    options: dict[str, Any] = field({}, "of the family")
    schedule: Schedule = field(Schedule(warmup=7), "of the step size")


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_beat_yaml_and_yaml_beats_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "model: a\nsteps: 5\nlearning_rate: 0.5\nschedule:\n  warmup: 3\n")
    config = load(Settings, file, ["--learning-rate", "1e-4", "--schedule.kind", "cosine", "--lora", "--targets", "o"])
    assert (config.model, config.steps, config.learning_rate, config.lora) == ("a", 5, 1e-4, True)
    assert config.schedule == Schedule("cosine", 3)
    assert config.targets == ["o"]
    assert config.limit is None and config.out == Path("runs")


def test_a_group_that_is_partly_given_keeps_the_rest_of_its_own_default() -> None:
    assert load(Settings, None, ["--model", "m", "--schedule.kind", "cosine"]).schedule == Schedule("cosine", 7)


def test_the_config_flag_reads_the_file(tmp_path: Path) -> None:
    assert load(Settings, overrides=["--config", str(written(tmp_path, "model: a")), "--limit", "3"]).limit == 3


def test_an_unknown_key_is_named_with_file_and_nearest_key(tmp_path: Path) -> None:
    file = written(tmp_path, "model: a\nlearning_rat: 1\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: unknown key 'learning_rat'; did you mean 'learning_rate'\?"):
        load(Settings, file)


def test_an_unknown_nested_key_is_named_with_its_group(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'schedule.warmpu'; did you mean 'warmup'"):
        load(Settings, written(tmp_path, "model: a\nschedule: {warmpu: 1}\n"))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("steps: many", "steps must be integer, not 'many'"),
        ("steps: 1.5", "steps must be integer, not 1.5"),
        ("steps: true", "steps must be integer, not True"),
        ("lora: 1", "lora must be true or false, not 1"),
        ("learning_rate: fast", "learning_rate must be number, not 'fast'"),
        ("limit: few", "limit must be integer or none, not 'few'"),
        ("targets: q", "targets must be list of text, not 'q'"),
        ("weights: [1, x]", "weights must be number, not 'x'"),
        ("options: 3", "options must be dict"),
        ("schedule: 3", "schedule must be a group of settings, not 3"),
        ("schedule: {kind: square}", r"schedule.kind must be constant\|cosine, not 'square'"),
        ("steps: null", "steps must be integer, not None"),
    ],
)
def test_a_wrong_type_is_named_with_its_file(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"run\.yaml: {complaint}"):
        load(Settings, written(tmp_path, f"model: a\n{line}\n"))


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--stpes", "3"], "unknown argument '--stpes'; did you mean '--steps'"),
        (["--learn", "3"], "unknown argument '--learn'"),
        (["--steps", "x"], "steps must be integer, not 'x'"),
        (["--steps"], "expected one argument"),
        (["--schedule.kind", "sine"], r"schedule.kind must be constant\|cosine, not 'sine'"),
        (["stray"], "unknown argument 'stray'"),
        (["--options", "{a: ["], "options must be dict"),
        (["--learning-rate", "nan"], "learning_rate must be number, not 'nan'"),
        (["--weights", "1", "NaN"], "weights must be number, not 'NaN'"),
        (["--out", ""], "out must be path, not ''"),
    ],
)
def test_a_wrong_flag_is_named(flags: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(Settings, None, ["--model", "m", *flags])


def test_a_wrong_flag_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^command line: steps must be integer"):
        load(Settings, written(tmp_path, "model: a"), ["--steps", "x"])


def test_a_required_value_that_is_missing_is_named_with_its_flag() -> None:
    with pytest.raises(ConfigError, match="model is required; give --model"):
        load(Settings)


def test_yaml_without_a_point_in_its_exponent_is_still_a_number(tmp_path: Path) -> None:
    assert load(Settings, written(tmp_path, "model: a\nlearning_rate: 1e-4\n")).learning_rate == 1e-4


@pytest.mark.parametrize(("text", "complaint"), [("a: [", "not valid YAML"), ("- 1", "must hold `key: value` lines")])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(Settings, written(tmp_path, text))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        load(Settings, tmp_path / "nowhere.yaml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load(Settings, written(tmp_path, ""), ["--model", "m"]) == Settings(model="m")


def test_defaults_are_not_shared_between_configs() -> None:
    first = Settings(model="m")
    first.targets.append("k")
    assert Settings(model="m").targets == ["q", "v"]


def test_help_lists_every_field_with_help_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load(Settings, None, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert "--learning-rate NUMBER step size, 5% is much (default: 0.001)" in shown
    assert "required: --model TEXT which model" in shown and "--lora, --no-lora" in shown and "(default: q v)" in shown
    assert "--schedule.warmup INTEGER steps (default: 7)" in shown


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings with headings, choices, and names that earlier versions spelled otherwise."""

    output_dir: Path | None = field(None, help="folder", group="output")
    lr_scheduler: str = field("cosine", help="shape", group="training", choices=("cosine", "linear"))
    max_grad_norm: float | None = field(None, help="clipping", group="training", default_text="from the recipe")
    drafters: list[str] = field([], help="to time", group="decoding", choices=choices_from("tests.test_config:TABLE"))
    num_heads: int | None = field(None, help="heads", group="heads")
    speculative: bool = field(True, help="draft tokens", group="decoding")
    verbose: bool = field(False, help="print more", group="output")


TABLE = {"ngram": 1, "assistant": 2}


def test_help_lists_fields_under_headings_with_defaults_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(RunConfig, None, ["--help"])
    shown = capsys.readouterr().out
    blocks = {block.split(":\n")[0]: " ".join(block.split()) for block in shown.split("\n\n")}
    assert list(blocks)[1:] == ["output", "training", "decoding", "heads", "general"]
    assert "--verbose, --no-verbose print more (default: no)" in blocks["output"]
    assert "--max-grad-norm NUMBER clipping (default: from the recipe)" in blocks["training"]
    assert "--drafters ngram|assistant [ngram|assistant ...] to time" in blocks["decoding"]
    assert "--num-heads INTEGER heads" in blocks["heads"] and "None" not in shown and "default: none" not in shown


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--lr-scheduler", "cosin"], r"^command line: lr_scheduler must be cosine\|linear, not 'cosin'; did you mean 'cosine'\?"),
        (["--drafters", "ngram", "heads"], r"^command line: drafters must be ngram\|assistant, not 'heads'"),
        (["--count", "3"], "^headway: --count is now --num-heads.$"),
        (["--grad-clip=0"], "^headway: --grad-clip is now --max-grad-norm.$"),
        (["--out", "x"], "^headway: --out is now --output-dir.$"),
        (["--plain"], "^headway: --plain is now --no-speculative.$"),
        (["--no-plain"], "^headway: --no-plain is now --speculative.$"),
        (["--length", "3"], "unknown argument '--length'"),  # no field of this config has its present name
    ],
)
def test_a_flag_of_another_name_or_value_is_refused(flags: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(RunConfig, None, flags)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("schedule: linear", "key 'schedule' is now 'lr_scheduler'"),
        ("plain: true", "key 'plain' is now 'speculative', with the opposite value"),
        ("lr_scheduler: square", r"run\.yaml: lr_scheduler must be cosine\|linear, not 'square'"),
    ],
)
def test_a_key_of_another_name_or_value_is_refused(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(RunConfig, written(tmp_path, line))


def test_a_name_among_the_choices_and_none_are_accepted() -> None:
    config = load(RunConfig, None, ["--drafters", "assistant", "--max-grad-norm", "none"])
    assert config.drafters == ["assistant"] and config.max_grad_norm is None


@pytest.mark.parametrize("words", [["a", "--lora"], ["--lora", "a"], ["--model", "a", "--lora"]])
def test_the_positional_value_may_stand_before_or_after_flags(words: list[str]) -> None:
    config = load(Settings, None, words, positional="model")
    assert config.model == "a" and config.lora


@pytest.mark.parametrize(("words", "wrong"), [(["a", "b"], "'b'"), (["a", "--lara"], "'--lara'"), (["--model", "a", "b"], "'b'")])
def test_a_second_positional_value_is_refused(words: list[str], wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown argument {wrong}"):
        load(Settings, None, words, positional="model")


@pytest.mark.slow
@given(
    st.builds(
        Settings,
        model=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))),
        learning_rate=st.floats(allow_nan=False),
        steps=st.integers(),
        limit=st.none() | st.integers(),
        lora=st.booleans(),
        out=st.sampled_from([Path("a"), Path("/b/c d")]),
        targets=st.lists(st.text(st.characters(codec="ascii", exclude_categories=("Cc",)))),
        weights=st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
        options=st.dictionaries(st.sampled_from("ab"), st.integers() | st.booleans()),
        schedule=st.builds(Schedule, kind=st.sampled_from(["constant", "cosine"]), warmup=st.integers()),
    )
)
def test_saved_settings_load_as_they_were(tmp_path_factory: pytest.TempPathFactory, config: Settings) -> None:
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    save(config, path)
    assert load(Settings, path) == config
