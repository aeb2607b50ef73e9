"""Downloads against a local server that cuts, lies, refuses and restarts."""

from __future__ import annotations

import multiprocessing
import random
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from winspect.errors import WeightsCorruptError
from winspect.weights import download
from winspect.weights.download import DownloadError, fetch_url

CONTENT = random.Random(0).randbytes(3_000_000)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_download_is_complete_verified_and_leaves_nothing_else(serve, tmp_path, capsys):
    server = serve(CONTENT)
    target = tmp_path / "new" / "w.pt"
    got = fetch_url(server.url("w.pt"), target, sha256_prefix=server.sha256[:8])
    assert got == server.sha256
    assert target.read_bytes() == CONTENT
    assert leftovers(target.parent) == ["w.pt"]
    out, err = capsys.readouterr()
    assert out == "" and "w.pt" in err and "100%" in err


def test_a_file_that_is_there_already_is_not_fetched(serve, tmp_path):
    server = serve(CONTENT)
    (tmp_path / "w.pt").write_bytes(CONTENT)
    assert fetch_url(server.url("w.pt"), tmp_path / "w.pt") == server.sha256
    assert server.requests == []


def test_no_bar_is_drawn_when_none_is_wanted(serve, tmp_path, capsys):
    fetch_url(serve(CONTENT).url("w.pt"), tmp_path / "w.pt", progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_cut_connection_is_resumed_where_it_was_cut(serve, tmp_path):
    server = serve(CONTENT)
    server.cut_after = [1_000_000, 500_000]
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert [r.range for r in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert server.requests[1].if_range == '"v1"'
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_left_and_asked_again(serve, tmp_path, monkeypatch):
    server = serve(CONTENT)
    server.cut_after, server.stall_s = [1_000_000], 2.0
    monkeypatch.setattr(download, "TIMEOUT_S", 0.3)
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert [r.range for r in server.requests] == [None, "bytes=1000000-"]


def test_a_later_run_resumes_what_an_earlier_one_left(serve, tmp_path):
    server = serve(CONTENT)
    server.cut_after = [1_000_000, *[0] * download.RETRIES]
    with pytest.raises(DownloadError, match="connection was lost after 1000000 of 3000000 bytes"):
        fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert not (tmp_path / "w.pt").exists()
    assert (tmp_path / "w.pt.part").stat().st_size == 1_000_000
    fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert server.requests[-1].range == "bytes=1000000-"
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"v1"', 'W/"weak"', None])
def test_a_server_that_ignores_ranges_starts_the_file_over(serve, tmp_path, etag):
    server = serve(CONTENT)
    server.ranges, server.etag = False, etag
    server.cut_after = [1_000_000]
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_weak_etag_is_compared_but_not_sent(serve, tmp_path):
    server = serve(CONTENT)
    server.etag = 'W/"weak"'
    server.cut_after = [1_000_000]
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert [(r.range, r.if_range) for r in server.requests] == [(None, None), ("bytes=1000000-", None)]


@pytest.mark.parametrize("etag", ['"v2"', 'W/"v2"'])
def test_a_file_that_changed_on_the_server_is_not_glued_to_the_old_part(serve, tmp_path, etag):
    server = serve(CONTENT)
    server.etag = 'W/"v1"'
    (tmp_path / "w.pt.part").write_bytes(b"old" * 1000)
    note = {"url": server.url("w.pt"), "etag": 'W/"v1"', "size_bytes": len(CONTENT)}
    download.write_json(tmp_path / "w.pt.part.json", note)
    server.etag = etag
    fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_part_of_unknown_origin_is_not_used(serve, tmp_path):
    server = serve(CONTENT)
    (tmp_path / "w.pt.part").write_bytes(b"whose?")
    fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert server.requests[0].range is None
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(serve, tmp_path):
    server = serve(CONTENT)
    (tmp_path / "w.pt.part").write_bytes(CONTENT + b"more")
    note = {"url": server.url("w.pt"), "etag": '"v1"', "size_bytes": len(CONTENT)}
    download.write_json(tmp_path / "w.pt.part.json", note)
    fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_complete_part_is_only_verified_and_renamed(serve, tmp_path):
    server = serve(CONTENT)
    (tmp_path / "w.pt.part").write_bytes(CONTENT)
    note = {"url": server.url("w.pt"), "etag": '"v1"', "size_bytes": len(CONTENT)}
    download.write_json(tmp_path / "w.pt.part.json", note)
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert server.requests == []
    assert leftovers(tmp_path) == ["w.pt"]


def test_a_server_that_tells_no_length_is_believed_at_its_end(serve, tmp_path):
    server = serve(CONTENT)
    server.send_length = False
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_wrong_hash_removes_the_file_and_names_both(serve, tmp_path):
    server = serve(CONTENT)
    with pytest.raises(WeightsCorruptError) as caught:
        fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix="0badc0de")
    assert "expected 0badc0de" in str(caught.value) and server.sha256 in str(caught.value)
    assert leftovers(tmp_path) == []


def test_not_found_is_said_at_once(serve, tmp_path):
    server = serve(CONTENT)
    server.statuses = [404]
    with pytest.raises(DownloadError, match="HTTP 404"):
        fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(serve, tmp_path):
    server = serve(CONTENT)
    server.statuses = [503, 429]
    fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_given_up(serve, tmp_path):
    server = serve(CONTENT)
    server.statuses = [503] * 100
    with pytest.raises(DownloadError, match="HTTP 503"):
        fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert len(server.requests) == download.RETRIES + 1


def test_a_server_that_is_down_is_an_error(serve, tmp_path):
    server = serve(CONTENT)
    url = server.url("w.pt")
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch_url(url, tmp_path / "w.pt")


def test_waiting_doubles_from_failure_to_failure(serve, tmp_path, monkeypatch):
    server = serve(CONTENT)
    server.statuses = [503] * 100
    waits: list[float] = []
    monkeypatch.setattr(download, "BACKOFF_S", 1.0)
    monkeypatch.setattr(download.time, "sleep", waits.append)
    with pytest.raises(DownloadError):
        fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert waits == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("error", [TimeoutError("slow"), ConnectionResetError("gone")])
def test_a_broken_answer_is_retried(serve, tmp_path, monkeypatch, error):
    server = serve(CONTENT)
    real, calls = download._open, []

    def flaky(*args):
        calls.append(args)
        if len(calls) == 1:
            raise error
        return real(*args)

    monkeypatch.setattr(download, "_open", flaky)
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert len(calls) == 2


def test_an_error_while_reading_is_the_connections_not_the_disks(serve, tmp_path, monkeypatch):
    server = serve(CONTENT)

    class Broken:
        def read1(self, _):
            raise OSError("TLS: bad record")

    with pytest.raises(download._RetryableError, match=r"connection was lost \(TLS"):
        list(download._chunks(Broken()))
    assert server.requests == []


def test_a_disk_without_space_is_said_before_the_download(serve, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1_000_000))
    with pytest.raises(DownloadError, match="has 1 MB free, 3 MB are needed"):
        fetch_url(serve(CONTENT).url("w.pt"), tmp_path / "w.pt")


def test_a_folder_that_cannot_be_written_is_named(serve, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"cannot write .*w\.pt"):
        fetch_url(serve(CONTENT).url("w.pt"), tmp_path / "file" / "w.pt")


def _fetch_in_a_process(url: str, target: Path, results: multiprocessing.Queue) -> None:
    results.put(fetch_url(url, target, progress=False))


def test_two_processes_download_once(serve, tmp_path):
    server = serve(CONTENT)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    args = (server.url("w.pt"), tmp_path / "w.pt", results)
    workers = [context.Process(target=_fetch_in_a_process, args=args) for _ in range(2)]
    for worker in workers:
        worker.start()
    hashes = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert hashes == [server.sha256] * 2
    assert len(server.requests) == 1
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
