"""What the sections of a configuration are made of: a strict base, and types that say what a value must be."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Final, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo
from yarl import URL


class Section(BaseModel):
    """A mapping of a configuration. It never changes, and has no keys but those it names."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


@dataclass(frozen=True, slots=True)
class Later:
    """Marks a key that is understood but has no effect yet; a configuration that sets it gets a warning."""


LATER: Final = Later()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where values come from that a configuration only points to. It is the context of validation.

    Attributes:
        root: The directory that relative paths start from.
        environment: The variables that `${NAME}` stands for.
    """

    root: Path
    environment: Mapping[str, str]


_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def _resolve(value: Any, info: ValidationInfo) -> Any:
    """Puts the values of variables in for `${NAME}`."""
    if not isinstance(value, str) or not isinstance(info.context, Origin):
        return value
    environment = info.context.environment

    def variable(match: "re.Match[str]") -> str:
        name = match[1]
        if not environment.get(name):
            raise ValueError(f"the environment variable {name} is not set")
        return environment[name]

    return _REFERENCE.sub(variable, value)


def _anchor(value: Path, info: ValidationInfo) -> Path:
    """Makes a path start from the configuration's directory."""
    if ".." in PurePath(value).parts:
        raise ValueError("must not contain '..'")
    return info.context.root / value if isinstance(info.context, Origin) else value


def _within(value: Path, info: ValidationInfo) -> Path:
    """Makes sure that a file lies below the configuration's directory."""
    path = _anchor(value, info)
    if isinstance(info.context, Origin) and not path.resolve().is_relative_to(info.context.root.resolve()):
        raise ValueError(f"must lie below {info.context.root}")
    return path


def _http_url(value: str) -> str:
    try:
        url = URL(value)
    except ValueError as error:
        raise ValueError(f"is not a URL ({error})") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("must be an absolute URL such as https://api.example.com/v1")
    return value


def _listen_address(value: str) -> str:
    _, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port or :port, with a port of 0 to 65535")
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error})") from None
    return value


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("is not the name of an HTTP header")
    return value


def _header_value(value: str) -> str:
    if any(character in value for character in "\r\n\0"):
        raise ValueError("must not contain line breaks")
    return value


def _credential(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not all("\x21" <= character <= "\x7e" for character in text):
        raise ValueError("must be printable ASCII without blanks")
    return value


Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A name that an operator gives: letters, digits, dots, dashes and underscores."""

Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400 * 365)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Ratio: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Dollars: TypeAlias = Annotated[float, Field(ge=0)]
StatusCode: TypeAlias = Annotated[int, Field(ge=100, le=599)]
Secret: TypeAlias = Annotated[SecretStr, BeforeValidator(_resolve), AfterValidator(_credential)]
"""A credential, or `${NAME}` for one in the environment."""
HttpUrl: TypeAlias = Annotated[str, AfterValidator(_http_url)]
ListenAddress: TypeAlias = Annotated[str, AfterValidator(_listen_address)]
Regex: TypeAlias = Annotated[str, AfterValidator(_regex)]
Headers: TypeAlias = dict[
    Annotated[str, AfterValidator(_header_name)], Annotated[str, BeforeValidator(_resolve), AfterValidator(_header_value)]
]
"""HTTP headers; `${NAME}` in a value stands for a variable of the environment."""
FilePath: TypeAlias = Annotated[Path, AfterValidator(_anchor)]
"""A path, from the configuration's directory if it is relative, without `..`."""
IncludedPath: TypeAlias = Annotated[Path, AfterValidator(_within)]
"""A file whose text becomes part of the configuration; it lies below the configuration's directory."""
