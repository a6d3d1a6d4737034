"""Settings: one frozen dataclass a verb, filled from its defaults, then a YAML file, then the command line.

Keys and types are strict: what is unknown or of the wrong type is a ConfigError that names file, key and nearest key.
"""

import argparse
import dataclasses
import difflib
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from headway.errors import ConfigError
from headway.files import write_text

T = TypeVar("T")


def field(default: Any = dataclasses.MISSING, help: str = "") -> Any:
    """A dataclass field whose `help` becomes its `--help`; without a default it must be given (use `kw_only=True`)."""
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def load(cls: type[T], file: str | Path | None = None, overrides: Sequence[str] = (), prog: str = "headway", about: str = "") -> T:
    """Build `cls` from its defaults, a YAML file, and flags such as ["--learning-rate", "1e-4"], the last one winning.

    Args:
        cls: a frozen dataclass; nested ones are nested mappings in YAML and dotted flags on the command line. A field whose
            name Python keeps for itself has an underscore behind it (`from_`), which flag and key do without.
        file: a YAML file; a `--config FILE` among the overrides comes in its place.
        overrides: flags as typed; `--help` prints every field with its default and exits.
    Raises: ConfigError for an unknown key or flag, a wrong type, a missing required value, an unreadable file.
    """
    parser = parser_of(cls, prog, about)
    found, rest = parser.parse_known_args(list(overrides))
    for text in rest:
        known = [name for action in parser._actions for name in action.option_strings]
        raise ConfigError(f"{prog}: unknown argument {text!r}{nearest(text.split('=')[0], known)}")
    given = vars(found)
    file = given.pop("config", None) or file
    values = _read(Path(file)) if file is not None else {}
    for name, value in given.items():
        *path, last = name.split(".")
        inner = values
        for key in path:
            inner[key] = inner[key] if isinstance(inner.get(key), dict) else {}
            inner = inner[key]
        inner[last] = _typed(value)
    return _build(cls, values, "", str(file or prog))


def build(cls: type[T], values: dict[str, Any], where: str) -> T:
    """`cls` from a mapping, checked as `load` checks a file; `where` is what errors call it. Raises ConfigError."""
    return _build(cls, values, "", where)


