"""Run by `test_engines.py` in a process of its own: a sweep on four Ray workers, two of which are killed at work.

python ray_sweep.py FOLDER      leaves in FOLDER/said.json what was begun, by whom, and who was killed
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
import ray

from mmn_utils.sweeps import sweep

N_ITEMS, SIZE, N_WORKERS, N_KILLED = 120, 3, 4, 2


def computed(items):
    return pd.DataFrame({"item": items, "x": [i**0.5 for i in items]})


def begun(log):
    return [tuple(map(int, line.split())) for line in log.read_text().splitlines()] if log.exists() else []


def kill_two(log, killed):
    """Kill two workers, each while it computes its second shard or a later one, all four being at work."""
    while len(killed) < N_KILLED:
        time.sleep(0.02)
        pids = [pid for pid, _ in begun(log)]
        at_work = [pid for pid in set(pids) - set(killed) if pids.count(pid) > 1]
        if at_work and len(set(pids)) >= N_WORKERS:
            killed.append(at_work[0])
            os.kill(at_work[0], signal.SIGKILL)


def main(root):
    log, killed = root / "log", []

    def slowly(items):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {items[0] // SIZE}\n")
        time.sleep(0.15)
        return computed(items)

    ray.init(num_cpus=N_WORKERS, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    killer = threading.Thread(target=kill_two, args=(log, killed), daemon=True)
    killer.start()
    found = sweep(slowly, range(N_ITEMS), folder=root / "ray", key={}, size=SIZE, engine="ray")
    killer.join(timeout=5)
    alone = sweep(computed, range(N_ITEMS), folder=root / "alone", key={}, size=SIZE)
    same = found.table().equals(alone.table())
    said = {"begun": begun(log), "killed": killed, "same": same, "bad": found.bad}
    (root / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
