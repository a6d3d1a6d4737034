"""Multi-task mixtures of instructions (T0: Sanh et al. 2021, arXiv 2110.08207, section 5; FLAN: Wei et al., arXiv 2109.01652).

A mixture is a YAML file of sources with prompt templates in Jinja, in promptsource's notation. A task is a source with a template.
Tasks are sampled in proportion to size, with a cap for large sources and temperature scaling (T5: arXiv 1910.10683, section 3.5.2).
"""

import random
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

import headway.config
from headway.config import field, nearest
from headway.data.chat_templates import TEMPLATE_ERRORS
from headway.data.examples import Example, Row, example_of
from headway.data.readers import Located, load_rows
from headway.errors import ConfigError, DataError

MIXTURES = (".yaml", ".yml")
SEPARATOR = "|||"  # promptsource's separator of input and answer
INNER_SEPARATOR = "\x00answer\x00"  # replaces SEPARATOR in a template, so that data may contain SEPARATOR
RNG = "\x00rng"  # variable with the random numbers of a rendering; no template can spell the name
COLUMN_SETS = ({"prompt", "completion"}, {"text"})


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """A source of a mixture."""

    data: str = field(help="a source as for --data, except a mixture; paths may be relative to the mixture file")
    templates: list[Any] | None = field(
        None, help="list of `input ||| answer`, {prompt, completion} or {text}", default_text="rows as they are"
    )
    columns: dict[str, str] | None = field(None, help="names used here -> names in the data, without templates")
    limit: int | None = field(None, help="maximum number of rows, from the start")


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """A mixture file. Raises ConfigError if a number is out of range."""

    sources: list[SourceConfig] = field(help="sources to mix")
    cap: int = field(500_000, help="size of a larger source; the templates of the source share the cap")
    temperature: float = field(1.0, help="exponent 1 / temperature of sizes: 1 samples in proportion, higher values more evenly")
    size: int | None = field(None, help="number of examples", default_text="the sum of the capped task sizes")
    seed: int = field(0, help="seed of the sampling")

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("A mixture needs at least one source.")
        for name in ("cap", "temperature", "size"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} of a mixture must be above 0, got {value}.")


def task_size(rows: int, templates: int, cap: int) -> float:
    """Size of a task: the rows of the source, or a share of the cap."""
    return rows if rows <= cap else cap / templates


