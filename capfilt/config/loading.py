"""Read a YAML file and KEY=VALUE overrides into a typed, frozen config."""

import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from capfilt.config.schema import Config, section_of
from capfilt.display import counted, redact
from capfilt.errors import ConfigError

_TOLD = 20  # problems of one config
_SHOWN, _LOOKED_AT = 200, 2000  # characters of a value in a message, and those of it that are searched for credentials
# What PyYAML raises besides its own errors: for values such as 2026-13-01 or !!int "", and for brackets in brackets.
_FAULTS = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)


C = TypeVar("C", bound=Config)


def read(path: Path) -> dict[str, object]:
    """Return the keys of a YAML file and their values, not checked yet."""
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def load(kind: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """Read a config from YAML, apply KEY=VALUE overrides, and check it.

    An override reaches a nested key with dots: sampling.top_p=0.95.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, a value is out of range,
            or an override is not KEY=VALUE.
    """
    return _check(kind, _override(read(path), overrides), str(path))


def load_by(key: str, kinds: Mapping[str, type[C]], path: Path, overrides: Sequence[str] = ()) -> C:
    """Read a config as load does, of the kind that one of its keys names.

    Raises:
        ConfigError: as load, or the key is missing or has another value.
    """
    values = _override(read(path), overrides)
    *others, last = map(repr, kinds)
    known = f"{', '.join(others)} or {last}"
    if key not in values:
        raise ConfigError(f"{path}: {key}: is missing; give {known}")
    found = values[key]
    if not isinstance(found, str) or found not in kinds:
        raise ConfigError(f"{path}: {key}: input should be {known} (found {_shown(found)})")
    return _check(kinds[found], values, str(path))


def loads(kind: type[C], text: str, origin: str, overrides: Sequence[str] = ()) -> C:
    """Read a config from YAML text and check it, as load does; origin names the text in errors."""
    return _check(kind, _override(_parse(text, origin), overrides), origin)


def dump(config: Config, without: Iterable[str] = ()) -> str:
    """Return a config as YAML that load reads back to an equal object; some keys, with dots, can be left out."""
    values = config.model_dump(mode="json")
    for key in without:
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section.get(parent) or {}  # not every job has every section
        section.pop(last, None)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but a repeated key is an error, where YAML's takes the last."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise yaml.MarkedYAMLError(problem=f"found {_shown(key.value)} twice", problem_mark=key.start_mark)
            names.add(str(key.value))
        return node


def _parse(text: str, origin: str) -> dict[str, object]:
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 (it is a safe one)
    except _FAULTS as error:
        why = str(error).replace('"<unicode string>", ', "")  # PyYAML's name of what it read
        raise ConfigError(f"{origin}: is not YAML: {' '.join(why.split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: holds a {type(values).__name__}; a config is a mapping of keys to values")
    return values


def _override(values: dict[str, object], overrides: Sequence[str]) -> dict[str, object]:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {redact(override)}: write it as KEY=VALUE, for example --set batch_size=32")
        _assign(values, key, _value(value, override))
    return values


def _value(text: str, override: str) -> object:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value: object = loader.construct_document(node) if node else None
    except _FAULTS:
        raise ConfigError(
            f"--set {redact(override)}: the value is not YAML; quote it for the shell, such as "
            "--set 'input=[\"a.tar\"]'"
        ) from None
    rest = text[node.end_mark.index if node else 0 :].strip()
    if rest.startswith("#"):  # else a run would get another folder
        raise ConfigError(
            f"--set {redact(override)}: YAML leaves out {_shown(rest)} as a comment; quote the value for it, too, "
            "such as --set 'run=\"/runs/a #1\"'"
        )
    return value


def _check(kind: type[C], values: dict[str, object], origin: str) -> C:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
        told = [_explain(kind, problem) for problem in problems[:_TOLD]]
        if len(problems) > _TOLD:
            told.append(f"and {counted(len(problems) - _TOLD, 'problem')} more")
        raise ConfigError("\n".join(f"{origin}: {line}" for line in told)) from None


def _assign(values: dict[str, object], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {key}: {parent} holds a value, not a section")
        values = child
    values[last] = value


def _explain(kind: type[Config], problem: ErrorDetails) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "value_error":  # one of our own, which says what was found
        return ": ".join(filter(None, [key, problem["msg"].removeprefix("Value error, ")]))
    if problem["type"] == "too_short" and not problem["input"]:
        return f"{key}: is empty; give at least one"
    if problem["type"] == "missing":
        field = _section(kind, problem["loc"][:-1]).model_fields.get(str(problem["loc"][-1]))
        meaning = f" ({field.description})" if field and field.description else ""
        return f"{key}: is missing{meaning}"
    if problem["type"] != "extra_forbidden":
        found = f" (found {_shown(problem['input'])})"
        if problem["type"] == "list_type" and isinstance(problem["input"], str):
            found += _as_list(problem["input"])
        return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}{found}"
    return f"{key}: unknown key; {_remedy(kind, problem)}"


def _as_list(text: str) -> str:
    """Return how a text is written as a list of one, in which a range such as {00..12}.tar needs quotes."""
    if len(text) > _SHOWN or not text.isprintable():
        return ""
    listed = yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=2 * _SHOWN)
    return f"; write it as {redact(listed.strip())}"


def _remedy(kind: type[Config], problem: ErrorDetails) -> str:
    """Return which key was meant by an unknown one, one section further in or out or by its letters; else all known."""
    known = _section(kind, problem["loc"][:-1]).model_fields
    name = str(problem["loc"][-1])
    sections = {each: section_of(field.annotation) for each, field in known.items()}
    inner = [f"{each}.{name}" for each, section in sections.items() if section and name in section.model_fields]
    outer = [each for each in problem["input"] if each in known] if isinstance(problem["input"], dict) else []
    if close := inner or outer or difflib.get_close_matches(name, known, n=1):
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(known)}"


class _Shown(reprlib.Repr):
    """What a message shows of a value, however large: with aliases a few lines of YAML hold billions of values."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother = 2, _SHOWN

    def repr_str(self, x: str, level: int) -> str:
        text = redact(repr(x[:_LOOKED_AT]))
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_shown = _Shown().repr


def _section(kind: type[Config], loc: tuple[int | str, ...]) -> type[Config]:
    """Return the config class that the keys of loc lead to."""
    for key in loc:
        if str(key) in kind.model_fields:
            kind = section_of(kind.model_fields[str(key)].annotation) or kind
    return kind
