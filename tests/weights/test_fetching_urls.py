"""Downloads against a local server that cuts, lies, refuses and restarts."""

from __future__ import annotations

import multiprocessing
import random
from pathlib import Path

import pytest

from winspect.errors import WeightsCorruptError
from winspect.weights import fetching
from winspect.weights.cache import hash_file
from winspect.weights.fetching import FetchError, Url

CONTENT = random.Random(0).randbytes(3_000_000)


def fetch_url(url: str, target: Path, *, sha256_prefix: str | None = None) -> str:
    path = Url(url, sha256_prefix).fetch(target.parent)
    assert path == target
    return hash_file(path)


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


def test_a_cut_connection_is_resumed_where_it_was_cut(serve, tmp_path):
    server = serve(CONTENT)
    server.cut_after = [1_000_000, 500_000]
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert [r.range for r in server.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_left_and_asked_again(serve, tmp_path, monkeypatch):
    server = serve(CONTENT)
    server.cut_after, server.stall_s = [1_000_000], 2.0
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.3)
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert [r.range for r in server.requests] == [None, "bytes=1000000-"]


def test_a_later_run_resumes_what_an_earlier_one_left(serve, tmp_path):
    server = serve(CONTENT)
    server.cut_after = [1_000_000, *[0] * fetching.RETRIES]
    with pytest.raises(FetchError, match="connection was lost after 1000000 of 3000000 bytes"):
        fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert not (tmp_path / "w.pt").exists()
    assert (tmp_path / "w.pt.part").stat().st_size == 1_000_000
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert server.requests[-1].range == "bytes=1000000-"
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_without_a_hash_nothing_is_resumed(serve, tmp_path):
    """Nothing could prove that the bytes on disk are of the same file."""
    server = serve(CONTENT)
    (tmp_path / "w.pt.part").write_bytes(b"whose?")
    server.cut_after = [1_000_000]
    fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert [r.range for r in server.requests] == [None, None]
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_starts_the_file_over(serve, tmp_path):
    server = serve(CONTENT)
    server.ranges = False
    server.cut_after = [1_000_000]
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"old" * 1000, CONTENT + b"more"])
def test_a_part_of_another_version_is_thrown_away(serve, tmp_path, part):
    server = serve(CONTENT)
    (tmp_path / "w.pt.part").write_bytes(part)
    assert fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256[:8]) == server.sha256
    assert [r.range for r in server.requests] == [f"bytes={len(part)}-", None]
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_complete_part_is_only_verified_and_renamed(serve, tmp_path):
    server = serve(CONTENT)
    (tmp_path / "w.pt.part").write_bytes(CONTENT)
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
    with pytest.raises(FetchError, match="HTTP 404"):
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
    with pytest.raises(FetchError, match="HTTP 503"):
        fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert len(server.requests) == fetching.RETRIES + 1


def test_a_server_that_is_down_is_an_error(serve, tmp_path):
    server = serve(CONTENT)
    url = server.url("w.pt")
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError, match="cannot be reached"):
        fetch_url(url, tmp_path / "w.pt")


def test_waiting_doubles_from_failure_to_failure(serve, tmp_path, monkeypatch):
    server = serve(CONTENT)
    server.statuses = [503] * 100
    waits: list[float] = []
    monkeypatch.setattr(fetching, "BACKOFF_S", 1.0)
    monkeypatch.setattr(fetching.time, "sleep", waits.append)
    with pytest.raises(FetchError):
        fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert waits == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("status", [0, 1])
def test_a_broken_answer_is_retried(serve, tmp_path, status):
    server = serve(CONTENT)
    server.statuses = [status]
    fetch_url(server.url("w.pt"), tmp_path / "w.pt", sha256_prefix=server.sha256)
    assert len(server.requests) == 2


def test_a_disk_without_space_is_said_before_the_download(serve, tmp_path):
    server = serve(CONTENT)
    server.claimed_length = 10**18
    with pytest.raises(FetchError, match=r"has \d+ MB free, 1000000000000 MB are needed"):
        fetch_url(server.url("w.pt"), tmp_path / "w.pt")
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named(serve, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match=r"cannot write .*w\.pt"):
        fetch_url(serve(CONTENT).url("w.pt"), tmp_path / "file" / "w.pt")


def _fetch_in_a_process(url: str, target: Path, results: multiprocessing.Queue) -> None:
    results.put(fetch_url(url, target))


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
