"""Ports that the programs listen on."""

from __future__ import annotations

import os
import socket

from worker.errors import ConfigurationError


def require_free(variable: str, address: str, port: int) -> None:
    """Tries whether this process could listen there, before a library ends it with a traceback.

    Args:
        variable: the setting that the port comes from.
        address: of this host, IPv4, IPv6 or a name.
        port: 0 for any.

    Raises:
        ConfigurationError: it could not; says why, and what to change.
    """
    try:
        socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET).close()
    except OSError as error:
        # What cannot be resolved has a number below zero, or none.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else f"{address} is no address of this host"
        raise ConfigurationError(
            f"{variable}: nothing can listen on {address}, port {port} ({why}); stop the program that does, or set "
            f"another {variable}"
        ) from None
