"""Sweeps: what is there is found again, what does not fit is refused, nothing is lost, nothing is done twice."""

import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import torch

from mmn_utils import sweeps
from mmn_utils.engines import SweepError
from mmn_utils.sweeps import sweep, weights_checksum

KEY = {"models": "a", "parameters": {"k": 3}}
HERE = Path(__file__).parent


class Squares:
    """Squares of numbers, as a table or as tensors; remembers what it was asked, fails for the `bad` ones."""

    def __init__(self, bad=(), tensors=False, most=1000):
        self.asked, self.bad, self.tensors, self.most = [], set(bad), tensors, most

    def __call__(self, items):
        self.asked.append(list(items))
        if len(items) > self.most:
            raise torch.OutOfMemoryError(f"{len(items)} at once")
        if bad := self.bad & set(items):
            raise OSError(f"image {min(bad)} cannot be read")
        if self.tensors:
            return {"square": torch.tensor(items, dtype=torch.float64) ** 2}
        return pd.DataFrame({"item": items, "square": [i * i for i in items]})


def table(folder, compute=None, items=range(10), **choice):
    return sweep(compute or Squares(), items, folder=folder, key=KEY, **({"size": 3} | choice)).table()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("shard")}


def one(folder, number):
    (path,) = folder.glob(f"shard-{number:05}.*")
    return path


@pytest.mark.parametrize("tensors", [False, True])
def test_everything_is_computed_once_in_order_and_found_again(tmp_path, tensors):
    compute = Squares(tensors=tensors)
    found = sweep(compute, torch.arange(10).numpy(), folder=tmp_path, key=KEY, size=4)
    values = found.tensors()["square"] if tensors else found.table()["square"]
    assert values.tolist() == [i * i for i in range(10)] and found.bad == []
    assert compute.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and len(list(found)) == 3
    before = files(tmp_path)
    again = sweep(compute, list(range(10)), folder=tmp_path, key=KEY, size=4)
    assert len(compute.asked) == 3 and again.files == found.files and files(tmp_path) == before
    assert {path.suffix for path in found.files} == {".safetensors" if tensors else ".parquet"}
    assert not list(tmp_path.glob(".*.partial"))


def test_only_what_is_missing_is_computed(tmp_path):
    whole = table(tmp_path)
    before = files(tmp_path)
    one(tmp_path, 2).unlink()
    (tmp_path / ".2.partial").write_bytes(b"half")
    compute = Squares()
    assert table(tmp_path, compute).equals(whole) and compute.asked == [[6, 7, 8]]
    assert files(tmp_path) == before and not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": KEY | {"models": "b"}}, ["models differ", "there: models = 'a'", "wanted: 'b'", "delete this one"]),
        ({"key": KEY | {"seed": 1}}, ["seed differ", "wanted: 1"]),
        ({"items": range(11)}, ["items, n_items differ"]),
        ({"size": 4}, ["size differ", "there: size = 3"]),
    ],
)
def test_another_sweep_in_the_folder_is_refused(tmp_path, change, words):
    table(tmp_path)
    before = files(tmp_path)
    compute = Squares()
    asked = {"items": range(10), "folder": tmp_path, "key": KEY, "size": 3} | change
    with pytest.raises(SweepError) as caught:
        sweep(compute, **asked)
    assert all(word in str(caught.value) for word in [*words, str(tmp_path)]), str(caught.value)
    assert compute.asked == [] and files(tmp_path) == before


@pytest.mark.parametrize("tensors", [False, True])
def test_damage_is_found_on_resuming_and_on_reading(tmp_path, tensors):
    found = sweep(Squares(tensors=tensors), range(10), folder=tmp_path, key=KEY, size=3)
    damaged = found.files[1]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(SweepError, match=rf"{damaged.name} is damaged.*Delete this one file and run again"):
        list(found)
    compute = Squares(tensors=tensors)
    with pytest.raises(SweepError, match="is damaged"):
        sweep(compute, range(10), folder=tmp_path, key=KEY, size=3)
    damaged.unlink()
    again = sweep(compute, range(10), folder=tmp_path, key=KEY, size=3)
    assert compute.asked == [[3, 4, 5]] and again.files == found.files


def test_a_shard_of_another_sweep_is_refused(tmp_path):
    table(tmp_path / "a")
    sweep(Squares(), range(10), folder=tmp_path / "b", key=KEY | {"models": "b"}, size=3)
    stranger = one(tmp_path / "b", 0)
    one(tmp_path / "a", 0).unlink()
    stranger.rename(tmp_path / "a" / stranger.name)
    with pytest.raises(SweepError, match=rf"{stranger.name} belongs to another sweep"):
        table(tmp_path / "a")


