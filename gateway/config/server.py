"""How the gateway listens, what it logs and what it exports."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gateway.config.section import (
    LATER,
    CorsOrigin,
    FilePath,
    HttpUrl,
    KeyStoreUrl,
    ListenAddress,
    OptionalListenAddress,
    Seconds,
    Section,
)


class TlsConfig(Section):
    """TLS of both surfaces."""

    cert: FilePath
    """PEM file with the certificate, and after it those of the authorities between it and the root."""
    key: FilePath
    """PEM file with the certificate's private key."""
    client_ca: FilePath | None = None
    """PEM file with the authorities that clients' certificates must come from; without it clients need none."""


class ServerConfig(Section):
    """How the gateway listens and logs."""

    listen_addr: ListenAddress = ":8080"
    """Where REST is served, as `host:port`; without a host all interfaces. `HOST` and `PORT` override it."""
    grpc_addr: ListenAddress = ":50051"
    """Where gRPC is served. `GRPC_PORT` overrides its port."""
    metrics_addr: OptionalListenAddress = ""
    """Where a core without a bridge serves `/metrics`; empty for nowhere."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1024**3)] = 10 * 1024 * 1024
    """Largest JSON body of a request."""
    max_upload_bytes: Annotated[int, Field(ge=1024)] = 512 * 1024 * 1024
    """Largest upload, which is streamed."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    log_format: Literal["text", "json"] | None = None
    """How log lines look; unset, text on a terminal and JSON elsewhere."""
    user_agent: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\x20-\x7e]+$")] | None = None
    """What providers are told who asks."""
    stream_default: bool = True
    """Whether a chat streams where neither its body nor `Accept` says."""
    keepalive_seconds: Annotated[float, Field(ge=0, le=3600)] = 15
    """After how much silence a stream gets a comment; 0 for never."""
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 30
    """How long requests under way may take once the gateway is told to stop."""
    tls: TlsConfig | None = None
    """TLS of both surfaces; plain text without it."""
    public_url: Annotated[HttpUrl | None, LATER] = None
    """Where clients reach the gateway."""
    cors_origins: tuple[CorsOrigin, ...] = ()
    """Origins whose pages may call the gateway; `*` for any."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """How many processes serve, under `twinspan serve` alone; `--workers` overrides it. A change needs a restart."""


class TelemetryConfig(Section):
    """What leaves the process; where it goes is for the standard `OTEL_*` variables to say."""

    traces: bool | None = None
    """Whether traces are exported; unset, they are if the environment names an endpoint or an exporter."""
    metrics: bool | None = None
    """The same for OpenTelemetry's GenAI metrics."""
    capture_content: Annotated[bool, LATER] = False
    """Whether spans hold what was said."""
    log_requests: Annotated[bool, LATER] = False
    """Whether each request is logged."""


class DebugConfig(Section):
    """What helps to look into a running gateway."""

    pprof_enabled: bool = False
    """Whether profiles are served at `/debug/pprof/`, to administrators."""


class StateConfig(Section):
    """Where state lives that several processes share."""

    url: Annotated[str, Field(pattern=r"^(memory|valkey|valkeys|redis|rediss|unix)://")] = "memory://"
    """`memory://` for this gateway alone, or the URL of a Valkey or Redis server for all that share it; `unix://` and a path
    for one on a socket of this machine. A change needs a restart."""
    fail_open: bool = True
    """Whether requests are let in unchecked while that server cannot be reached; else they get 503."""
    lease_requests: Annotated[int, Field(ge=0, le=10_000)] = 0
    """For how many requests of a limited key, team, agent or host a process asks that server at once; 0 and 1 for each alone. In
    any minute, each process may let in so many requests more than the limit. A change needs a restart."""


class KeysConfig(Section):
    """Where keys are kept that administrators make while the gateway runs."""

    url: KeyStoreUrl = "sqlite://"
    """`sqlite://` for the file `keys.db` in `$STATE_DIRECTORY`, `$XDG_STATE_HOME/twinspan` or `~/.local/state/twinspan`;
    `sqlite:///PATH` for another file; `postgresql://...` for a database that gateways on several machines share. A change needs a
    restart."""


class FilesConfig(Section):
    """Where files are kept."""

    dir: FilePath | None = None
    """The directory of the gateway's own store, which no two gateways may share; unset, `files` in
    `$STATE_DIRECTORY`, `$XDG_STATE_HOME/twinspan` or `~/.local/state/twinspan`. A change needs a restart."""
    backend: str = "local"
    """`local` for the own store, or the name of a provider that keeps files. Then it runs the batches, too."""
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 4
    """Most files that are sent to a provider at a time. A change needs a restart."""


class BatchesConfig(Section):
    """How batches run, and where they are kept."""

    dir: FilePath | None = None
    """The directory of batches under way; unset, `batches` below the directory of files. A change needs a restart."""
    backend: str = "local"
    """`local` for the own batches, or the name of a provider that runs batches. It must be where the files are."""
    max_concurrency: Annotated[int, Field(ge=1, le=1024)] = 4
    """Most lines of all batches that run at a time. Low, batches leave room for everyone else. A change needs a restart."""


class McpServerConfig(Section):
    """A server of tools that speaks the Model Context Protocol."""

    url: HttpUrl | None = None
    """Where it is."""
    command: str | None = None
    """What starts it, in place of `url`."""
    args: tuple[str, ...] = ()
    """The command's arguments."""
    transport: Literal["streamable-http", "sse", "stdio"] | None = None
    """How to speak to it; found out where it is not given."""
    timeout: Seconds = 30
    """Longest call of a tool, in seconds."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of each request to it."""
    keep_alive_interval: Seconds | None = None
    """Seconds between two pings."""

    @model_validator(mode="after")
    def _has_one_address(self) -> "McpServerConfig":
        if (self.url is None) == (self.command is None):
            raise ValueError("give either url or command")
        return self


class A2aRemoteConfig(Section):
    """An agent elsewhere that speaks A2A."""

    url: HttpUrl
    """Where it is."""
    transport: str | None = None
    """How to speak to it."""


class A2aConfig(Section):
    """What is shown to agents that speak A2A."""

    expose: tuple[str, ...] = ()
    """The agents to show; all if none is named."""
    remotes: dict[str, A2aRemoteConfig] = Field(default_factory=dict)
    """Agents elsewhere, by name."""
    public_url: HttpUrl | None = None
    """The address in the agent card."""
