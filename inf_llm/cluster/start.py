"""Start of replicas on a Ray cluster, and of a front that forwards requests to them."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import inf_llm
from inf_llm.cluster.connection import connect
from inf_llm.cluster.options import Cluster
from inf_llm.config import RunConfig
from inf_llm.errors import ConfigError
from inf_llm.optional import need
from inf_llm.serve.log_limit import limit_logs
from inf_llm.serve.start import ServeOptions
from inf_llm.serve.web import Listening, WebServer, most_connections

NAME = "inf-llm"


def deploy(config: RunConfig, options: ServeOptions, cluster: Cluster) -> Any:
    """Start replicas, or use the running replicas if these have the same settings.

    Running replicas with other settings are replaced one after another; each ends after its
    requests or its grace period.

    Returns:
        A Ray Serve handle of `Replica`s.

    Raises:
        MissingExtraError: ray is not installed.
        SettingsError: there is no cluster at the address.
        ConfigError: the replicas do not start.
    """
    ray = need("ray", "--engine ray", extra="ray")
    serve = need("ray.serve", "--engine ray", extra="ray")
    connect(ray, cluster.address or "local")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options={"location": "NoServer"})
    config, options = _on_any_machine(config, options)
    digest = _digest(config, options, cluster)
    running = _running(serve)
    if running is not None and running.digest.remote().result() == digest:
        return running
    replicas = _replicas(serve, cluster, options).bind(config, options, digest)
    try:
        return serve.run(replicas, name=NAME, route_prefix=None)
    except RuntimeError as error:
        raise ConfigError(f"the replicas did not start: {_cause(serve) or error}") from error


def _running(serve: Any) -> Any:
    """Return a handle of the running replicas; None if there are none."""
    there = serve.status().applications.get(NAME)
    return serve.get_app_handle(NAME) if there and there.status == "RUNNING" else None


def _replicas(serve: Any, cluster: Cluster, options: ServeOptions) -> Any:
    """Return the Ray Serve deployment of the replicas."""
    from inf_llm.cluster.replica import Replica
    from inf_llm.cluster.router import MemoryRouter

    return serve.deployment(
        Replica,
        name=NAME,
        max_ongoing_requests=options.queue + options.at_once,
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=options.grace,
        ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": cluster.gpus},
        request_router_config={
            "request_router_class": MemoryRouter,
            "request_router_kwargs": {"folder": options.memory_dir and str(options.memory_dir)},
        },
        **_count(cluster),
    )


def _count(cluster: Cluster) -> dict[str, Any]:
    """Return the number of replicas as options of Ray Serve."""
    if cluster.most == cluster.least:
        return {"num_replicas": cluster.least}
    from inf_llm.cluster.scaling import ByTokens

    policy = {"policy_function": ByTokens, "policy_kwargs": {"tokens": cluster.tokens}}
    bounds = {"min_replicas": cluster.least, "max_replicas": cluster.most}
    return {"autoscaling_config": {**bounds, "policy": policy}}


def serve_front(
    handle: Any, options: ServeOptions, on_ready: Callable[[str], None], listening: Listening
) -> bool:
    """Forward requests to replicas until a signal arrives; return whether the front had started.

    Args:
        handle: from `deploy`.
        options: options of the server.
        on_ready: called with the front's address once clients can reach it.
        listening: a socket that listens already.

    Raises:
        ConfigError: too few files may be open at once.
    """
    from inf_llm.cluster.front import Front

    limit_logs()
    front = Front(handle, options.request_bytes)
    connections = most_connections(options.connections)
    server = WebServer(front, listening, on_ready, options.grace, connections, options.proxies)
    server.run()
    return bool(server.started)


def stop() -> None:
    """Stop the replicas, and the cluster of this machine."""
    serve, ray = need("ray.serve", "--engine ray"), need("ray", "--engine ray")
    serve.shutdown()
    ray.shutdown()


def _on_any_machine(config: RunConfig, options: ServeOptions) -> tuple[RunConfig, ServeOptions]:
    """Return the settings of replicas: absolute paths, and no options of the front.

    Replicas run in other working directories.
    """
    folder = Path(config.model.path)
    if folder.exists():
        config = replace(config, model=replace(config.model, path=str(folder.resolve())))
    if options.memory_dir is not None:
        options = replace(options, memory_dir=options.memory_dir.resolve())
    return config, replace(options, port=0, proxies=None)


def _digest(*settings: Any) -> str:
    text = "\n".join([inf_llm.__version__, *map(repr, settings)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cause(serve: Any) -> str:
    """Return the error of a failed replica, from Ray Serve's traceback; empty if unknown."""
    there = serve.status().applications.get(NAME)
    shown = [each.message for each in there.deployments.values()] if there else []
    causes = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): (.+)$", "\n".join(shown), re.MULTILINE)
    return str(causes[-1]) if causes else ""