def at_least(config: Any, least: float, *names: str) -> None:
    """Raise ConfigError where one of these numbers, if it is given at all, is smaller."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}.")


def save(config: Any, path: str | Path) -> None:
    """Write a config as YAML that `load` reads back to an equal one."""
    write_text(path, yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True))


def nearest(wrong: str, known: Iterable[str]) -> str:
    """ ", did you mean ...?" or, where nothing is close, nothing."""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def parser_of(cls: type, prog: str, about: str = "") -> argparse.ArgumentParser:
    """The command line of a config: a flag a field, `--no-flag` for what is true or false, and `--config`."""
    parser = _Parser(
        prog=prog, description=about, argument_default=argparse.SUPPRESS, allow_abbrev=False, usage="%(prog)s [options]"
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="read settings from this file; flags win over it")
    _add_flags(parser, cls, "", None)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}")


class _Text(str):
    """A value typed on the command line: its type is not known until it meets its field."""


def _typed(value: Any) -> Any:
    if isinstance(value, list):
        return [_Text(item) for item in value]
    return _Text(value) if isinstance(value, str) else value


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, not a {type(values).__name__}.")
    return values or {}


def _add_flags(parser: argparse.ArgumentParser, cls: type, prefix: str, defaults: Any) -> None:
    hints = get_type_hints(cls)
    for item in dataclasses.fields(cls):
        hint, name = hints[item.name], prefix + item.name.rstrip("_")
        default = _default(item) if defaults is None else getattr(defaults, item.name)
        inner = _nested(hint)
        if inner is not None:
            _add_flags(parser, inner, f"{name}.", default if dataclasses.is_dataclass(default) else None)
            continue
        note = "required" if default is dataclasses.MISSING else f"default: {_show(default)}"
        options: dict[str, Any] = {"dest": name, "help": f"{item.metadata.get('help', '')} ({note})".replace("%", "%%")}
        if _arms(hint)[0] is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(_arms(hint)[0]) in (list, tuple):
            options |= {"action": "extend", "nargs": "+", "metavar": _named(get_args(_arms(hint)[0])[0])}
        else:
            options["metavar"] = _named(_arms(hint)[0])
        parser.add_argument("--" + name.replace("_", "-"), **options)


def _build(cls: type[T], values: Any, prefix: str, where: str) -> T:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {prefix.rstrip('.')} must be a group of settings, not {values!r}.")
    hints = get_type_hints(cls)
    fields = {item.name.rstrip("_"): item for item in dataclasses.fields(cls) if item.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {prefix + str(key)!r}{nearest(str(key).replace('-', '_'), fields)}")
    built: dict[str, Any] = {}
    for name, item in fields.items():
        default = _default(item)
        if name in values:
            value = values[name]
            if dataclasses.is_dataclass(default) and isinstance(value, dict):  # a group's own default fills its gaps
                value = {part.name: getattr(default, part.name) for part in dataclasses.fields(default)} | value
            built[item.name] = _checked(hints[item.name], value, prefix + name, where)
        elif default is dataclasses.MISSING:
            flag = f"--{prefix}{name}".replace("_", "-")
            raise ConfigError(f"{where}: {prefix + name} is required; give {flag} or set it in a --config file.")
    return cls(**built)


def _checked(hint: Any, value: Any, key: str, where: str) -> Any:
    """`value` as the type that `hint` says. Raises ConfigError where it is another."""
    inner = _nested(hint)
    if inner is not None and value is not None:
        return value if isinstance(value, inner) else _build(inner, value, f"{key}.", where)
    for arm in sorted(_arms(hint), key=lambda one: one is not types.NoneType):  # a path is hardly ever called "none"
        try:
            return _as(arm, value, lambda one, each: _checked(one, each, key, where))
        except (ValueError, TypeError, yaml.YAMLError):
            continue
    source = "command line" if isinstance(value, _Text) else where
    raise ConfigError(f"{source}: {key} must be {_named(hint)}, not {value!r}.")


def _as(hint: Any, value: Any, inner: Callable[[Any, Any], Any]) -> Any:
    """`value` as one plain type; ValueError or TypeError where it is another."""
    origin, arguments = get_origin(hint), get_args(hint)
    text = isinstance(value, _Text)
    if hint is Any:
        return yaml.safe_load(value) if text else value
    if hint is types.NoneType and (value is None or (text and value.lower() in ("none", "null"))):
        return None
    if origin is Literal:
        for choice in arguments:
            if str(choice) == value if text else type(choice) is type(value) and choice == value:
                return choice
    if origin in (list, tuple) and isinstance(value, list | tuple):
        return origin(inner(arguments[0], each) for each in value)
    if (hint is dict or origin is dict) and isinstance(found := yaml.safe_load(value) if text else value, dict):
        return {key: inner(arguments[1], each) for key, each in found.items()} if arguments else found
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and (text or (isinstance(value, int) and not isinstance(value, bool))):
        return int(value)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        return float(value)  # YAML 1.1 reads 1e-4, without a point, as a string
    if hint in (str, Path) and isinstance(value, str | Path):
        return Path(value).expanduser() if hint is Path else str(value)
    raise ValueError(value)


def _arms(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, "none" last so that `_arms(hint)[0]` is the thing itself."""
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,)
    return tuple(sorted(get_args(hint), key=lambda arm: arm is types.NoneType))


def _nested(hint: Any) -> type | None:
    return next((arm for arm in _arms(hint) if dataclasses.is_dataclass(arm) and isinstance(arm, type)), None)


def _default(item: dataclasses.Field) -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def _named(hint: Any) -> str:
    """How a type reads in an error or in `--help`."""
    if get_origin(hint) is Literal:
        return "|".join(str(choice) for choice in get_args(hint))
    if len(_arms(hint)) > 1:
        return " or ".join(_named(arm) for arm in _arms(hint))
    if get_origin(hint) in (list, tuple):
        return f"list of {_named(get_args(hint)[0])}"
    names = {types.NoneType: "none", bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _show(default: Any) -> str:
    items = list(default) if isinstance(default, list | tuple) else [default]
    return " ".join("none" if item is None else str(item) for item in items) or "none"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
