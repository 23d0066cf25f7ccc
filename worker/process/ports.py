"""Checks the ports on which the programs listen."""

from __future__ import annotations

import errno
import os
import socket

from worker.errors import ConfigurationError


def require_free(variable: str, address: str, port: int) -> None:
    """Checks whether this process can listen on a port, so that a library does not fail later with a traceback.

    Args:
        variable: the setting that has the port.
        address: an address of this host: IPv4, IPv6 or a name.
        port: the port; 0 for any free one.

    Raises:
        ConfigurationError: it cannot listen there; the text says why and what to change.
    """
    try:
        socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why, mend = os.strerror(errno.EADDRINUSE), f"stop the program that uses it, or set another {variable}"
        else:
            why = "no address of this host"
            mend = f"set {variable.replace('_PORT', '_ADDRESS')} to one, for example 127.0.0.1"
            if error.errno == errno.EACCES:
                why, mend = os.strerror(errno.EACCES), f"set {variable} to a port above 1023"
        raise ConfigurationError(f"{variable}: nothing can listen on {address}, port {port} ({why}); {mend}") from None
