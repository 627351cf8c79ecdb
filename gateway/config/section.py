"""What the sections of a configuration are made of: a strict base, and types that say what a value must be."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, SecretStr, ValidationInfo
from pydantic_core import CoreSchema
from yarl import URL


class Section(BaseModel):
    """A mapping of a configuration. It never changes, and has no keys but those it names."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


@dataclass(frozen=True, slots=True)
class Later:
    """Marks a key that is understood but has no effect yet; a configuration that sets it gets a warning, and its schema says so."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), NOT_YET: True}


NOT_YET: Final = "x-not-acted-on-yet"
"""What such keys are marked with in the JSON Schema."""


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
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?|\*")
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
    if any(character <= " " or character == "\x7f" for character in value) or url.raw_fragment:
        raise ValueError("must not contain blanks, line breaks or a fragment")
    if url.raw_user is not None or url.raw_password is not None:
        raise ValueError("must not contain a credential, which would end up in logs: give it where credentials belong")
    return value


def is_port(text: str) -> bool:
    """Tells whether a text is the number of a port; 0 is any free one."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def is_host(text: str) -> bool:
    """Tells whether a text is a host to listen on: a name, an IPv4 address, an IPv6 address in brackets, or empty for all."""
    if not (text.startswith("[") and text.endswith("]")):
        return _HOST_NAME.fullmatch(text) is not None
    try:
        IPv6Address(text[1:-1])
    except ValueError:
        return False
    return True


def _listen_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not is_port(port) or not is_host(host):
        raise ValueError("must be host:port or :port, with a port of 0 to 65535 and IPv6 addresses in brackets")
    return value


def _optional_listen_address(value: str) -> str:
    return _listen_address(value) if value else value


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError("must be '*', or an origin as browsers send it, such as https://app.example.com: lower case, no path")
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
    if any((character < " " and character != "\t") or character == "\x7f" for character in value):
        raise ValueError("must not contain line breaks or other control characters")
    return value


def is_credential(text: str) -> bool:
    """Tells whether a text can be sent as a credential."""
    return bool(text) and all("\x21" <= character <= "\x7e" for character in text)


def _credential(value: SecretStr) -> SecretStr:
    if not is_credential(value.get_secret_value()):
        raise ValueError("must be printable ASCII without blanks")
    return value


def is_cookie(text: str) -> bool:
    """Tells whether a text can be sent as the `Cookie` header, in which blanks stand between cookies."""
    return text.strip() == text and is_credential(text.replace(" ", "") if text else text)


Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A name that an operator gives: letters, digits, dots, dashes and underscores."""

Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400 * 365)]
Count: TypeAlias = Annotated[int, Field(ge=0)]
Ratio: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Dollars: TypeAlias = Annotated[float, Field(ge=0)]
StatusCode: TypeAlias = Annotated[int, Field(ge=100, le=599)]
Secret: TypeAlias = Annotated[SecretStr, BeforeValidator(_resolve), AfterValidator(_credential)]
"""A credential, or `${NAME}` for one in the environment."""
SecretText: TypeAlias = Annotated[SecretStr, BeforeValidator(_resolve)]
"""The same for what must be looked at together with something else."""
Role: TypeAlias = Literal["admin", "user", "read-only"]
EndpointPattern: TypeAlias = Annotated[str, Field(pattern=r"^[A-Z*]+ /\S*$")]
"""A route, or several, as `METHOD /path` with `*` for a segment."""
BudgetPeriod: TypeAlias = Literal["day", "week", "month", "total"]
KeyStoreUrl: TypeAlias = Annotated[str, BeforeValidator(_resolve), Field(pattern=r"^(sqlite://(/.*)?|postgres(ql)?://.+)$")]
"""Where keys are; `${NAME}` in it stands for a variable of the environment, such as a password."""
HttpUrl: TypeAlias = Annotated[str, AfterValidator(_http_url)]
ListenAddress: TypeAlias = Annotated[str, AfterValidator(_listen_address)]
OptionalListenAddress: TypeAlias = Annotated[str, AfterValidator(_optional_listen_address)]
CorsOrigin: TypeAlias = Annotated[str, AfterValidator(_origin)]
Regex: TypeAlias = Annotated[str, AfterValidator(_regex)]
Headers: TypeAlias = dict[
    Annotated[str, AfterValidator(_header_name)], Annotated[str, BeforeValidator(_resolve), AfterValidator(_header_value)]
]
"""HTTP headers; `${NAME}` in a value stands for a variable of the environment."""
FilePath: TypeAlias = Annotated[Path, AfterValidator(_anchor)]
"""A path, from the configuration's directory if it is relative, without `..`."""
IncludedPath: TypeAlias = Annotated[Path, AfterValidator(_within)]
"""A file whose text becomes part of the configuration; it lies below the configuration's directory."""
