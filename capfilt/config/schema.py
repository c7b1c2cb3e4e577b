"""What every config declares: the base class of all, and their keys as text."""

import re
from typing import get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from capfilt.display import CREDENTIALS, has_credentials

_UNEXPANDED = re.compile(r"~[^/]*/|\$(?:\w+|\{\w+\})(?:/|$)")


class Config(BaseModel):
    """Base of all configs: immutable; no undeclared key, no URL with credentials, no empty or unexpanded path."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _no_slip(cls, value: object, info: ValidationInfo) -> object:
        """Refuse credentials, since a config is stored, sent to other machines and shown in errors.

        Refuse also paths that nobody means: an empty one is the current folder, and one that begins with ~ or a
        variable is a folder of that very name in it.
        """
        for each in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(each, str):
                continue
            if has_credentials(each):
                raise ValueError(CREDENTIALS)
            if found := _UNEXPANDED.match(each):
                raise ValueError(f"begins with {found[0]}, which only a shell expands; write the path out")
            if not each.strip() and _is_required(cls, info):
                raise ValueError("is empty, as an unset variable of the shell makes it; give a value")
        return value


def describe(kind: type[Config], indent: str = "") -> str:
    """Return all keys of a config as YAML, each followed by its default and its description."""
    lines = []
    for name, field in kind.model_fields.items():
        section = section_of(field.annotation)
        if section and get_origin(field.annotation) is list:
            item = describe(section, indent + "    ")
            lines.append(f"{indent}{name}:  # {field.description}\n{indent}  - {item.lstrip()}")
        elif section:
            lines.append(f"{indent}{name}:  # {field.description}\n{describe(section, indent + '  ')}")
        else:
            value = "" if field.is_required() else yaml.safe_dump([field.default], default_flow_style=True)[1:-2]
            lines.append(f"{indent}{name}: {value}".rstrip() + f"  # {field.description}\n")
    return "".join(lines)


def section_of(annotation: object) -> type[Config] | None:
    """Return the config class of a field's type: of a section, of one that may be null, or of a list of them."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Config)), None)


def _is_required(kind: type[Config], info: ValidationInfo) -> bool:
    return info.field_name is not None and kind.model_fields[info.field_name].is_required()
