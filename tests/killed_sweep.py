"""Run by `test_sweeps.py` in processes of their own: a sweep that is killed again and again, and one that is large.

python killed_sweep.py FOLDER N_KILLS [SEED]     prints what happened; exit code 1 if anything was lost
python killed_sweep.py FOLDER memory N_SHARDS    prints the peak of the process's memory in MB
"""

import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd

from mmn_utils.sweeps import sweep

N_ITEMS, SIZE = 400, 5


def computed(log, items):
    """Numbers that depend on the item; the first item is written to the log before and after."""
    os.write(log, f"{items[0]}\n".encode())
    time.sleep(0.001)
    return pd.DataFrame({"item": items, "x": [np.random.default_rng(i).normal() for i in items]})


def run(folder, log_file):
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    found = sweep(lambda items: computed(log, items), range(N_ITEMS), folder=folder, key={"what": "x"}, size=SIZE)
    found.table().to_parquet(folder.parent / f"{folder.name}.parquet")


def finished(folder):
    return {int(path.name[6:11]) for path in folder.glob("shard-*")}


def asked(log_file):
    return [int(line) // SIZE for line in log_file.read_text().split()] if log_file.exists() else []


def killed(folder, log_file, seconds):
    """Start the sweep in a child, kill it after so many seconds; whether it was still at work."""
    child = os.fork()
    if child == 0:
        run(folder, log_file)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def many_kills(root, n_kills, seed):
    root.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    run(root / "alone", root / "alone.log")
    alone, twice, hit, rounds = time.monotonic() - begin, 0, 0, 0
    chance = random.Random(seed)
    while hit < n_kills:
        folder, log_file = root / f"killed{rounds}", root / f"killed{rounds}.log"
        for _ in range(5):  # several kills of the same sweep, then the end
            before, n_asked = finished(folder), len(asked(log_file))
            hit += killed(folder, log_file, chance.uniform(0, alone / 4))
            twice += len(before & set(asked(log_file)[n_asked:]))
        before, n_asked = finished(folder), len(asked(log_file))
        run(folder, log_file)
        twice += len(before & set(asked(log_file)[n_asked:]))
        whole = [(root / f"{name}.parquet").read_bytes() for name in ("alone", folder.name)]
        names = [sorted(path.name for path in (root / name).glob("*")) for name in ("alone", folder.name)]
        if whole[0] != whole[1] or names[0] != names[1]:
            sys.exit(f"seed {seed}, round {rounds}: the results differ")
        rounds += 1
    print(
        f"{hit} kills, {rounds} sweeps resumed to the same bytes, {twice} finished shards computed twice, seed {seed}"
    )
    sys.exit(twice > 0)


def memory(folder, n_shards):
    def megabytes(items):  # half a MB a shard
        return pd.DataFrame({"x": np.random.default_rng(items[0]).normal(size=2**16)})

    shards = sweep(megabytes, range(8 * n_shards), folder=folder, key={}, size=8)
    assert len({table["x"].sum() for table in shards}) == n_shards
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak // (1024 if sys.platform == "linux" else 2**20))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if sys.argv[2] == "memory":
        memory(place, int(sys.argv[3]))
    else:
        many_kills(place, int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