def proportions(sizes: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Sampling probabilities of tasks: size^(1 / temperature), normalised."""
    powers = [size ** (1 / temperature) for size in sizes]
    return [power / sum(powers) for power in powers]


def load_mixture(path: str | Path, split: str = "train", limit: int | None = None) -> list[Example]:
    """Sampled examples of a mixture. The same file, split and data always give the same examples in the same order.

    The rows of a task come in random order, and no row repeats before all rows have occurred. Sources are read twice, to count rows
    and to render rows, and only sampled rows are kept in memory.

    Raises:
        ConfigError: the file is no mixture.
        DataError: a source has no rows, or a template cannot be rendered (with columns and row).
    """
    config = headway.config.load(MixtureConfig, path, prog="mixture")
    rng = random.Random(f"{config.seed}-{split}")
    tasks = [task for source in config.sources for task in _tasks(source, Path(path), split, config.cap)]
    size = round(sum(task.size for task in tasks)) if config.size is None else config.size
    size = size if limit is None else min(size, limit)
    cumulative = list(accumulate(proportions([task.size for task in tasks], config.temperature)))
    task_numbers = rng.choices(range(len(tasks)), cum_weights=cumulative, k=size)
    sampled: dict[int, dict[int, list[tuple[int, int]]]] = {}  # source -> row -> (index in the mixture, task)
    for number, task in enumerate(tasks):
        indices = [index for index, task_number in enumerate(task_numbers) if task_number == number]
        for index, row_number in zip(indices, _sample_rows(task.rows, len(indices), rng), strict=True):
            sampled.setdefault(id(task.source), {}).setdefault(row_number, []).append((index, number))
    rendered: list[Example | None] = [None] * size
    for source in config.sources:
        rows = sampled.get(id(source), {})
        for row_number, (location, row) in enumerate(islice(_rows(source, Path(path), split), max(rows, default=-1) + 1)):
            for index, number in rows.get(row_number, ()):
                rendered[index] = tasks[number].render(location, row, random.Random(f"{config.seed}-{split}-{index}"))
    examples = [example for example in rendered if example is not None]
    if not examples:
        raise DataError(f"{path} ({split}): every template came out empty.")
    if len(examples) < size:
        message = f"{path}: {size - len(examples)} of {size} examples were left out: their template came out empty."
        warnings.warn(message, UserWarning, stacklevel=2)
    return examples


@dataclass(frozen=True)
class _Task:
    """A source with a template, or without templates."""

    source: SourceConfig
    rows: int
    size: float
    number: int  # of the template, from 1
    parts: dict[str, Template] | None

    def render(self, location: str, row: Row, rng: random.Random) -> Example | None:
        """The example of a row; None if the template renders as empty, to leave the row out."""
        if self.parts is None:
            return example_of(location, row, self.source.columns)
        try:
            texts = {name: part.render({**row, RNG: rng}) for name, part in self.parts.items()}
        except UndefinedError as error:
            name = (re.findall(r"'([^']*)' is undefined", str(error)) or [""])[0]
            near = nearest(name, row)
            raise DataError(f"{location}: template {self.number}: {error}{near}. The row has: {', '.join(row)}.") from error
        except TEMPLATE_ERRORS as error:
            raise DataError(f"{location}: template {self.number} cannot be rendered: {error}") from error
        if SEPARATOR in texts:
            prompt, _, answer = texts[SEPARATOR].partition(INNER_SEPARATOR)
            texts = {"prompt": prompt.strip(), "completion": answer.strip() and f" {answer.strip()}"}
        return example_of(location, texts) if all(text.strip() for text in texts.values()) else None


def _tasks(source: SourceConfig, path: Path, split: str, cap: int) -> list[_Task]:
    """The tasks of a source. The first row tests every template."""
    rows, first = 0, None
    for located in _rows(source, path, split):
        first = first or located
        rows += 1
    if first is None:
        raise DataError(f"{path}: source {source.data} ({split}) has no rows. Leave it out, or point to one that has.")
    environment = _environment()
    templates = source.templates or [None]
    size = task_size(rows, len(templates), cap)
    tasks = []
    for number, template in enumerate(templates, 1):
        parts = None if template is None else _compiled(template, environment, f"{path}: source {source.data}, template {number}")
        tasks.append(_Task(source, rows, size, number, parts))
        tasks[-1].render(first[0], first[1], random.Random(0))
    return tasks


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja for untrusted templates: sandboxed, and random choices depend on the mixture's seed."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"choice": _choice, "random": _choice}
    del environment.globals["lipsum"]  # random, without a seed
    return environment


@pass_context
def _choice(context: Context, items: Iterable[Any]) -> Any:
    return context[RNG].choice(list(items))


def _compiled(template: Any, environment: ImmutableSandboxedEnvironment, location: str) -> dict[str, Template]:
    if isinstance(template, str):
        if SEPARATOR not in template:
            raise DataError(f"{location} has no {SEPARATOR} between input and answer.")
        parts = {SEPARATOR: template.replace(SEPARATOR, INNER_SEPARATOR)}
    elif isinstance(template, dict) and set(template) in COLUMN_SETS and all(isinstance(part, str) for part in template.values()):
        parts = template
    else:
        raise DataError(f"{location} is neither `input {SEPARATOR} answer` nor texts for prompt and completion, or for text.")
    try:
        return {name: environment.from_string(part) for name, part in parts.items()}
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise DataError(f"{location} is no Jinja template: {error}{f' (line {line})' if line else ''}.") from error


def _rows(source: SourceConfig, path: Path, split: str) -> Iterator[Located]:
    if source.data.endswith(MIXTURES):
        raise DataError(f"{path}: source {source.data} is a mixture itself: list its sources instead.")
    beside = path.parent / source.data
    name = str(beside) if beside.exists() else source.data
    return islice(load_rows(name, split, source.limit), source.limit)


def _sample_rows(rows: int, count: int, rng: random.Random) -> list[int]:
    """`count` random row numbers; no row repeats before all rows have occurred."""
    sampled: list[int] = []
    while len(sampled) < count:
        sampled += rng.sample(range(rows), min(rows, count - len(sampled)))
    return sampled
