"""Settings of deliveries, as the tables ``[[deliveries]]`` have them. Secrets are named, never written there."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from winspect.errors import SettingsError
from winspect.system.opening import read_text
from winspect.system.toml_texts import read_toml

VERDICTS = ("normal", "review", "anomalous", "failed", "unjudged")
"""What a row can be: its verdict; ``failed`` for one with an error, ``unjudged`` for one without a verdict."""

_FILE = {"file": True}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LITERAL_SECRETS = ("password", "secret")
_KINDS_IN_WORDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple[str, ...]": "a list of texts",
}


@dataclass(frozen=True, kw_only=True)
class DeliverySettings:
    """What every delivery has.

    Attributes:
        name: in messages, metrics and the spool, which remembers by it what has been delivered.
        verdicts: which rows are delivered, of :data:`VERDICTS`; none named is all.
        keep_rows: rows that wait for the other side at most; above that the oldest are dropped, and counted.

    Raises:
        SettingsError: a value out of its range.
    """

    kind: ClassVar[str] = ""
    name: str = ""
    verdicts: tuple[str, ...] = ()
    keep_rows: int = 1_000_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.kind)
        if not _NAME.fullmatch(self.name):
            raise self.refusal("name", self.name, "letters, digits and _.- of at most 64 characters")
        for verdict in self.verdicts:
            if verdict not in VERDICTS:
                raise self.refusal("verdicts", verdict, f"some of {', '.join(VERDICTS)}")
        if self.keep_rows < 1:
            raise self.refusal("keep_rows", self.keep_rows, "1 or more")
        for limit in ("timeout_s", "keepalive_s"):
            value = getattr(self, limit, 1.0)
            if not (math.isfinite(value) and value > 0):
                raise self.refusal(limit, value, "seconds above 0")
        if not 0 <= (port := getattr(self, "port", 0)) <= 65535:
            raise self.refusal("port", port, "0 to 65535")

    def refusal(self, key: str, value: object, need: str) -> SettingsError:
        """An error that names a key of this delivery."""
        return SettingsError(f"deliveries: {self.name}: {key}: got {value!r}, need {need}")

    def document(self) -> dict[str, Any]:
        """The table, as JSON and TOML have it; what is at its default is left out."""
        values = {
            entry.name: list(value) if isinstance(value, tuple) else value
            for entry in fields(self)
            if (value := getattr(self, entry.name)) != entry.default
        }
        if self.name == self.kind:
            del values["name"]
        return {"kind": self.kind, **values}

    def below(self, folder: Path) -> DeliverySettings:
        """The same with its files taken as below a folder, where they are relative."""
        named = [entry.name for entry in fields(self) if entry.metadata.get("file") and getattr(self, entry.name)]
        files: dict[str, Any] = {name: os.path.join(folder, getattr(self, name)) for name in named}
        return replace(self, **files)

    def needs_together(self, *keys: str) -> None:
        """Refuse some of these keys without the others."""
        given = [key for key in keys if getattr(self, key)]
        if given and len(given) != len(keys):
            raise self.refusal(given[0], getattr(self, given[0]), f"{' and '.join(keys)} together")


@dataclass(frozen=True, kw_only=True)
class MqttSettings(DeliverySettings):
    """A broker that rows are published to, with QoS 1, as JSON.

    Attributes:
        port: 0 is 8883 with ``tls``, else 1883.
        topic: with names of a row's entries in braces, as in ``line4/{class}``; what is not there is ``none``.
        user: the password is in the environment variable ``password_env`` or the file ``password_file``.
        tls: encrypt; ``ca``: file of the authority that signed the broker's certificate, default the system's;
            ``certificate``, ``key``: this side's, where the broker asks for them.
        timeout_s: for connecting, and for the broker to acknowledge rows.
    """

    kind: ClassVar[str] = "mqtt"
    host: str = ""
    port: int = 0
    topic: str = "winspect/{class}"
    client_id: str = ""
    user: str = ""
    password_env: str = ""
    password_file: str = field(default="", metadata=_FILE)
    tls: bool = False
    ca: str = field(default="", metadata=_FILE)
    certificate: str = field(default="", metadata=_FILE)
    key: str = field(default="", metadata=_FILE)
    keepalive_s: float = 30.0
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.host:
            raise self.refusal("host", self.host, "the broker's name or address")
        if not self.topic or any(character in self.topic for character in "+#\0"):
            raise self.refusal("topic", self.topic, "a topic without + and #")
        if not self.tls and (self.ca or self.certificate or self.key):
            raise self.refusal("tls", self.tls, "true, where certificates are named")
        self.needs_together("certificate", "key")


@dataclass(frozen=True, kw_only=True)
class WebhookSettings(DeliverySettings):
    """An address that each row is posted to, as JSON, signed as Standard Webhooks have it.

    Attributes:
        secret_env, secret_file: environment variable, or file, with the secret that signs; none: not signed.
        ca: file of the authority that signed the receiver's certificate, default the system's.
        timeout_s: for an answer.
    """

    kind: ClassVar[str] = "webhook"
    url: str = ""
    secret_env: str = ""
    secret_file: str = field(default="", metadata=_FILE)
    ca: str = field(default="", metadata=_FILE)
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            parts = urlsplit(self.url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_url = False
        if not is_url:
            raise self.refusal("url", self.url, "an address such as https://host/path")
        if parts.password:
            raise SettingsError(
                f"deliveries: {self.name}: url: got one with a password, need secret_env or secret_file"
            )


@dataclass(frozen=True, kw_only=True)
class OpcUaSettings(DeliverySettings):
    """An OPC UA server, with an object for each source that shows its newest row.

    Attributes:
        host: where it listens; ``0.0.0.0`` for every address of this machine.
        sources: that have their object from the start; others get it with their first row.
        acknowledge: show a source's next row only when a client has written this one's id to ``Acknowledged``: so
            none is missed. Without it the newest is shown at once.
        certificate, key: files (PEM or DER) for signed and encrypted connections; then there are no others.
        user: that clients log in as; the password is in ``password_env`` or ``password_file``.
        timeout_s: an acknowledgement that takes longer is reported.
    """

    kind: ClassVar[str] = "opcua"
    host: str = "127.0.0.1"
    port: int = 4840
    sources: tuple[str, ...] = ()
    acknowledge: bool = False
    certificate: str = field(default="", metadata=_FILE)
    key: str = field(default="", metadata=_FILE)
    user: str = ""
    password_env: str = ""
    password_file: str = field(default="", metadata=_FILE)
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.needs_together("certificate", "key")
        if self.user and not self.certificate:
            raise self.refusal("user", self.user, "certificate and key: without them the password is not encrypted")


@dataclass(frozen=True, kw_only=True)
class CommandSettings(DeliverySettings):
    """A program that is started for each row, with the row on its stdin.

    Exit code 0: delivered. 75, more than ``timeout_s``, or a program that cannot be started: tried again. Any other:
    the row goes to the file of refused rows.

    Attributes:
        command: the program and its arguments; or a text, which is split as a shell would.
        shell: give the text to the system's shell instead.
        at_once: programs that run at a time at most.
    """

    kind: ClassVar[str] = "command"
    command: str | tuple[str, ...] = ""
    shell: bool = False
    timeout_s: float = 10.0
    at_once: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            arguments = self.arguments
        except ValueError as error:
            raise self.refusal("command", self.command, f"a command ({error})") from error
        if not arguments or not arguments[0].strip():
            raise self.refusal("command", self.command, "a program and its arguments")
        if self.shell and not isinstance(self.command, str):
            raise self.refusal("command", self.command, "a text, where shell is true")
        if self.at_once < 1:
            raise self.refusal("at_once", self.at_once, "1 or more")

    @property
    def arguments(self) -> list[str]:
        """What is started, word by word; with ``shell`` a single text."""
        if isinstance(self.command, str):
            return [self.command] if self.shell else shlex.split(self.command)
        return list(self.command)


KINDS: dict[str, type[DeliverySettings]] = {
    kind.kind: kind for kind in (MqttSettings, WebhookSettings, OpcUaSettings, CommandSettings)
}


@dataclass(frozen=True)
class Deliveries(Sequence[DeliverySettings]):
    """The deliveries of a product, or of a file; names are different.

    Raises:
        SettingsError: two have one name.
    """

    items: tuple[DeliverySettings, ...] = ()

    def __post_init__(self) -> None:
        names = [item.name for item in self.items]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SettingsError(f"deliveries: got the name {twice[0]!r} twice; give one of them another `name`")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    @classmethod
    def read(cls, tables: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Deliveries:
        """The deliveries of ``[[deliveries]]``.

        Args:
            tables: a list of tables; or a document with these at ``deliveries``, and nothing else.

        Raises:
            SettingsError: an unknown kind or key, or a value of the wrong kind or out of its range.
        """
        if isinstance(tables, Mapping):
            if unknown := sorted(map(str, set(tables) - {"deliveries"})):
                raise SettingsError(f"deliveries: got the unknown key {unknown[0]!r}, need tables [[deliveries]] alone")
            tables = tables.get("deliveries", ())
        if isinstance(tables, str) or not isinstance(tables, Sequence):
            raise SettingsError(f"deliveries: got {tables!r}, need a list of tables, each with a kind")
        return cls(tuple(_read_table(table) for table in tables))

    def document(self) -> list[dict[str, Any]]:
        """The tables, as JSON and TOML have them."""
        return [item.document() for item in self.items]

    def below(self, folder: Path) -> Deliveries:
        """The same with relative files taken as below a folder."""
        return Deliveries(tuple(item.below(folder) for item in self.items))


def read_deliveries(path: str | os.PathLike[str]) -> Deliveries:
    """The deliveries of a TOML file; files in it are below its folder.

    Raises:
        SettingsError: it cannot be read, or as of :meth:`Deliveries.read`.
    """
    document = read_toml(path)
    try:
        return Deliveries.read(document).below(Path(path).parent)
    except SettingsError as error:
        raise SettingsError(f"{os.fspath(path)}: {error}") from error


def secret_of(settings: DeliverySettings, *, variable: str, file: str, key: str) -> str | None:
    """A secret from an environment variable, or else from a file's first line; None where neither is named.

    Args:
        key: what the table calls it, as in ``password``, for messages.

    Raises:
        SettingsError: both are named, or it is not there.
    """
    if variable and file:
        raise settings.refusal(f"{key}_env", variable, f"either {key}_env or {key}_file")
    if variable:
        secret = os.environ.get(variable)
        if not secret:
            raise settings.refusal(f"{key}_env", variable, "an environment variable that is set: export it")
        return secret
    if not file:
        return None
    try:
        secret = read_text(file).partition("\n")[0].rstrip("\r")
    except (OSError, ValueError) as error:
        raise settings.refusal(f"{key}_file", file, f"a file with it in the first line ({error})") from error
    if not secret:
        raise settings.refusal(f"{key}_file", file, "a file with it in the first line; the line is empty")
    return secret


def _read_table(table: Any) -> DeliverySettings:
    if not isinstance(table, Mapping):
        raise SettingsError(f"deliveries: got {table!r}, need a table with a kind")
    kind = KINDS.get(str(table.get("kind")))
    if kind is None:
        raise SettingsError(f"deliveries: kind: got {table.get('kind')!r}, need one of {', '.join(KINDS)}")
    known = {entry.name: str(entry.type) for entry in fields(kind)}
    values = {}
    for key, value in table.items():
        where = f"deliveries: {table.get('name', kind.kind)}: {key}"
        if key in _LITERAL_SECRETS:
            raise SettingsError(f"{where}: secrets do not stand here; name {key}_env, or {key}_file")
        if key != "kind" and key not in known:
            raise SettingsError(f"{where}: unknown key; {kind.kind} has {', '.join(known)}")
        if key != "kind":
            values[key] = _value(value, known[key], where)
    return kind(**values)


def _value(value: Any, annotation: str, where: str) -> Any:
    """A value as its annotation has it; whole numbers are numbers, lists are tuples."""
    for kind in annotation.split(" | "):
        if kind == "float" and type(value) in (int, float):
            return float(value)
        if kind == type(value).__name__:
            return value
        if kind == "tuple[str, ...]" and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
            return tuple(value)
    need = " or ".join(_KINDS_IN_WORDS[kind] for kind in annotation.split(" | "))
    raise SettingsError(f"{where}: got {value!r}, need {need}")
