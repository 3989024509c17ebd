"""The kernel that runs a chapter: IPython's own, with a list of what it reads and of the memory it took.

Started by the engine as `python -m mmn_utils.kernel -f CONNECTION_FILE`. Each file opened for reading is written,
once, to the file that `MMN_READS` names; the engine keeps those that the chapter's freshness depends on
(`freshness.py`). When the kernel ends, the most memory it held is written to `peak` beside that file.
"""

import os
import resource
import sys
from pathlib import Path
from typing import Any

from mmn_utils.results import READ_EVENT

READS_VARIABLE = "MMN_READS"
PEAK = "peak"


def record_reads(log: int) -> None:
    """From now on, write the path of each file that this process opens for reading to the file descriptor `log`."""
    seen: set[str] = set()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", READ_EVENT) or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and _writes(arguments[2]):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path not in seen:
            seen.add(path)
            os.write(log, path.encode(errors="surrogateescape") + b"\0")

    sys.addaudithook(hook)


def _writes(flags: Any) -> bool:
    return isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR) != 0


def peak_memory() -> int:
    """Bytes of memory that this process has held at its largest."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Start the kernel; the arguments are those of `ipykernel_launcher`."""
    from ipykernel.kernelapp import launch_new_instance

    reads = os.environ.get(READS_VARIABLE)
    if reads:
        record_reads(os.open(reads, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))
    launch_new_instance()
    if reads:
        Path(reads).with_name(PEAK).write_text(str(peak_memory()))


if __name__ == "__main__":
    main()
