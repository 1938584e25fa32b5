"""The connection to a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Any

from inf_llm.errors import SettingsError, reason

SECONDS = 10.0
"""Time limit of a connection attempt; Ray itself would try for minutes."""


def connect(ray: Any, address: str | None) -> None:
    """Connect this process to a Ray cluster, unless it is connected.

    Args:
        ray: the module `ray`.
        address: HOST:PORT, "auto" for the cluster of this machine, "local" for a cluster that ends
            with the process, None for the value of RAY_ADDRESS.

    Raises:
        SettingsError: there is no cluster at the address.
    """
    if ray.is_initialized():
        return
    if address is not None:
        check_address(address)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=_runtime())
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"--address {address}: there is no cluster ({reason(error)})"
        ) from error


def check_address(address: str) -> None:
    """Check that an address may be that of a cluster.

    Raises:
        SettingsError: nothing listens at HOST:PORT, or the address is one for Ray's client (://).
    """
    if "://" in address:
        raise SettingsError(
            f"--address {address!r}: Ray's client cannot pass on what comes piece by piece: start "
            "this on a machine of the cluster, with --address auto or HOST:PORT"
        )
    if ":" not in address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(
            f"--address {address}: no cluster answers there ({reason(error)}); start one with "
            "'ray start --head', or leave the option out for one of this machine alone"
        ) from None


def _runtime() -> dict[str, Any]:
    """Return the environment of actors, which import this package from the driver's path."""
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}}
