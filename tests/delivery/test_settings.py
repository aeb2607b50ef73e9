"""Tables of deliveries: read, written back, and refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from winspect.delivery import Deliveries, read_deliveries
from winspect.delivery.settings import KINDS, secret_of
from winspect.errors import SettingsError

TABLES = [
    {"kind": "mqtt", "host": "broker", "topic": "line4/{class}", "user": "line4", "password_env": "BROKER_PASSWORD"},
    {"kind": "webhook", "name": "mes", "url": "https://mes/rows", "secret_file": "mes.secret", "timeout_s": 3.0},
    {"kind": "opcua", "acknowledge": True, "verdicts": ["anomalous", "review"]},
    {"kind": "command", "command": ["reject", "--gate", "2"], "keep_rows": 100},
]


def test_tables_come_back_as_they_were():
    deliveries = Deliveries.read(TABLES)
    assert deliveries.document() == TABLES
    assert Deliveries.read({"deliveries": deliveries.document()}) == deliveries
    assert [item.name for item in deliveries] == ["mqtt", "mes", "opcua", "command"]
    assert Deliveries.read({}) == Deliveries() == Deliveries.read([])


def test_a_whole_number_is_a_number():
    assert Deliveries.read([{"kind": "mqtt", "host": "b", "timeout_s": 3}])[0].timeout_s == 3.0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "fax"}, "kind: got 'fax', need one of mqtt, webhook, opcua, command"),
        ({"kind": "mqtt"}, "mqtt: host: got ''"),
        ({"kind": "mqtt", "host": "b", "hots": "x"}, "mqtt: hots: unknown key; mqtt has name, verdicts"),
        ({"kind": "mqtt", "host": "b", "password": "x"}, "password: secrets do not stand here; name password_env"),
        ({"kind": "mqtt", "host": "b", "port": "1883"}, "port: got '1883', need a whole number"),
        ({"kind": "mqtt", "host": "b", "port": True}, "port: got True, need a whole number"),
        ({"kind": "mqtt", "host": "b", "port": 70000}, "port: got 70000, need 0 to 65535"),
        ({"kind": "mqtt", "host": "b", "topic": "a/#"}, "need a topic without"),
        ({"kind": "mqtt", "host": "b", "ca": "ca.pem"}, "tls: got False, need true"),
        ({"kind": "mqtt", "host": "b", "tls": True, "key": "k"}, "need certificate and key together"),
        ({"kind": "mqtt", "host": "b", "timeout_s": 0}, "timeout_s: got 0.0, need seconds above 0"),
        ({"kind": "mqtt", "host": "b", "name": "a b"}, "name: got 'a b'"),
        ({"kind": "mqtt", "host": "b", "verdicts": ["bad"]}, "verdicts: got 'bad', need some of normal"),
        ({"kind": "mqtt", "host": "b", "keep_rows": 0}, "keep_rows: got 0, need 1 or more"),
        ({"kind": "webhook", "url": "mes/rows"}, "url: got 'mes/rows'"),
        ({"kind": "webhook", "url": "http://[bad"}, "url: got 'http://\\[bad'"),
        ({"kind": "webhook", "url": "http://u:p@mes"}, "got one with a password"),
        ({"kind": "webhook", "url": "http://mes", "secret": "x"}, "name secret_env, or secret_file"),
        ({"kind": "opcua", "certificate": "c.pem"}, "need certificate and key together"),
        ({"kind": "command"}, "command: got '', need a program"),
        ({"kind": "command", "command": "a 'b"}, "need a command \\(No closing quotation\\)"),
        ({"kind": "command", "command": ["a"], "shell": True}, "need a text, where shell is true"),
        ({"kind": "command", "command": "a", "at_once": 0}, "at_once: got 0"),
        ("mqtt", "need a table with a kind"),
    ],
)
def test_what_is_refused(table, message):
    with pytest.raises(SettingsError, match=message):
        Deliveries.read([table])


def test_names_are_different():
    with pytest.raises(SettingsError, match="got the name 'command' twice"):
        Deliveries.read([{"kind": "command", "command": "a"}, {"kind": "command", "command": "b"}])


def test_not_a_list():
    with pytest.raises(SettingsError, match="need a list of tables"):
        Deliveries.read("mqtt")
    with pytest.raises(SettingsError, match="unknown key 'delivery'"):
        Deliveries.read({"delivery": []})


def test_a_file_and_what_it_names(tmp_path):
    path = tmp_path / "line.toml"
    path.write_text('[[deliveries]]\nkind = "webhook"\nurl = "http://mes"\nsecret_file = "mes.secret"\n')
    assert read_deliveries(path)[0].secret_file == str(tmp_path / "mes.secret")
    path.write_text('[[deliveries]]\nkind = "webhook"\nurl = "http://mes"\nsecret_file = "/etc/mes.secret"\n')
    assert read_deliveries(path)[0].secret_file == str(Path("/etc/mes.secret"))
    path.write_text("[[deliveries]\n")
    with pytest.raises(SettingsError, match=r"line.toml: not TOML: .*line 1"):
        read_deliveries(path)
    with pytest.raises(SettingsError, match="cannot read it"):
        read_deliveries(tmp_path / "none.toml")
    path.write_text('[[deliveries]]\nkind = "fax"\n')
    with pytest.raises(SettingsError, match=r"line.toml: deliveries: kind"):
        read_deliveries(path)


def test_secrets(tmp_path, monkeypatch):
    settings = Deliveries.read([{"kind": "command", "command": "a"}])[0]
    names = {"key": "password"}
    monkeypatch.setenv("LINE_PASSWORD", "s3cret")
    assert secret_of(settings, variable="LINE_PASSWORD", file="", **names) == "s3cret"
    assert secret_of(settings, variable="", file="", **names) is None
    (tmp_path / "p").write_text(" s3 cret \r\nmore\n")
    assert secret_of(settings, variable="", file=str(tmp_path / "p"), **names) == " s3 cret "
    (tmp_path / "empty").write_text("\n")
    for variable, file, message in (
        ("LINE_PASSWORD", "p", "either password_env or password_file"),
        ("NO_SUCH", "", "an environment variable that is set"),
        ("", str(tmp_path / "none"), "a file with it in the first line"),
        ("", str(tmp_path / "empty"), "the line is empty"),
    ):
        with pytest.raises(SettingsError, match=message):
            secret_of(settings, variable=variable, file=file, **names)


def test_a_text_is_split_as_a_shell_would():
    command = KINDS["command"](command="reject --reason 'a b'")
    assert command.arguments == ["reject", "--reason", "a b"]
    assert KINDS["command"](command="a | b", shell=True).arguments == ["a | b"]