@pytest.mark.parametrize("suffix", ["parquet", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"no such format", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_strange_file_under_a_shards_name_is_refused(tmp_path, suffix, content):
    table(tmp_path)
    one(tmp_path, 1).unlink()
    stranger = tmp_path / f"shard-00001.{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"
    stranger.write_bytes(content)
    with pytest.raises(SweepError, match=rf"{stranger.name} is not a shard of a sweep.*take it away and run again"):
        table(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"a": NaN}'])
def test_a_damaged_key_is_refused(tmp_path, content):
    table(tmp_path)
    (tmp_path / "key.json").write_bytes(content)
    with pytest.raises(SweepError, match=r"key.json cannot be read as JSON.*Delete .* to compute everything anew"):
        table(tmp_path)


def test_a_bad_item_is_reported_and_counted_and_stays_left_out(tmp_path, capsys):
    compute = Squares(bad=[4])
    found = sweep(compute, range(10), folder=tmp_path, key=KEY, size=5)
    assert found.table()["item"].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    ((item, reason),) = found.bad
    assert item == 4 and reason.startswith("OSError: image 4 cannot be read, at test_sweeps.py:")
    assert (
        "1 of 10 items left out; the first: 4 (OSError: image 4 cannot be read, at test_sweeps.py:"
        in capsys.readouterr().err
    )
    n_asked = len(compute.asked)
    again = sweep(compute, range(10), folder=tmp_path, key=KEY, size=5)
    assert again.bad == found.bad and len(compute.asked) == n_asked and "1 of 10" in capsys.readouterr().err


def test_a_shard_of_bad_items_only_is_no_gap(tmp_path):
    found = sweep(Squares(bad=[2]), range(3), folder=tmp_path, key=KEY, size=1)
    assert found.table()["item"].tolist() == [0, 1] and len(found.files) == 3


def test_tensors_with_a_gap_are_refused(tmp_path):
    found = sweep(Squares(bad=[2], tensors=True), range(3), folder=tmp_path, key=KEY, size=3)
    with pytest.raises(SweepError, match=r"1 items were left out, the first: 2 \(OSError.*ask without them"):
        found.tensors()


@pytest.mark.parametrize(
    ("bad", "items", "share"), [([1, 2], range(10), 0.1), ([0], [0], 1.0), (range(20), range(20), 0.5)]
)
def test_too_many_bad_items_are_fatal_and_tried_again(tmp_path, bad, items, share):
    with pytest.raises(SweepError, match=r"items failed, more than .*cannot be read.*Mend the cause"):
        table(tmp_path, Squares(bad=bad), items, bad_share=share)
    mended = Squares()
    assert table(tmp_path, mended, items)["item"].tolist() == list(items)
    assert {i for asked in mended.asked for i in asked} >= set(bad)


def test_two_bad_items_of_a_thousand_pass_at_one_percent(tmp_path):
    assert len(table(tmp_path, Squares(bad=[3, 500]), range(1000), size=100)) == 998


def test_a_batch_too_large_for_the_memory_is_halved_and_stays_so(tmp_path, capsys):
    compute = Squares(most=2)
    assert table(tmp_path, compute, range(20), size=8)["square"].tolist() == [i * i for i in range(20)]
    assert [len(asked) for asked in compute.asked] == [8, 4, *[2] * 10], "found out once, then kept to"
    said = capsys.readouterr().err
    assert "8 items are too much for the memory: now 4 at once" in said and said.count("too much") == 2


def test_an_item_too_large_for_the_memory_is_fatal(tmp_path):
    with pytest.raises(SweepError, match="item 0 alone is too much for the memory"):
        table(tmp_path, Squares(most=0))
    assert not files(tmp_path)


def test_no_items_are_refused(tmp_path):
    with pytest.raises(SweepError, match="no items"):
        table(tmp_path / "new", items=[])
    assert not (tmp_path / "new").exists()


def test_two_processes_do_not_share_a_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "_PATIENCE", 0.2)

    def within(items):
        with pytest.raises(SweepError, match="another process is computing this sweep"):
            table(tmp_path)
        return Squares()(items)

    assert len(table(tmp_path, within)) == 10


def test_no_bar_where_nobody_looks(tmp_path, capsys):
    table(tmp_path)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_how_far_it_is_and_the_time_left(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    table(tmp_path)
    one(tmp_path, 3).unlink()
    monkeypatch.setattr(sys, "stderr", Terminal())
    table(tmp_path)
    assert re.search(r"90%.* 9/10 \[00:00<", sys.stderr.getvalue()), sys.stderr.getvalue()


# --- disks -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_and_finished_shards_stay(tmp_path, monkeypatch):
    whole = table(tmp_path / "whole")
    fsync, n_calls = os.fsync, []

    def full(descriptor):
        n_calls.append(descriptor)
        if len(n_calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SweepError, match=r"cannot be written to: No space left.*free some space.*goes on from there"):
        table(tmp_path / "full")
    monkeypatch.undo()
    kept = files(tmp_path / "full")
    assert (
        kept and kept.items() <= files(tmp_path / "whole").items() and not list((tmp_path / "full").glob(".*.partial"))
    )
    compute = Squares()
    assert table(tmp_path / "full", compute).equals(whole) and len(compute.asked) == 4 - len(kept)


LIMITED = """
import resource, sys
from pathlib import Path
import pandas as pd
from mmn_utils.sweeps import sweep
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sizes = {0: 10, 1: 10, 2: 100_000, 3: 10}
compute = lambda items: pd.DataFrame({"x": [hash(float(i)) * 0.1 for k in items for i in range(sizes[k])]})
sweep(compute, range(4), folder=Path(sys.argv[1]), key={}, size=1)
"""


def test_a_write_that_the_system_cuts_off_leaves_no_half_file(tmp_path):
    """A real failure in the middle of a file: the system lets no file of this process grow beyond 20 kB."""
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "s"], capture_output=True, text=True, cwd=HERE.parent
    )
    assert run.returncode == 1 and "SweepError" in run.stderr and "cannot be written to: File too large" in run.stderr
    assert sorted(name[:11] for name in files(tmp_path / "s")) == ["shard-00000", "shard-00001"]
    assert not list((tmp_path / "s").glob(".*.partial"))


