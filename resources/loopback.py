"""Ports of this machine that no other machine reaches."""

import socket

ASSISTANT_PORT = 8767  # where `make serve` listens, unless somebody else does


def listening(port: int) -> socket.socket | None:
    """Return a socket that listens on loopback at `port`, 0 for any that is free; None where it is taken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # The connections of the server before this one linger for a minute, and would keep its port from it.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(("127.0.0.1", port))
        found.listen()
    except (OSError, OverflowError):
        found.close()
        return None
    return found
