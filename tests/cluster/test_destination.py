"""The destination: whole shards whatever happens, and going on with them."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from winspect.cluster import shards, store
from winspect.cluster.destination import Destination, refuse_used
from winspect.cluster.filesystems import open_place
from winspect.cluster.shards import encode, result_schema, rows_per_shard
from winspect.errors import OutputError, SettingsError

RUN = {"model": "tiny", "settings": {"scales": [2, 3]}}


def rows(ordinals, *, failed=()):
    """Result rows; what stands in them follows from the ordinal alone."""
    table = [
        {
            "id": f"id-{ordinal}",
            "path": f"line/{ordinal}.png",
            "class": "screw",
            "anomaly_score": None if ordinal in failed else ordinal / 1000,
            "verdict": None if ordinal in failed else "normal",
            "threshold": 0.5,
            "p_value": None,
            "map": None,
            "error": {"type": "PictureError", "message": "cut off"} if ordinal in failed else None,
            "model": "tiny",
            "weights_sha256": "ab" * 32,
        }
        for ordinal in ordinals
    ]
    return pa.Table.from_pylist(table, schema=result_schema(arrays=False))


def open_(place, *, count=10, shard_rows=4, resume=False, run=RUN, arrays=False):
    return Destination.open(str(place), run, count=count, shard_rows=shard_rows, resume=resume, arrays=arrays)


def add(destination, *numbers, failed=()):
    """Put shards in place, as workers make them."""
    for number in numbers:
        destination.add(encode(destination.plan, number, rows(destination.plan.span(number), failed=failed)))


def fill(place, *numbers, **options):
    """Start or go on with a run; these shards of it, or all that are missing."""
    with open_(place, **options) as destination:
        add(destination, *(numbers or destination.missing()))
    return destination


def ids(place):
    return pd.read_parquet(place)["id"].tolist()


def files(place):
    return {str(path.relative_to(place)) for path in Path(place).rglob("*") if path.is_file()} - {"_winspect/lock"}


def all_ids(count=10):
    return [f"id-{ordinal}" for ordinal in range(count)]


@pytest.fixture
def no_waiting(monkeypatch):
    """Bytes are not waited for until they are on the disk: a test with many files takes a tenth of the time."""
    monkeypatch.setattr(store, "_sync", lambda path, how: None)


# What is written


def test_shards_hold_the_rows_in_order(tmp_path):
    with open_(tmp_path) as destination:
        add(destination, 2)  # by hand: 8 and 9 are the last shard
        assert (set(destination.shards), destination.rows_done, destination.missing()) == ({2}, 2, [0, 1])
        add(destination, 1, 0, failed={3})
        assert (destination.rows_done, destination.failed, destination.missing()) == (10, 1, [])
        destination.close({"inputs": 10})
    names = {f"part-0000{number}.parquet" for number in range(3)}
    assert files(tmp_path) == {*names, "_winspect/run.json", "_winspect/shards.json", "_winspect/summary.json"}
    assert [pq.read_table(tmp_path / name)["id"].to_pylist() for name in sorted(names)] == [
        ["id-0", "id-1", "id-2", "id-3"],
        ["id-4", "id-5", "id-6", "id-7"],
        ["id-8", "id-9"],
    ]
    read = pd.read_parquet(tmp_path)
    assert read["id"].tolist() == all_ids() and read["class"].tolist() == ["screw"] * 10
    assert read["error"][3] == {"type": "PictureError", "message": "cut off"} and np.isnan(read["anomaly_score"][3])
    assert pq.read_schema(tmp_path / "part-00001.parquet").equals(result_schema(arrays=False))
    assert pq.ParquetFile(tmp_path / "part-00001.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
    assert json.loads((tmp_path / "_winspect/summary.json").read_text()) == {"inputs": 10}
    listed = json.loads((tmp_path / "_winspect/shards.json").read_text())
    sizes = [(tmp_path / name).stat().st_size for name in sorted(names)]
    assert listed == {
        "schema": 1,
        "rows_per_shard": 4,
        "inputs": 10,
        "shards": [
            {"shard": 0, "file": "part-00000.parquet", "rows": 4, "failed": 1, "bytes": sizes[0]},
            {"shard": 1, "file": "part-00001.parquet", "rows": 4, "failed": 0, "bytes": sizes[1]},
            {"shard": 2, "file": "part-00002.parquet", "rows": 2, "failed": 0, "bytes": sizes[2]},
        ],
    }


def test_any_order_and_any_repetition_give_the_same_files(tmp_path):
    fill(tmp_path / "plain", count=100, shard_rows=16)
    fill(tmp_path / "wild", *[6, 0, 3, 5, 1, 3, 2, 4, 0], count=100, shard_rows=16)
    assert ids(tmp_path / "wild") == all_ids(100)
    for name in files(tmp_path / "plain"):
        assert (tmp_path / "wild" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name


@pytest.mark.parametrize(("count", "wanted"), [(1, 256), (300_000, 300), (10_000_000, 10_000), (10**9, 10_000)])
def test_rows_per_shard(tmp_path, count, wanted):
    assert rows_per_shard(count) == wanted
    if count == 1:
        assert open_(tmp_path, count=1, shard_rows=None).plan.shard_rows == 256


@pytest.mark.parametrize(
    ("count", "workers", "wanted"),
    # by hand: two shards a worker, of 32 rows at least; with one worker, or enough for all, as without
    [(1000, 1, 256), (1000, 4, 125), (1000, 64, 32), (100, 8, 32), (10_000_000, 64, 10_000)],
)
def test_no_worker_is_without_a_shard(count, workers, wanted):
    assert rows_per_shard(count, workers) == wanted


def test_names_sort_as_numbers_do():
    plan = shards.Plan(123_457, 1, "")
    assert [plan.file(number) for number in (0, 123_456)] == ["part-000000.parquet", "part-123456.parquet"]


@pytest.mark.parametrize("options", [{"count": 0}, {"shard_rows": 0}])
def test_sizes_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(SettingsError, match="need at least 1"):
        open_(tmp_path, **options)


# What is there already


def test_a_folder_with_a_run_needs_resume(tmp_path):
    fill(tmp_path, 0, 1)
    with pytest.raises(OutputError, match=r"an unfinished run of winspect batch \(2 of 3 shards\); add --resume"):
        open_(tmp_path)
    with pytest.raises(OutputError, match=r"an unfinished run of winspect batch \(2 of 3 shards\); add --resume"):
        refuse_used(str(tmp_path), resume=False)
    refuse_used(str(tmp_path), resume=True)
    fill(tmp_path, resume=True)
    with pytest.raises(OutputError, match=r"a finished run of winspect batch \(3 of 3 shards\)"):
        open_(tmp_path)


@pytest.mark.parametrize("resume", [False, True])
def test_foreign_files_are_refused_and_left_alone(tmp_path, resume):
    for name in ("holiday.jpg", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(OutputError, match=r"holiday\.jpg and 1 more.*another --out"):
        open_(tmp_path, resume=resume)
    with pytest.raises(OutputError, match=r"holiday\.jpg and 1 more.*another --out"):
        refuse_used(str(tmp_path), resume=resume)
    assert sorted(os.listdir(tmp_path)) == ["holiday.jpg", "notes.txt"]


def test_a_strange_shard_is_refused(tmp_path):
    """Else whoever reads the folder would count its rows."""
    fill(tmp_path, 0, 1)
    (tmp_path / "part-00003.parquet").write_bytes((tmp_path / "part-00000.parquet").read_bytes())
    with pytest.raises(OutputError, match=r"part-00003\.parquet is none of this run's shards"):
        open_(tmp_path, resume=True)


def test_resume_keeps_finished_shards(tmp_path):
    fill(tmp_path, 0, 2)
    kept = (tmp_path / "part-00000.parquet").stat()
    with open_(tmp_path, resume=True, shard_rows=None) as destination:
        assert (set(destination.shards), destination.rows_done, destination.plan.shard_rows) == ({0, 2}, 6, 4)
        assert destination.missing() == [1]
        add(destination, 1)
    assert (tmp_path / "part-00000.parquet").stat().st_mtime_ns == kept.st_mtime_ns
    assert ids(tmp_path) == all_ids()


def test_failures_of_earlier_runs_are_counted(tmp_path):
    with open_(tmp_path) as destination:
        add(destination, 0, 1, failed={1, 6, 7})
    with open_(tmp_path, resume=True) as destination:
        assert destination.failed == 3


@pytest.mark.parametrize("made", [False, True])
def test_resume_of_nothing_starts(tmp_path, made):
    if made:
        (tmp_path / "new").mkdir()
    fill(tmp_path / "new", resume=True)
    assert ids(tmp_path / "new") == all_ids()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"run": {**RUN, "model": "large"}}, 'model: "tiny" there, "large" asked for'),
        ({"run": {"model": "tiny"}}, r'settings: {"scales": \[2, 3\]} there, null asked for'),
        ({"run": {**RUN, "settings": "x" * 99}}, r"settings: .* there, \.\.\. asked for"),
        ({"run": {**RUN, "inputs": "5f"}}, 'inputs: null there, "5f" asked for'),
        ({"count": 11}, r"layout\.inputs: 10 there, 11 asked for"),
        ({"shard_rows": 5}, r"layout\.rows_per_shard: 4 there, 5 asked for"),
        ({"arrays": True}, r"layout\.arrays: false there, true asked for"),
    ],
)
def test_another_run_is_refused(tmp_path, options, told):
    fill(tmp_path, 0, 1)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(OutputError, match=rf"another run \({told}\)"):
        open_(tmp_path, resume=True, **options)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"layout": {}}'])
def test_a_damaged_run_is_refused(tmp_path, content):
    fill(tmp_path, 0, 1)
    (tmp_path / "_winspect/run.json").write_text(content)
    with pytest.raises(OutputError, match=r"run\.json: is not a batch's run"):
        open_(tmp_path, resume=True)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def _spoil(path):
    path.write_bytes(path.read_bytes()[:-9] + b"123456789")


def _scramble(path):
    """The end is there, what it points at is not."""
    content = path.read_bytes()
    path.write_bytes(content[:-600] + bytes(592) + content[-8:])


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (Path.unlink, None),
        (_cut, "is not whole Parquet"),
        (_spoil, "is not whole Parquet"),
        (_scramble, "is not whole Parquet"),
        (_empty, "is not whole Parquet"),
    ],
)
def test_a_shard_that_is_damaged_or_gone_is_done_again(tmp_path, caplog, harm, told):
    with open_(tmp_path) as destination:
        add(destination, 0, 1, 2)
        destination.close({})
    harm(tmp_path / "part-00001.parquet")
    with open_(tmp_path, resume=True) as destination:
        assert set(destination.shards) == {0, 2} and destination.missing() == [1]
        assert len(caplog.messages) == (told is not None)
        assert all(f"part-00001.parquet {told}" in message for message in caplog.messages)
        # Whoever looks now sees no finished run and no damaged file.
        assert "_winspect/summary.json" not in files(tmp_path) and ids(tmp_path) == [*all_ids()[:4], "id-8", "id-9"]
        add(destination, 1)
    assert ids(tmp_path) == all_ids()


def _other_run(place):
    fill(place / "other", run={"model": "large"})
    return (place / "other" / "part-00001.parquet").read_bytes()


def _other_shard(place):
    return (place / "run" / "part-00000.parquet").read_bytes()


def _other_program(place):
    pq.write_table(rows(range(4)), place / "other.parquet")
    return (place / "other.parquet").read_bytes()


@pytest.mark.parametrize("made", [_other_run, _other_shard, _other_program])
def test_shards_tell_what_they_are(tmp_path, made):
    """What is whole, but not of this run, is not ours to replace."""
    fill(tmp_path / "run", 0)
    strange = tmp_path / "run" / "part-00001.parquet"
    strange.write_bytes(made(tmp_path))
    content = strange.read_bytes()
    with pytest.raises(OutputError, match=r"part-00001\.parquet is none of this run's shards; move it away"):
        open_(tmp_path / "run", resume=True)
    assert strange.read_bytes() == content


def test_a_store_that_fails_loses_nothing(tmp_path, monkeypatch):
    """A shard that cannot be read now is not a damaged one."""

    class Broken:
        type_name = "s3"

        def __getattr__(self, name):
            return getattr(pa.fs.LocalFileSystem(), name)

        def open_input_file(self, path):
            raise OSError("AWS Error NETWORK_CONNECTION during HeadObject operation")

    fill(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(store, "open_place", lambda text: (Broken(), text))
        with pytest.raises(OutputError, match=r"part-0000\d\.parquet: the store cannot be reached.*--resume"):
            open_(tmp_path, resume=True)
    assert ids(tmp_path) == all_ids()


def test_a_long_footer_is_read_whole(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(shards, "_FOOTER_GUESS", 100)
    with open_(tmp_path, resume=True) as destination:
        assert set(destination.shards) == {0, 1, 2}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"x" * 200])
def test_a_file_that_is_no_parquet_is_done_again(tmp_path, content):
    fill(tmp_path, 0, 1)
    (tmp_path / "part-00002.parquet").write_bytes(content)
    with open_(tmp_path, resume=True) as destination:
        assert set(destination.shards) == {0, 1}
        add(destination, 2)
    assert ids(tmp_path) == all_ids()


def test_a_damaged_or_missing_list_loses_nothing(tmp_path):
    for harm in (Path.unlink, lambda path: path.write_text("{")):
        fill(tmp_path, 0, 1, resume=True)
        harm(tmp_path / "_winspect/shards.json")
        with open_(tmp_path, resume=True) as destination:
            assert set(destination.shards) == {0, 1}
        assert len(json.loads((tmp_path / "_winspect/shards.json").read_text())["shards"]) == 2


# Two at a time


def test_two_runs_never_share_a_folder(tmp_path):
    with open_(tmp_path):
        for resume in (False, True):
            with pytest.raises(OutputError, match="another winspect run is writing there"):
                open_(tmp_path, resume=resume)
    open_(tmp_path, resume=True).__exit__(None, None, None)


def test_a_refused_run_leaves_no_lock(tmp_path):
    fill(tmp_path)
    with pytest.raises(OutputError, match="add --resume") as caught:
        open_(tmp_path)
    with open_(tmp_path, resume=True):
        pass
    assert caught.traceback  # which keeps alive what a collector of garbage would have let go


# Kills


class Killed(BaseException):
    """The process is gone: nothing that it would do afterwards is done."""


class MortalFiles:
    """A file system that dies at its n-th step; nothing works after."""

    def __init__(self, fs, life):
        self.fs, self.life, self.type_name = fs, life, fs.type_name

    def step(self):
        self.life -= 1
        if self.life < 0:
            raise Killed

    def __getattr__(self, name):
        if not self.life > 0:
            raise Killed
        return getattr(self.fs, name)

    def move(self, *names):
        self.step()
        self.fs.move(*names)
        self.step()

    def create_dir(self, *args, **options):
        self.step()
        self.fs.create_dir(*args, **options)

    def delete_file(self, *args):
        self.step()
        self.fs.delete_file(*args)

    @contextmanager
    def open_output_stream(self, *args, **options):
        self.step()
        with self.fs.open_output_stream(*args, **options) as file:
            yield _MortalFile(self, file)
            self.step()


class _MortalFile:
    def __init__(self, files, file):
        self.files, self.file = files, file

    def write(self, content):
        self.file.write(bytes(content)[: len(content) // 2])
        self.file.flush()
        self.files.step()
        self.file.write(bytes(content)[len(content) // 2 :])


def test_a_kill_at_any_step_loses_nothing(tmp_path, monkeypatch, no_waiting):
    """The file system dies at step 0, 1, 2 ... of a run; each time the next run goes on and ends well."""
    whole = fill(tmp_path / "whole")
    assert whole.rows_done == 10
    opened, killed = store.open_place, 0
    for life in range(1000):
        place = tmp_path / str(life)

        def mortal(text, life=life):
            fs, path = opened(text)
            return MortalFiles(fs, life), path

        with monkeypatch.context() as patch:
            patch.setattr(store, "open_place", mortal)
            try:
                with open_(place, resume=True) as destination:
                    add(destination, 1, 0, 2)
                    destination.close({})
                break
            except Killed:
                killed += 1
        there = {name for name in files(place) if name.startswith("part-")} if place.exists() else set()
        for name in there:  # what has its name is whole
            assert (place / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        with open_(place, resume=True) as destination:
            assert {destination.plan.file(number) for number in destination.shards} == there
            assert not [name for name in files(place) if name.endswith(".tmp")]
            add(destination, *destination.missing())
            destination.close({})
        assert ids(place) == all_ids()
        assert files(place) == files(tmp_path / "whole") | {"_winspect/summary.json"}
    assert killed > 20 and files(place) == files(tmp_path / "whole") | {"_winspect/summary.json"}


def test_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """Else a power failure could leave an empty file of that name."""
    target, steps = tmp_path / "part-00000.parquet", []

    def sync(path, how):
        steps.append((Path(path).name, target.exists(), Path(path).stat().st_size))

    with open_(tmp_path) as destination:
        monkeypatch.setattr(store, "_sync", sync)
        add(destination, 0)
        assert steps[:2] == [
            ("part-00000.parquet.tmp", False, target.stat().st_size),
            (tmp_path.name, True, tmp_path.stat().st_size),
        ]


def test_what_was_killed_before_it_began_needs_no_resume(tmp_path):
    (tmp_path / "_winspect").mkdir()
    (tmp_path / "_winspect/run.json.tmp").write_text("{")
    fill(tmp_path)
    assert ids(tmp_path) == all_ids() and not (tmp_path / "_winspect/run.json.tmp").exists()


def test_a_killed_process_keeps_its_shards_and_frees_the_lock(tmp_path):
    code = (
        "import sys, time; from test_destination import add, open_\n"
        "destination = open_(sys.argv[1]); add(destination, 0); print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    paths = os.pathsep.join([str(Path(shards.__file__).parents[2]), str(Path(__file__).parent)])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            with pytest.raises(OutputError, match="another winspect run is writing there"):
                open_(tmp_path / "out", resume=True)
        finally:
            process.send_signal(signal.SIGKILL)
    with open_(tmp_path / "out", resume=True) as destination:
        assert set(destination.shards) == {0}
        add(destination, *destination.missing())
    assert ids(tmp_path / "out") == all_ids()


def test_rows_are_listed_although_the_run_fails(tmp_path):
    with pytest.raises(KeyError), open_(tmp_path) as destination:
        add(destination, 0, 1)
        raise KeyError
    assert [shard["shard"] for shard in json.loads((tmp_path / "_winspect/shards.json").read_text())["shards"]] == [
        0,
        1,
    ]


# Places that cannot be written


def temporary(place, name):
    return Path(place) / "_winspect" / f"{name}.tmp"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_keeps_finished_shards(tmp_path):
    with pytest.raises(OutputError) as caught, open_(tmp_path) as destination:
        add(destination, 0)
        temporary(tmp_path, "part-00001.parquet").symlink_to("/dev/full")
        add(destination, 1)
    assert str(caught.value) == (
        f"{tmp_path}: cannot write: the disk is full; free some space; finished shards are kept (1 of 3), "
        "go on with --resume"
    )
    assert files(tmp_path) == {"part-00000.parquet", "_winspect/run.json", "_winspect/shards.json"}
    fill(tmp_path, resume=True)
    assert ids(tmp_path) == all_ids()


def test_a_file_that_is_cut_in_the_middle_gets_no_name(tmp_path):
    """The system itself stops the writing half-way."""
    destination = open_(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match="File too large; finished shards are kept"):
            add(destination, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    destination.__exit__(None, None, None)
    assert files(tmp_path) == {"_winspect/run.json", "_winspect/shards.json"}


@pytest.mark.parametrize(
    ("code", "told"), [(errno.EROFS, "read-only"), (errno.EACCES, "no permission"), (errno.EDQUOT, "quota")]
)
def test_what_forbids_writing_is_named(tmp_path, code, told):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    with open_(tmp_path) as destination:
        write, destination.store.write = destination.store.write, refuse
        with pytest.raises(OutputError, match=rf"{told}.*finished shards are kept \(0 of 3\)"):
            add(destination, 0)
        with pytest.raises(OutputError, match=told):
            destination.close({})
        destination.store.write = write


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file, not a folder"):
        open_(tmp_path / "file" / "out")
    with pytest.raises(OutputError, match="file, not a folder"):
        open_(tmp_path / "file")
    with pytest.raises(OutputError, match="file, not a folder"):
        refuse_used(str(tmp_path / "file"), resume=False)


# URIs


def test_a_file_uri_is_the_folder(tmp_path):
    place = f"{tmp_path.as_uri()}/my%20run"
    fill(place, 0, 1)
    with open_(place, resume=True) as destination:
        assert set(destination.shards) == {0, 1}
        with pytest.raises(OutputError, match="another winspect run is writing there"):
            open_(tmp_path / "my run", resume=True)
        add(destination, 2)
    assert ids(tmp_path / "my run") == all_ids()


def test_a_store_without_locks_and_disks():
    """Arrow's file system in memory stands for an object store."""
    fill("mock://bucket/out", 0)
    with pytest.raises(OutputError, match=r"mock://bucket/out: holds an unfinished run of winspect batch \(1 of 3"):
        open_("mock://bucket/out")
    with open_("mock://bucket/out", resume=True) as destination:
        assert set(destination.shards) == {0}
        add(destination, 1, 2)
    memory, place = open_place("mock://bucket/out")
    assert pq.read_table(place, filesystem=memory)["id"].to_pylist() == all_ids()


class Hadoop:
    """As Hadoop's: nothing is renamed to a name that is taken."""

    type_name = "hdfs"

    def __init__(self, fs):
        self.fs = fs

    def __getattr__(self, name):
        return getattr(self.fs, name)

    def move(self, source, target):
        if self.fs.get_file_info(target).type != pa.fs.FileType.NotFound:
            raise OSError(f"{target}: is there")
        self.fs.move(source, target)


def test_a_store_that_replaces_nothing(tmp_path):
    fill(tmp_path, 0, 1)
    with open_(tmp_path, resume=True) as destination:
        destination.store.fs = Hadoop(destination.store.fs)
        for _ in range(2):
            add(destination, 2)
            destination.close({})
    assert len(json.loads((tmp_path / "_winspect/shards.json").read_text())["shards"]) == 3


def test_a_malformed_uri_is_refused():
    with pytest.raises(OutputError, match="--out"):
        open_("nowhere://bucket/out")
