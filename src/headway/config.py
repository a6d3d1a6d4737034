"""Settings of a command: a frozen dataclass filled from defaults, then from a YAML file, then from flags.

Keys and types are strict. An unknown key or a wrong type is a ConfigError that names the file, the key and the nearest known key.
"""

import argparse
import dataclasses
import difflib
import textwrap
import types
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from math import isnan
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from headway.errors import ConfigError
from headway.files import write_text

T = TypeVar("T")
Choices = Iterable[str] | Callable[[], Iterable[str]]
MAX_METAVAR = 56  # characters; a longer list of choices stands in the help text

# Settings of earlier versions and their present names, the first that a command has. `no_x` is the switch `x` turned off.
RENAMED: dict[str, tuple[str, ...]] = {
    "out": ("output_dir", "output_file"),
    "length": ("max_length",),
    "count": ("num_heads",),
    "schedule": ("lr_scheduler",),
    "grad_clip": ("max_grad_norm",),
    "plain": ("no_speculative",),
    "denoising_sequential": ("ul2_s_denoiser_share",),
}


def field(
    default: Any = dataclasses.MISSING, help: str = "", *, group: str = "", choices: Choices | None = None, default_text: str = ""
) -> Any:
    """Dataclass field that is also a flag and a key of the YAML file. Use with `kw_only=True`.

    Args:
        default: value when neither the file nor the command line sets the field; without a default the field is required.
        help: line for `--help`.
        group: heading for `--help`; fields of a group need not stand together.
        choices: names that the value, or every item of a list, is checked against; a callable is called when needed.
        default_text: words for `--help` in place of the default, such as "from the recipe".
    """
    metadata = {"help": help, "group": group, "choices": choices, "default_text": default_text}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def choices_from(target: str) -> Callable[[], Iterable[str]]:
    """Choices read from a table elsewhere, such as "headway.decoding.drafters:DRAFTERS".

    The module is imported whenever a command line is parsed, and must not import torch.
    """
    module, name = target.split(":")
    return lambda: getattr(import_module(module), name)


def load(
    cls: type[T],
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
    prog: str = "headway",
    about: str = "",
    positional: str = "",
) -> T:
    """Build `cls` from defaults, a YAML file, and flags (["--learning-rate", "1e-4"]). The last source wins.

    Args:
        cls: a frozen dataclass. A nested dataclass is a nested mapping in YAML and dotted flags on the command line.
            A field named after a Python keyword ends in an underscore (`from_`); the flag and the key do not.
        file: a YAML file. A `--config FILE` among the overrides takes precedence.
        overrides: flags as typed. `--help` prints every field with the default and exits.
        prog: name of the command in errors and `--help`.
        about: paragraph at the top of `--help`.
        positional: flag with a value that may also stand alone, for example "folder".
    Raises: ConfigError for an unknown key or flag, a wrong type, a missing required value, an unreadable file.
    """
    parser = build_parser(cls, prog, about, positional)
    found, rest = parser.parse_known_args(list(overrides))
    flags = vars(found)
    if rest and positional and positional not in flags and not any(word.startswith("--") for word in rest):
        flags[positional] = rest.pop(0)
    if rest:
        raise ConfigError(f"{prog}: {_unknown_flag(next((word for word in rest if word.startswith('--')), rest[0]), parser)}")
    file = flags.pop("config", None) or file
    values = _read(Path(file)) if file is not None else {}
    for name, value in flags.items():
        *path, last = name.split(".")
        inner = values
        for key in path:
            inner[key] = inner[key] if isinstance(inner.get(key), dict) else {}
            inner = inner[key]
        inner[last] = _mark_text(value)
    return _build(cls, values, "", str(file or prog))


def build(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Build `cls` from a mapping, checked as `load` checks a file. Errors call the mapping `where`. Raises ConfigError."""
    return _build(cls, values, "", where)


def at_least(config: Any, least: float, *names: str) -> None:
    """Raise ConfigError if any of the named numbers is smaller than `least`. None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}.")


def save(config: Any, path: str | Path) -> None:
    """Write a config as YAML. `load` reads the file back to an equal config."""
    write_text(path, yaml.safe_dump(_yaml_values(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True))


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'name'?" for the closest known name, or an empty string."""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def build_parser(cls: type, prog: str, about: str = "", positional: str = "") -> argparse.ArgumentParser:
    """Command line of a config: a flag for every field, `--no-flag` for a switch, and `--config`, in groups."""
    usage = f"%(prog)s [{positional.upper()}] [options]" if positional else "%(prog)s [options]"
    parser = _Parser(
        formatter_class=_HelpFormatter,
        prog=prog,
        description=about,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        usage=usage,
        add_help=False,
    )
    general = argparse._ArgumentGroup(parser, "general")
    general.add_argument("-h", "--help", action="help", help="show this help and exit")
    general.add_argument("--config", metavar="FILE.yaml", help="read settings from this file; flags take precedence")
    headings: dict[str, Any] = {}
    if any(_default(item) is dataclasses.MISSING for item in dataclasses.fields(cls)):
        headings["required"] = parser.add_argument_group("required")
    _add_flags(parser, headings, cls)
    parser._action_groups.append(general)
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}")


