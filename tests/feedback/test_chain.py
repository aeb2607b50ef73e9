"""The audit log: whatever happens to a line, it is named; what a crash leaves is repaired; two writers do not mix."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os

import pytest

from winspect.errors import AuditLogError, OutputError
from winspect.feedback import chain
from winspect.feedback.chain import AuditLog, log_files
from winspect.feedback.verifying import verify


def written(folder, number=6, **options):
    log = AuditLog(folder, **options)
    for start in range(0, number, 2):
        with log.writing() as writer:
            writer.append([{"event": "note", "x": x} for x in range(start, min(start + 2, number))])
    return log


def lines_of(folder):
    return [line for path in log_files(folder) for line in path.read_bytes().splitlines()]


def found(folder, **options):
    return [(each.line, each.kind) for each in verify(folder, **options).problems]


def test_every_line_has_the_hash_of_the_line_before(tmp_path):
    written(tmp_path)
    before = "0" * 64
    for number, line in enumerate(lines_of(tmp_path), 1):
        entry = json.loads(line)
        assert (entry["n"], entry["previous"], entry["x"]) == (number, before, number - 1)
        before = hashlib.sha256(line).hexdigest()
    checked = verify(tmp_path)
    assert (checked.lines, checked.first, checked.head.n, checked.head.sha256) == (6, 1, 6, before)
    assert checked.problems == ()


@pytest.mark.parametrize("number", range(6))
def test_an_altered_line_is_named(tmp_path, number):
    written(tmp_path)
    lines = lines_of(tmp_path)
    lines[number] = lines[number].replace(b'"x":', b'"x":1')
    log_files(tmp_path)[0].write_bytes(b"\n".join(lines) + b"\n")
    assert found(tmp_path) == [(number + 1, "altered")]


@pytest.mark.parametrize("number", range(6))
def test_a_line_that_is_no_entry_any_more_is_named_and_the_log_goes_on(tmp_path, number, caplog):
    written(tmp_path)
    lines = lines_of(tmp_path)
    lines[number] = lines[number][:20]
    log_files(tmp_path)[0].write_bytes(b"\n".join(lines) + b"\n")
    assert found(tmp_path)[0] == (number + 1, "altered")
    assert len(list(AuditLog(tmp_path).new_entries())) == 5 and "a line was altered" in caplog.text
    log = written(tmp_path, 1)
    assert list(log.new_entries())[-1]["n"] == (8 if number == 5 else 7)  # behind a note of the gap
    assert [line for line, _ in found(tmp_path)] == ([6, 7] if number == 5 else [number + 1])


@pytest.mark.parametrize(("removed", "named"), [((1,), 2), ((2, 3), 3), ((0,), None)])
def test_removed_lines_are_named_at_the_line_behind_them(tmp_path, removed, named):
    written(tmp_path)
    left = [line for number, line in enumerate(lines_of(tmp_path)) if number not in removed]
    log_files(tmp_path)[0].write_bytes(b"\n".join(left) + b"\n")
    assert found(tmp_path) == ([] if named is None else [(named, "removed")])
    assert verify(tmp_path).first == (2 if named is None else 1)  # older files may have been moved away


def test_an_inserted_line_is_named_whatever_it_says(tmp_path):
    written(tmp_path)
    lines = lines_of(tmp_path)
    forged = json.dumps({**json.loads(lines[2]), "x": 99, "previous": hashlib.sha256(lines[1]).hexdigest()}).encode()
    for inserted in (lines[0], forged, b'{"n": 3, "event": "note", "previous": "0"}'):
        log_files(tmp_path)[0].write_bytes(b"\n".join([*lines[:2], inserted, *lines[2:]]) + b"\n")
        assert found(tmp_path)[0] in [(3, "inserted"), (3, "altered")], inserted
        assert {line for line, _ in found(tmp_path)} == {3}


def test_lines_that_changed_places_are_noticed(tmp_path):
    written(tmp_path)
    lines = lines_of(tmp_path)
    log_files(tmp_path)[0].write_bytes(b"\n".join([*lines[:2], lines[3], lines[2], *lines[4:]]) + b"\n")
    assert found(tmp_path)[0] == (3, "removed")


def test_lines_cut_off_the_end_are_named_and_stay_named_when_the_log_goes_on(tmp_path, caplog):
    written(tmp_path)
    path = log_files(tmp_path)[0]
    path.write_bytes(b"\n".join(lines_of(tmp_path)[:4]) + b"\n")
    assert found(tmp_path) == [(4, "cut")]
    assert "line 5 to 6 of the log was cut off" in verify(tmp_path).problems[0].message
    written(tmp_path, 1)
    assert "--verify" in caplog.text
    assert found(tmp_path) == [(5, "cut")]


def test_a_log_written_anew_is_noticed_by_a_hash_kept_elsewhere(tmp_path):
    written(tmp_path / "first")
    head = verify(tmp_path / "first").head.sha256
    assert found(tmp_path / "first", head=head) == []
    written(tmp_path / "second", 8)
    assert found(tmp_path / "second", head=head) == [(8, "altered")]


@pytest.mark.parametrize("cut", [1, 20])
def test_what_a_crash_leaves_of_a_line_is_removed_and_reported(tmp_path, cut, caplog):
    written(tmp_path)
    path = log_files(tmp_path)[0]
    lines, before = lines_of(tmp_path), (tmp_path / "audit" / "head.json").read_text()
    half = json.dumps({"n": 7, "event": "note", "previous": hashlib.sha256(lines[-1]).hexdigest()}).encode()[:cut]
    path.write_bytes(path.read_bytes() + half)
    assert found(tmp_path) == [(7, "cut")]
    log = AuditLog(tmp_path)
    assert len(list(log.new_entries())) == 6  # a line without its end is none
    assert (tmp_path / "audit" / "head.json").read_text() == before
    written(tmp_path, 1)
    assert f"removed a last line that a crash had cut off ({cut} bytes)" in caplog.text
    assert found(tmp_path) == []
    assert [entry["event"] for entry in log.new_entries()] == ["repair", "note"]


def test_the_chain_goes_on_in_the_next_file(tmp_path):
    log = written(tmp_path, 12, file_bytes=300)
    files = log_files(tmp_path)
    assert len(files) > 2 and max(path.stat().st_size for path in files) < 700
    assert (verify(tmp_path).lines, found(tmp_path)) == (12, [])
    assert [entry["x"] for entry in log.new_entries()] == list(range(12))
    files[1].unlink()
    assert found(tmp_path)[0][1] == "removed"


def test_a_crash_in_the_first_line_of_a_file_is_repaired(tmp_path):
    written(tmp_path, 4, file_bytes=1)
    (tmp_path / "audit" / "audit-000009.jsonl").write_bytes(b'{"n": 5')
    log = written(tmp_path, 2)
    assert [entry["event"] for entry in log.new_entries()] == ["note"] * 4 + ["repair", "note", "note"]
    assert found(tmp_path) == []


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    log = written(tmp_path)
    before = lines_of(tmp_path)
    real = os.write

    def some(file, content):
        if len(content) < 40:
            raise OSError(errno.ENOSPC, "full")
        return real(file, content[:-20])

    monkeypatch.setattr(chain.os, "write", some)
    with pytest.raises(OutputError, match="disk is full"), log.writing() as writer:
        writer.append([{"event": "note", "x": 6}])
    monkeypatch.undo()
    assert lines_of(tmp_path) == before
    with log.writing() as writer:
        writer.append([{"event": "note", "x": 6}])
    assert (found(tmp_path), verify(tmp_path).lines) == ([], 7)


def write_many(folder, name, number):
    log = AuditLog(folder, file_bytes=2000)
    for x in range(number):
        with log.writing() as writer:
            writer.append([{"event": "note", "by": name, "x": x}, {"event": "note", "by": name, "x": x}])


def test_writers_of_several_processes_do_not_mix(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_many, args=(tmp_path, name, 15)) for name in "ab"]
    for process in processes:
        process.start()
    write_many(tmp_path, "c", 15)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    entries = list(AuditLog(tmp_path).new_entries())
    assert (found(tmp_path), len(entries)) == ([], 90)
    for name in "abc":
        assert [entry["x"] for entry in entries if entry["by"] == name] == [x for x in range(15) for _ in "12"]


def test_a_writer_that_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(chain, "_WAIT_S", 0.05)
    with AuditLog(tmp_path).writing(), pytest.raises(OutputError, match="another winspect run"):
        AuditLog(tmp_path).writing().__enter__()


def test_a_folder_without_a_log_is_named(tmp_path):
    with pytest.raises(AuditLogError, match="holds no audit log"):
        verify(tmp_path)
