"""Engines: the same sweep by a Ray cluster, workers killed at work; and what is refused."""

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import replicas

from mmn_utils import engines, profiles
from mmn_utils.engines import SweepError
from mmn_utils.profiles import ProfileError

HERE = Path(__file__).parent
needs_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is not installed: pip install ray")


@needs_ray
def test_two_of_four_workers_killed(tmp_path):
    """The same files as in one process, no shard lost or doubled, and only what the killed were at is done again."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, HERE / "ray_sweep.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["same"] and said["bad"] == [] and len(set(said["killed"])) == 2
    names = [sorted(path.name for path in (tmp_path / folder).glob("shard-*")) for folder in ("ray", "alone")]
    assert names[0] == names[1] and [name[6:11] for name in names[0]] == [f"{number:05}" for number in range(40)]
    times, workers = Counter(shard for _, shard in said["begun"]), {pid for pid, _ in said["begun"]}
    assert set(times) == set(range(40)) and sum(times.values()) <= 42 and max(times.values()) <= 3, times
    assert len(workers) >= 4


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SweepError, match=r"pip install 'mmn-utils\[ray\]', or say in-process"):
        list(engines.by_ray(lambda shard: shard, [1]))


def test_nothing_to_do_starts_no_cluster(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(engines.by_ray(lambda shard: shard, [])) == []


def test_a_shard_that_kills_its_workers_ends_the_sweep():
    from mmn_utils.sweeps import Shard

    shard = Shard(7, ["a", "b"])
    engines._check_deaths(2, shard, RuntimeError("died"))
    with pytest.raises(SweepError, match=r"shard 7 \(items 'a' to 'b'\) took 3 workers with it.*smaller shards.*died"):
        engines._check_deaths(3, shard, RuntimeError("died"))


def test_the_profile_names_an_engine_and_an_unknown_one_is_refused(tmp_path):
    file = replicas.save_profile(tmp_path / "mine.yml", engine="ray")
    assert profiles.read(file, check_folders=False).engine == "ray"
    assert profiles.read("miniature").engine == "in-process"
    assert set(engines.ENGINES) == {"in-process", "ray"}
    file = replicas.save_profile(tmp_path / "mine.yml", engine="rey")
    with pytest.raises(
        ProfileError, match=r"engine should be one of in-process, ray, found 'rey'; did you mean 'ray'\?"
    ):
        profiles.read(file, check_folders=False)