class _HelpFormatter(argparse.HelpFormatter):
    """Help that never breaks a line at the hyphen of a flag."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


class _Text(str):
    """Value typed on the command line. The type is unknown until the value is checked against the field."""


def _mark_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_Text(item) for item in value]
    return _Text(value) if isinstance(value, str) else value


def _unknown_flag(text: str, parser: argparse.ArgumentParser) -> str:
    """Sentence that refuses an unknown word of the command line, with the present or nearest name."""
    flag = text.split("=")[0]
    names = {action.dest for action in parser._actions}
    if new := _present_name(flag.removeprefix("--").replace("-", "_"), names):
        return f"{flag} is now --{new.replace('_', '-')}."
    return f"unknown argument {text!r}{nearest(flag, [name for action in parser._actions for name in action.option_strings])}"


def _present_name(old: str, names: Iterable[str]) -> str:
    """Present name of a setting of an earlier version, or an empty string."""
    *groups, name = old.split(".")
    for new in RENAMED.get(name.removeprefix("no_"), ()):
        if ".".join([*groups, new.removeprefix("no_")]) in names:
            opposite = name.startswith("no_")
            new = (new.removeprefix("no_") if new.startswith("no_") else f"no_{new}") if opposite else new
            return ".".join([*groups, new])
    return ""


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


def _add_flags(
    parser: argparse.ArgumentParser, headings: dict[str, Any], cls: type, prefix: str = "", group: str = "", defaults: Any = None
) -> None:
    hints = get_type_hints(cls)
    for item in dataclasses.fields(cls):
        hint, name = hints[item.name], prefix + item.name.rstrip("_")
        default = _default(item) if defaults is None else getattr(defaults, item.name)
        heading = "required" if default is dataclasses.MISSING else item.metadata.get("group") or group or "settings"
        nested = _nested(hint)
        if nested is not None:
            _add_flags(parser, headings, nested, f"{name}.", heading, default if dataclasses.is_dataclass(default) else None)
            continue
        if heading not in headings:
            headings[heading] = parser.add_argument_group(heading)
        help_text = item.metadata.get("help", "")
        options: dict[str, Any] = {"dest": name}
        kind, choices = _alternatives(hint)[0], _choices(item)
        is_list = get_origin(kind) in (list, tuple)
        if len("|".join(choices)) > MAX_METAVAR // (1 + is_list):  # a list repeats the names
            help_text, choices = f"{help_text}; one of {', '.join(choices)}", ()
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = _metavar(get_args(kind)[0] if is_list else kind, choices)
        if is_list:
            options |= {"action": "extend", "nargs": "+"}
        options["help"] = f"{help_text} {_default_note(default, item)}".strip().replace("%", "%%")
        headings[heading].add_argument("--" + name.replace("_", "-"), **options)


def _build(cls: type[T], values: Any, prefix: str, where: str) -> T:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: {prefix.rstrip('.')} must be a group of settings, not {values!r}.")
    hints = get_type_hints(cls)
    fields = {item.name.rstrip("_"): item for item in dataclasses.fields(cls) if item.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"{where}: {_unknown_key(str(key), prefix, fields)}")
    built: dict[str, Any] = {}
    for name, item in fields.items():
        default = _default(item)
        if name in values:
            value = values[name]
            if dataclasses.is_dataclass(default) and isinstance(value, dict):  # a group's own default fills its gaps
                value = {inner.name: getattr(default, inner.name) for inner in dataclasses.fields(default)} | value
            built[item.name] = _checked(hints[item.name], value, prefix + name, where)
            _check_choices(built[item.name], item, value, prefix + name, where)
        elif default is dataclasses.MISSING:
            flag = f"--{prefix}{name}".replace("_", "-")
            raise ConfigError(f"{where}: {prefix + name} is required; give {flag} or set it in a --config file.")
    return cls(**built)


def _unknown_key(key: str, prefix: str, names: Iterable[str]) -> str:
    """Sentence that refuses an unknown key of a file, with the present or nearest name."""
    new = _present_name(key, names)
    if new.startswith("no_") and new not in names:
        return f"key {prefix + key!r} is now {prefix + new.removeprefix('no_')!r}, with the opposite value."
    if new:
        return f"key {prefix + key!r} is now {prefix + new!r}."
    return f"unknown key {prefix + key!r}{nearest(key.replace('-', '_'), names)}"


def _checked(hint: Any, value: Any, key: str, where: str) -> Any:
    """`value` converted to the type of `hint`. Raises ConfigError for a value of another type."""
    nested = _nested(hint)
    if nested is not None and value is not None:
        return value if isinstance(value, nested) else _build(nested, value, f"{key}.", where)
    for kind in sorted(_alternatives(hint), key=lambda kind: kind is not types.NoneType):  # a path is hardly ever called "none"
        try:
            return _convert(kind, value, lambda inner_hint, inner: _checked(inner_hint, inner, key, where))
        except ConfigError:  # an item of a list or mapping, already named
            raise
        except (ValueError, TypeError, yaml.YAMLError):
            continue
    raise ConfigError(f"{_source(value, where)}: {key} must be {_type_name(hint)}, not {value!r}.")


def _check_choices(built: Any, item: dataclasses.Field, value: Any, key: str, where: str) -> None:
    """Raise ConfigError if a value, or an item of a list, is not among the choices of the field."""
    choices = _choices(item)
    for name in built if isinstance(built, list | tuple) else [built]:
        if choices and name is not None and name not in choices:
            hint = nearest(str(name), choices) or "."
            raise ConfigError(f"{_source(value, where)}: {key} must be {'|'.join(choices)}, not {str(name)!r}{hint}")


def _source(value: Any, where: str) -> str:
    first = value[0] if isinstance(value, list) and value else value
    return "command line" if isinstance(first, _Text) else where


def _convert(hint: Any, value: Any, inner: Callable[[Any, Any], Any]) -> Any:
    """`value` as a plain type. Raises ValueError or TypeError for a value of another type."""
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
        return origin(inner(arguments[0], element) for element in value)
    if (hint is dict or origin is dict) and isinstance(found := yaml.safe_load(value) if text else value, dict):
        return {key: inner(arguments[1], element) for key, element in found.items()} if arguments else found
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and (text or (isinstance(value, int) and not isinstance(value, bool))):
        return int(value)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool) and not isnan(float(value)):
        return float(value)  # YAML 1.1 reads 1e-4, without a point, as a string
    if hint is Path and value == "":  # an unset shell variable, and Path("") is the current folder
        raise ValueError(value)
    if hint in (str, Path) and isinstance(value, str | Path):
        return Path(value).expanduser() if hint is Path else str(value)
    raise ValueError(value)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Members of a union, None last. The first member is the type itself."""
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,)
    return tuple(sorted(get_args(hint), key=lambda kind: kind is types.NoneType))


