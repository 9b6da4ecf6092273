"""One frozen configuration. Flags > environment (`HHH_`, `__` for nesting) > `config.yaml` > defaults.

Nothing else in the gateway reads the environment. Secrets are never values here: a setting that ends in `_env` names
the environment variable that holds one, and `secret()` reads it.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from classifiers.labels import CATEGORIES, LABELS
from gateway.errors import ConfigError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timeout(Section):
    connect_seconds: float = Field(5, gt=0, description="To open a connection to the model server.")
    first_byte_seconds: float = Field(
        60,
        gt=0,
        description="From the request to the first byte of the reply; of one that is not streamed, to all of it.",
    )
    total_seconds: float = Field(600, gt=0, description="The whole reply, streamed or not.")


class Breaker(Section):
    failures: int = Field(
        10,
        ge=1,
        description="Requests in a row that got no answer, an error neither, after which the breaker opens.",
    )
    reset_seconds: float = Field(10, gt=0, description="How long it stays open before one request may try again.")


class Upstream(Section):
    kind: Literal["local", "remote"] = Field(
        "local", description="`local` runs a model in process; `remote` as soon as `base_url` is set."
    )
    model: str | None = Field(
        None,
        description="For local: null is the embedded model, else a folder or hub id for transformers. "
        "For remote: the name to send (null: what the client asked for).",
    )
    base_url: str | None = Field(None, description="An OpenAI-compatible server, with its `/v1`.")
    api_key_env: str | None = Field(None, description="The name of the variable that holds the upstream's key.")
    timeout: Timeout = Timeout()
    retries: int = Field(2, ge=0, le=5, description="Retries of a remote call, only before its first byte.")
    breaker: Breaker = Breaker()
    max_batch: int = Field(8, ge=1, description="Chats that a local model generates at once.")
    threads: int = Field(0, ge=0, description="Threads of a local model; 0: the cores less one, at least one.")

    @field_validator("base_url", mode="after")
    @classmethod
    def _is_address(cls, base_url: str | None) -> str | None:
        if base_url is None:
            return None
        try:
            parts = urlsplit(base_url)
            wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
        except ValueError:
            wrong = True
        if wrong:
            raise ValueError("must be an address such as http://host:8001/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must have no user, query or fragment; a key goes into the variable of api_key_env")
        return base_url.rstrip("/")


class OtherClassifier(Section):
    kind: Literal["huggingface", "remote"] = Field(
        description="`huggingface`: a sequence-classification model in process (needs the extra `local`); "
        "`remote`: an endpoint such as vLLM's /classify."
    )
    model: str = Field(min_length=1, description="Folder or hub id; for remote the name to send.")
    labels: dict[str, str] = Field(
        min_length=1,
        description="Its labels (remote: their positions) and the label or category of ours that each means.",
    )
    place: Literal["beside", "instead"] = Field(
        "beside", description="Beside the shipped encoder, where the higher score counts, or instead of it."
    )
    url: str | None = Field(
        None, description="For remote: the endpoint's whole address, such as http://host:8001/classify."
    )
    api_key_env: str | None = Field(None, description="For remote: the name of the variable that holds its key.")
    several: bool = Field(False, description="For remote: whether its labels may hold together.")
    timeout_seconds: float = Field(2, gt=0, description="For remote: longer than this, and it has failed.")

    @field_validator("labels", mode="after")
    @classmethod
    def _known(cls, labels: dict[str, str]) -> dict[str, str]:
        for theirs, ours in labels.items():
            if ours not in LABELS and ours not in CATEGORIES:
                raise ValueError(f"{theirs}: {ours} is no label or category; labels are {', '.join(LABELS)}")
        return labels

    @model_validator(mode="after")
    def _addressed(self) -> OtherClassifier:
        if (self.kind == "remote") != (self.url is not None):
            raise ValueError("url goes with kind remote, and must be set there")
        return self

    def api_key(self) -> str | None:
        return secret(self.api_key_env) if self.api_key_env else None


class Triage(Section):
    weights: Path | None = Field(None, description="A folder of triage weights; null: the shipped ones.")
    threads: int = Field(1, ge=1, description="Threads of the classifier.")
    max_batch: int = Field(16, ge=1, description="Messages classified together when they arrive together.")
    memory: int = Field(20_000, ge=0, description="Verdicts remembered, by the hash of the text.")
    timeout_seconds: float = Field(
        5, gt=0, description="Longer than this, and triage counts as failed; a text of 30,000 characters may take 2."
    )
    others: tuple[OtherClassifier, ...] = Field(
        (),
        description="Further classifiers; with any, tier 0 is off, since its bound holds for the shipped encoder only.",
    )


class Limits(Section):
    body_bytes: int = Field(10 * 1024 * 1024, gt=0, description="Largest request body; over it: 413.")
    messages: int = Field(1_000, gt=0, description="Most messages in one request; over it: 413.")
    characters: int = Field(1_000_000, gt=0, description="Most characters of text in one request; over it: 413.")
    storage: str | None = Field(
        None,
        description="Where the limits of keys are counted: `redis://HOST:6379/0` for all workers and replicas together "
        "(needs the extra `redis`); null: in the memory of the process.",
    )
    password_env: str | None = Field(
        None, description="The name of the variable that holds Redis' password; none goes into the URL."
    )
    on_failure: Literal["allow", "refuse"] = Field(
        "allow", description="When they cannot be counted: `allow` lets requests pass, `refuse` replies with 503."
    )
    timeout_seconds: float = Field(1, gt=0, description="Longer than this, and counting has failed.")
    slot_seconds: float = Field(
        30, ge=1, description="In Redis: when the slots of a killed process are free for other requests."
    )

    @field_validator("storage", mode="after")
    @classmethod
    def _is_redis(cls, storage: str | None) -> str | None:
        if storage is not None and not storage.startswith(("redis://", "rediss://")):
            raise ValueError("must begin with redis:// or rediss://")
        if storage is not None and urlsplit(storage).password is not None:
            raise ValueError("must have no password; it goes into the variable of password_env")
        return storage

    def password(self) -> str | None:
        return secret(self.password_env) if self.password_env else None


class Audit(Section):
    url: str | None = Field(
        "sqlite+aiosqlite:///hhh-audit.db",
        description="Where decisions are recorded: `sqlite+aiosqlite:///FILE` or `postgresql+asyncpg://USER@HOST/NAME` "
        "(needs the extra `postgres`); null: nowhere.",
    )
    password_env: str | None = Field(
        None, description="The name of the variable that holds the database's password; none goes into the URL."
    )
    text: Literal["none", "redacted", "full"] = Field(
        "none",
        description="What of a message is kept beside its sha256; `redacted`: without numbers and addresses of persons "
        "(needs the extra `pii`).",
    )
    text_characters: int = Field(20_000, ge=1, description="Of a longer text only the beginning is kept.")
    pii_model: str | None = Field(
        None, description="A spaCy model that finds names for `redacted`; null: patterns only, and names stay."
    )
    retention_days: float = Field(90, ge=0, description="Older records are deleted; 0: none are.")
    on_failure: Literal["allow", "refuse"] = Field(
        "allow",
        description="When no record can be kept: `allow` replies all the same and counts the loss, "
        "`refuse` replies with 503.",
    )
    queue: int = Field(10_000, ge=1, description="Records that wait for the database; over it they are dropped.")
    batch_seconds: float = Field(
        0.5, gt=0, le=60, description="How long the record of what was not refused may wait for others."
    )
    timeout_seconds: float = Field(
        5, gt=0, description="How long a refusal waits for its record, and a write may last."
    )

    @field_validator("url", mode="after")
    @classmethod
    def _is_database(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("sqlite+aiosqlite://", "postgresql+asyncpg://")):
            raise ValueError("must begin with sqlite+aiosqlite:// or postgresql+asyncpg://")
        if url is not None and urlsplit(url).password is not None:
            raise ValueError("must have no password; it goes into the variable of password_env")
        return url

    def password(self) -> str | None:
        return secret(self.password_env) if self.password_env else None


class Probes(Section):
    every_seconds: float = Field(
        3600, ge=0, description="How often the probes run, for the first time right after the start; 0: never."
    )
    folder: Path | None = Field(None, description="JSON lines, one file per suite; null: the shipped suites.")
    pause_seconds: float = Field(0.02, ge=0, description="Between two probes of a scheduled run, for live traffic.")


class Reload(Section):
    watch: Literal["notify", "poll", "off"] = Field(
        "notify",
        description="`notify`: edits of a policy are seen as the system announces them, and by looking; `poll`: by "
        "looking only; `off`: only SIGHUP loads policies anew.",
    )
    poll_seconds: float = Field(2, gt=0, description="How often the folders are looked at.")
    quiet_seconds: float = Field(0.1, ge=0, description="How long files must be at rest before they are read.")


class Shadow(Section):
    policy: Path | None = Field(
        None,
        description="A candidate policy, tried beside the default one: its folder, or the name of one in `rails_dir`. "
        "With both this and `weights` null there is no candidate.",
    )
    weights: Path | None = Field(None, description="A folder of triage weights for the candidate; null: the live ones.")
    mode: Literal["observe", "serve"] = Field(
        "observe",
        description="`observe`: the candidate looks at requests once they are answered; `serve`: it answers some.",
    )
    share: float = Field(0.1, ge=0, le=1, description="Of the default policy's requests, the candidate's share.")
    queue: int = Field(100, ge=1, description="Requests that wait to be looked at; over it they are dropped.")


class Tracing(Section):
    endpoint: str | None = Field(
        None,
        description="Where spans go, OTLP over HTTP: `http://collector:4318/v1/traces` (needs the extra `tracing`); "
        "null: nowhere.",
    )
    service: str = Field("hhh-gateway", min_length=1, description="The `service.name` of the spans.")
    share: float = Field(1, ge=0, le=1, description="Of requests that carry no decision of their caller's.")


class Config(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="HHH_", env_nested_delimiter="__", env_ignore_empty=True, frozen=True, extra="forbid"
    )

    host: str = Field("127.0.0.1", description="Address to bind; only loopback while no client key is configured.")
    port: int = Field(8000, ge=0, le=65535, description="Port to bind.")
    rails_dir: Path = Field(Path("rails"), description="One folder per policy.")
    policy: str = Field("finance", pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$", description="The default policy.")
    upstream: Upstream = Upstream()
    triage: Triage = Triage()
    limits: Limits = Limits()
    audit: Audit = Audit()
    probes: Probes = Probes()
    reload: Reload = Reload()
    shadow: Shadow = Shadow()
    tracing: Tracing = Tracing()
    keys_file: Path | None = Field(
        None,
        description="Client keys and what each may do, as `hhh keys create` writes them; read again when it changes.",
    )
    client_keys_env: str | None = Field(
        None,
        description="The name of the variable with further accepted keys, comma-separated, without limits or roles. "
        "Null, and no `keys_file`: no key is asked for, and the gateway binds to loopback only.",
    )
    workers: int = Field(1, ge=1, le=256, description="Processes that serve, on one port.")
    keepalive_seconds: float = Field(
        1, gt=0, description="A stream on which nothing can be released for so long carries a comment."
    )
    drain_seconds: float = Field(
        2, ge=0, description="After SIGTERM: how long /readyz says 503 while requests are still taken."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Of the JSON log on stderr.")

    @field_validator("upstream", mode="after")
    @classmethod
    def _remote_when_addressed(cls, upstream: Upstream) -> Upstream:
        if upstream.base_url is not None:
            return upstream.model_copy(update={"kind": "remote"})
        if upstream.kind == "remote":
            raise ValueError("kind is remote, but base_url is not set")
        return upstream

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)

    def policies(self) -> Path:
        """The folder of policies: `rails_dir`, or the shipped ones when the default is not there."""
        if self.rails_dir == Path("rails") and not self.rails_dir.is_dir():
            return Path(__file__).resolve().parent.parent / "rails"
        return self.rails_dir

    def client_keys(self) -> tuple[str, ...]:
        """The accepted keys; empty when none are configured, or the variable is not set and there is a file of keys."""
        if self.client_keys_env is None or (self.keys_file is not None and self.client_keys_env not in os.environ):
            return ()
        keys = tuple(key.strip() for key in secret(self.client_keys_env).split(",") if key.strip())
        if not keys:
            raise ConfigError(f"client_keys_env: the variable {self.client_keys_env} holds no key")
        return keys


def load(path: Path | None = None, **flags: Any) -> Config:
    """Read the configuration.

    `path` is the YAML file (none is read unless named); `flags` override everything where they are not None.
    Raises `ConfigError` naming the file and the key.
    """
    if path is not None:
        read_yaml(path)

    class Loaded(Config):
        model_config = SettingsConfigDict(yaml_file=path)

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        config = Loaded(**given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "config"
        unknown = first["type"] == "extra_forbidden"
        message = "unknown setting" if unknown else first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{_source(key, given, path)}: {key} - {message}") from None
    except SettingsError as error:
        raise ConfigError(f"environment: {error}") from None
    _check_environment(config)
    if config.upstream.api_key_env is not None:
        secret(config.upstream.api_key_env)
    if not config.client_keys() and config.keys_file is None and not _is_loopback(config.host):
        raise ConfigError(
            f"host: {config.host} is not loopback, and no client keys are configured. "
            "Set keys_file or client_keys_env, or bind to 127.0.0.1."
        )
    return config


def _source(key: str, flags: dict[str, Any], path: Path | None) -> str:
    """Where the value of a setting came from."""
    if key.split(".")[0] in flags:
        return "flags"
    parts = key.split(".")
    above = {f"hhh_{'__'.join(parts[:count])}" for count in range(1, len(parts) + 1)}
    below = f"hhh_{'__'.join(parts)}__"
    if any(name.lower() in above or name.lower().startswith(below) for name, value in os.environ.items() if value):
        return "environment"
    return str(path or "configuration")


def _check_environment(config: Config) -> None:
    """A misspelt section would be ignored in silence: HHH_UPSTREM__BASE_URL."""
    secrets = (
        config.client_keys_env,
        config.upstream.api_key_env,
        config.audit.password_env,
        config.limits.password_env,
        *(one.api_key_env for one in config.triage.others),
    )
    for variable in os.environ:
        prefix, _, name = variable.lower().partition("_")
        section, nested, _ = name.partition("__")
        if prefix == "hhh" and nested and section not in Config.model_fields and variable not in secrets:
            raise ConfigError(f"environment: {variable} - unknown setting")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Loader(yaml.SafeLoader):
    """A key that is there twice is an error, where PyYAML would keep the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and name.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{name.value} is there twice", problem_mark=name.start_mark)
            seen.add(str(name.value))
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file; `ConfigError` when it is missing, no YAML, or no mapping."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deep") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a mapping is expected at the top")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: {key} - unknown setting")
    return value


def environment(**more: str) -> dict[str, str]:
    """The environment of a process that we start."""
    return {**os.environ, **more}


def secret(variable: str) -> str:
    """The value of an environment variable that a setting names; `ConfigError` when it is not set."""
    value = os.environ.get(variable)
    if value is None:
        raise ConfigError(f"the environment variable {variable} is not set, but the configuration names it")
    return value
