"""The connection to a Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Any

from inf_llm.errors import SettingsError, reason

SECONDS = 10.0
"""In which a cluster answers; Ray itself would try for minutes."""


def connect(ray: Any, address: str | None) -> None:
    """Connect this process, unless it is connected.

    Args:
        ray: the module.
        address: HOST:PORT, "auto" for the cluster of this machine, "local" for one that ends with
            the process, None for what RAY_ADDRESS says.

    Raises:
        SettingsError: there is no cluster.
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
    """See that a cluster may be there.

    Raises:
        SettingsError: nothing listens at HOST:PORT, or it is another kind of address.
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
    """Actors import this package from where the driver did."""
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}}
