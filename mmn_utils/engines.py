"""What computes the shards of a sweep (`sweeps.py`): this process, or the workers of a Ray cluster.

An engine takes a job and the shards, and gives what the job makes of each shard, in any order, each one once.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmn_utils.sweeps import Finished, Shard

    Job = Callable[[Shard], Finished]


class SweepError(RuntimeError):
    """A sweep that cannot go on, or whose files are not what they should be; the message says what to do."""


MOST_DEATHS = 3
"""How often one shard may take its worker with it before the sweep gives up."""


def in_process(job: "Job", shards: "Iterable[Shard]") -> "Iterator[Finished]":
    """One shard after the other, here."""
    return map(job, shards)


def by_ray(job: "Job", shards: "Iterable[Shard]") -> "Iterator[Finished]":
    """One Ray worker for each GPU of the cluster (for each processor, if it has none), one shard at a time each.

    The cluster is the one that the environment variable `RAY_ADDRESS` names; without it, this machine. The job goes to
    each worker once, models and all. If a worker dies, its shard goes back to the others and a new worker is asked for.

    Raises:
        SweepError: Ray is not installed, or a shard killed `MOST_DEATHS` workers.
    """
    todo, deaths, running = deque(shards), Counter(), {}
    if not todo:
        return
    ray, new_worker, n_workers = _cluster(job)
    idle = [new_worker() for _ in range(min(n_workers, len(todo)))]
    while todo or running:
        while todo and idle:
            shard, worker = todo.popleft(), idle.pop()
            running[worker.compute.remote(shard)] = shard, worker
        (ready,), _ = ray.wait(list(running), num_returns=1)
        shard, worker = running.pop(ready)
        try:
            yield ray.get(ready)
            idle.append(worker)
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
            deaths[shard.number] += 1
            _check_deaths(deaths[shard.number], shard, error)
            todo.appendleft(shard)
            idle.append(new_worker())


def _cluster(job: "Job") -> tuple[Any, Callable[[], Any], int]:
    """Ray, what starts a worker, and how many the cluster has room for."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise SweepError("the profile says `engine: ray`: pip install 'mmn-utils[ray]', or say in-process") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    room = ray.cluster_resources()
    each = {"num_gpus": 1} if room.get("GPU") else {"num_cpus": 1}
    held, worker = ray.put(job), ray.remote(**each)(_Worker)
    return ray, lambda: worker.remote(held), int(room.get("GPU") or room["CPU"])


class _Worker:
    """An actor that holds the job."""

    def __init__(self, job: "Job") -> None:
        self.job = job

    def compute(self, shard: "Shard") -> "Finished":
        return self.job(shard)


def _check_deaths(n_deaths: int, shard: "Shard", error: Exception) -> None:
    if n_deaths >= MOST_DEATHS:
        raise SweepError(
            f"shard {shard.number} (items {shard.items[0]!r} to {shard.items[-1]!r}) took {n_deaths} workers with it, "
            f"often for want of memory: choose smaller shards. Ray says: {error}"
        ) from error


ENGINES = {"in-process": in_process, "ray": by_ray}