def _nested(hint: Any) -> type | None:
    return next((kind for kind in _alternatives(hint) if dataclasses.is_dataclass(kind) and isinstance(kind, type)), None)


def _default(item: dataclasses.Field) -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def _choices(item: dataclasses.Field) -> tuple[str, ...]:
    choices = item.metadata.get("choices") or ()
    return tuple(choices() if callable(choices) else choices)


def _type_name(hint: Any) -> str:
    """Name of a type in an error."""
    if get_origin(hint) is Literal:
        return "|".join(str(choice) for choice in get_args(hint))
    if len(_alternatives(hint)) > 1:
        return " or ".join(_type_name(kind) for kind in _alternatives(hint))
    if get_origin(hint) in (list, tuple):
        return f"list of {_type_name(get_args(hint)[0])}"
    names = {types.NoneType: "none", bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _metavar(hint: Any, choices: Sequence[str]) -> str:
    """Placeholder of a flag's value in `--help`: the names to choose from, or the type in capitals."""
    if choices or get_origin(hint) is Literal:
        return "|".join(choices) or _type_name(hint)
    return "{KEY: VALUE}" if dict in (hint, get_origin(hint)) else _type_name(hint).upper()


def _default_note(default: Any, item: dataclasses.Field) -> str:
    """Default of a field as words in brackets for `--help`. A required or unset field has none."""
    if default is dataclasses.MISSING:
        return ""
    if words := item.metadata.get("default_text"):
        return f"(default: {words})"
    if isinstance(default, bool):
        return f"(default: {'yes' if default else 'no'})"
    items = list(default) if isinstance(default, list | tuple | dict) else [default]
    words = " ".join(f"{element:g}" if isinstance(element, float) else str(element) for element in items if element is not None)
    return f"(default: {words})" if words else ""


def _yaml_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _yaml_values(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_yaml_values(element) for element in value]
    return str(value) if isinstance(value, Path) else value
