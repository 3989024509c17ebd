"""Run a command where there is no network: `unshare --net --map-root-user python tests/without_network.py COMMAND ...`.

A fresh network namespace has nothing but a loopback device, which is down; kernels talk through it, so it is set up
first. Then no other address can be reached, which is tried before the command starts.
"""

import fcntl
import os
import socket
import struct
import sys

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
ELSEWHERE = ("192.0.2.1", 443)
"""An address for documentation (RFC 5737)."""


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        flags = struct.unpack("16sH14x", request)[1] | IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags))


def main() -> None:
    loopback_up()
    others = {name for _, name in socket.if_nameindex()} - {"lo"}
    with socket.socket() as attempt:
        attempt.settimeout(5)
        reached = attempt.connect_ex(ELSEWHERE) == 0
    if others or reached:
        sys.exit(f"there is a network here: {', '.join(sorted(others)) or ELSEWHERE[0]}")
    print("without network", flush=True)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