def test_a_read_only_folder_is_told_and_untouched():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        whole = table(folder / "s")
        one(folder / "s", 1).unlink()
        before = files(folder / "s")
        (folder / "s").chmod(0o555)
        am_root = os.geteuid() == 0
        if am_root:  # whom nothing is read-only to
            os.seteuid(65534)
        try:
            with pytest.raises(SweepError, match=r"cannot be written to: Permission denied.*make the folder writable"):
                table(folder / "s")
        finally:
            if am_root:
                os.seteuid(0)
        assert files(folder / "s") == before
        (folder / "s").chmod(0o755)
        assert table(folder / "s").equals(whole)


# --- the key of a chapter's sweep ------------------------------------------------------------------------------------


def test_the_checksum_sees_every_kind_of_change():
    layer = torch.nn.Linear(200, 100)
    with torch.no_grad():
        layer.weight.zero_()
        before = weights_checksum([layer])
        assert weights_checksum([layer]) == before
        seen = {before}
        layer.weight[50, 77] = 1e-3  # one of 20,000 numbers
        seen.add(weights_checksum([layer]))
        layer.bias += 1
        seen.add(weights_checksum([layer]))
        seen |= {weights_checksum([layer.half()]), weights_checksum([layer, layer])}
    assert len(seen) == 5


def test_a_chapters_sweep_has_everything_in_its_key(tmp_path, monkeypatch):
    from mmn_utils import profiles

    monkeypatch.setenv("MMN_ROOT", str(tmp_path))
    run = sweeps.Sweeps(profiles.read("miniature"), "03_x")
    compute, layer = Squares(), torch.nn.Linear(2, 2)
    for parameters in ({"k": 1}, {"k": 2}, {"k": 1}):
        run("squares", compute, range(6), models=[layer], size=3, parameters=parameters)
    assert len(compute.asked) == 4
    folders = sorted((tmp_path / "results/.sweeps/miniature/03_x").iterdir())
    assert len(folders) == 2 and all(folder.name.startswith("squares-") for folder in folders)
    key = json.loads((folders[0] / "key.json").read_text())
    assert {"models", "weights", "device", "versions", "code", "parameters", "items", "n_items", "size"} == set(key)
    assert key["weights"] == weights_checksum([layer]) and key["versions"]["torch"] == metadata.version("torch")


# --- killed, and measured --------------------------------------------------------------------------------------------


def test_killed_thirty_times(tmp_path):
    """kill -9 at 30 random moments: 30 clean resumes, the same bytes in the end, no finished shard computed twice."""
    done = subprocess.run(
        [sys.executable, HERE / "killed_sweep.py", tmp_path, "30"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30 kills" in done.stdout and "0 finished shards computed twice" in done.stdout, done.stdout


def test_memory_does_not_grow_with_the_number_of_items(tmp_path):
    """Peak resident memory of a sweep that is read back lazily, at 1, 4 and 16 times as many items."""
    peaks = []
    for times in (1, 4, 16):
        command = [sys.executable, HERE / "killed_sweep.py", tmp_path / str(times), "memory", str(16 * times)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    print(f"peak RSS in MB at 1x, 4x, 16x: {peaks}")
    assert peaks[2] - peaks[0] < 30, peaks  # 16x has 120 MB more in its files
