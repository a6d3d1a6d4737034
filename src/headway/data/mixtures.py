"""Multi-task mixtures of instructions (T0: Sanh et al. 2021, arXiv 2110.08207, section 5; FLAN: Wei et al., arXiv 2109.01652).

A mixture is a YAML file: sources, each with prompt templates in Jinja as promptsource writes them. A source with a template is a
task. Tasks are drawn in proportion to their size, big sources capped, and flattened by a temperature (T5: arXiv 1910.10683, 3.5.2).
"""

import random
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

import headway.config
from headway.config import field, nearest
from headway.data.examples import Example, example_of
from headway.data.readers import Located, load_rows
from headway.errors import ConfigError, DataError

MIXTURES = (".yaml", ".yml")
BETWEEN = "|||"  # promptsource's mark between what is read and what is answered
MARK = "\x00answer\x00"  # stands for it in a template, so that data may contain it
DRAW = "\x00draw"  # under this name, which no template can spell, a rendering finds its random numbers
SHAPES = ({"prompt", "completion"}, {"text"})


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of a mixture."""

    data: str = field(help="what --data takes, but another mixture; a file may stand beside the mixture's")
    templates: list[Any] | None = field(
        None, help="each `input ||| answer`, {prompt, completion} or {text}; none: rows as they are"
    )
    columns: dict[str, str] | None = field(None, help="names of the data's own columns, where there are no templates")
    limit: int | None = field(None, help="use only so many rows, from the start")


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """A mixture file. Raises ConfigError where a number is out of range."""

    sources: list[SourceConfig] = field(help="what is mixed")
    cap: int = field(500_000, help="a source of more rows counts as cap / templates with each of its templates")
    temperature: float = field(1.0, help="sizes to the power 1 / temperature: 1 is in proportion, more is more even")
    size: int | None = field(None, help="examples to draw", default_text="the sum of the tasks' capped sizes")
    seed: int = field(0, help="of the draws")

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("A mixture needs at least one source.")
        for name in ("cap", "temperature", "size"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} of a mixture must be above 0, got {value}.")


def task_size(rows: int, templates: int, cap: int) -> float:
    """As how many examples a source counts with each of its templates."""
    return rows if rows <= cap else cap / templates


def proportions(sizes: Sequence[float], temperature: float = 1.0) -> list[float]:
    """How often each task is drawn: size^(1 / temperature), normalised."""
    powers = [size ** (1 / temperature) for size in sizes]
    return [power / sum(powers) for power in powers]


def load_mixture(path: str | Path, split: str = "train", limit: int | None = None) -> list[Example]:
    """Draw the examples of a mixture; the same file, split and data give the same ones in the same order.

    A task's rows come in random order, and none comes again before all have come. Sources are read twice, to be counted and to be
    drawn from, and only what was drawn is kept.

    Raises: ConfigError for a wrong file, DataError for a source without rows, and for a template that cannot be rendered, naming
        columns and row.
    """
    config = headway.config.load(MixtureConfig, path, prog="mixture")
    draw = random.Random(f"{config.seed}-{split}")
    tasks = [task for source in config.sources for task in _tasks(source, Path(path), split, config.cap)]
    size = round(sum(task.size for task in tasks)) if config.size is None else config.size
    size = size if limit is None else min(size, limit)
    cumulative = list(accumulate(proportions([task.size for task in tasks], config.temperature)))
    drawn = draw.choices(range(len(tasks)), cum_weights=cumulative, k=size)
    wanted: dict[int, dict[int, list[tuple[int, int]]]] = {}  # source -> row -> (place in the mixture, task)
    for number, task in enumerate(tasks):
        places = [place for place, one in enumerate(drawn) if one == number]
        for place, index in zip(places, _in_turns(task.rows, len(places), draw), strict=True):
            wanted.setdefault(id(task.source), {}).setdefault(index, []).append((place, number))
    found: list[Example | None] = [None] * size
    for source in config.sources:
        rows = wanted.get(id(source), {})
        for index, (location, row) in enumerate(islice(_rows(source, Path(path), split), max(rows, default=-1) + 1)):
            for place, number in rows.get(index, ()):
                found[place] = tasks[number].render(location, row, random.Random(f"{config.seed}-{split}-{place}"))
    examples = [example for example in found if example is not None]
    if not examples:
        raise DataError(f"{path} ({split}): every template came out empty.")
    if len(examples) < size:
        message = f"{path}: {size - len(examples)} of {size} examples were left out: their template came out empty."
        warnings.warn(message, UserWarning, stacklevel=2)
    return examples


@dataclass(frozen=True)
class _Task:
    """A source with one of its templates, or without any."""

    source: SourceConfig
    rows: int
    size: float
    number: int  # of the template, from 1
    parts: dict[str, Template] | None

    def render(self, where: str, row: Mapping[str, Any], draw: random.Random) -> Example | None:
        """The example that a row becomes; None where the template leaves it out by coming out empty."""
        if self.parts is None:
            return example_of(where, row, self.source.columns)
        try:
            made = {name: part.render({**row, DRAW: draw}) for name, part in self.parts.items()}
        except UndefinedError as error:
            name = (re.findall(r"'([^']*)' is undefined", str(error)) or [""])[0]
            near = nearest(name, row)
            raise DataError(f"{where}: template {self.number}: {error}{near}. The row has: {', '.join(row)}.") from error
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{where}: template {self.number} cannot be rendered: {error}") from error
        if BETWEEN in made:
            read, _, answer = made[BETWEEN].partition(MARK)
            made = {"prompt": read.strip(), "completion": answer.strip() and f" {answer.strip()}"}
        return example_of(where, made) if all(value.strip() for value in made.values()) else None


def _tasks(source: SourceConfig, path: Path, split: str, cap: int) -> list[_Task]:
    """The tasks of a source, each tried on its first row."""
    rows, first = 0, None
    for placed in _rows(source, path, split):
        first = first or placed
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
    """Jinja for templates from anywhere: it cannot reach beyond a row, and draws with the mixture's seed."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"choice": _choice, "random": _choice}
    del environment.globals["lipsum"]  # random, and not by our seed
    return environment


@pass_context
def _choice(context: Context, items: Iterable[Any]) -> Any:
    return context[DRAW].choice(list(items))


def _compiled(template: Any, environment: ImmutableSandboxedEnvironment, where: str) -> dict[str, Template]:
    if isinstance(template, str):
        if template.count(BETWEEN) < 1:
            raise DataError(f"{where} has no {BETWEEN} between what is read and what is answered.")
        parts = {BETWEEN: template.replace(BETWEEN, MARK)}
    elif isinstance(template, dict) and set(template) in SHAPES and all(isinstance(part, str) for part in template.values()):
        parts = template
    else:
        raise DataError(f"{where} is neither `input {BETWEEN} answer` nor texts for prompt and completion, or for text.")
    try:
        return {name: environment.from_string(part) for name, part in parts.items()}
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise DataError(f"{where} is no Jinja template: {error}{f' (line {line})' if line else ''}.") from error


def _rows(source: SourceConfig, path: Path, split: str) -> Iterator[Located]:
    if source.data.endswith(MIXTURES):
        raise DataError(f"{path}: source {source.data} is a mixture itself: list its sources instead.")
    beside = path.parent / source.data
    name = str(beside) if beside.exists() else source.data
    return islice(load_rows(name, split, source.limit), source.limit)


def _in_turns(rows: int, count: int, draw: random.Random) -> list[int]:
    """`count` numbers below `rows` in random order, none again before all have come."""
    found: list[int] = []
    while len(found) < count:
        found += draw.sample(range(rows), min(rows, count - len(found)))
    return found
