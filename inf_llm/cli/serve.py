"""`inf-llm serve`: an OpenAI-compatible server with a chat page."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from inf_llm.cli.failures import UNEXPECTED, reported, say
from inf_llm.cli.options import (
    Address,
    Config,
    Debug,
    Engine,
    Force,
    Model,
    Overrides,
    configuration,
    path_option,
)
from inf_llm.cluster.options import cluster_of
from inf_llm.errors import ConfigError
from inf_llm.units import parse_bytes, size
from inf_llm.variants import CALLS

KEY = "INF_LLM_API_KEY"


@reported
def serve(
    config: Config = None,
    model: Model = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 8000,
    memory_budget: Annotated[
        str,
        typer.Option(
            "--memory-budget",
            help="Memory for texts, kept between requests and read: 8GiB, 500MB.  [default: 8GiB, "
            "or half of the machine's]",
        ),
    ] = "",
    api_key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--api-key", envvar=KEY, help="Key that clients must send."),
    ] = None,
    max_request_bytes: Annotated[
        str, typer.Option("--max-request-bytes", help="Largest request body: 16MiB.")
    ] = "16MiB",
    model_name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--model-name", help="The model's name for clients. Default: end of the path."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int,
        typer.Option(
            "--max-new-tokens", "-n", min=1, help="Longest answer where a request does not say."
        ),
    ] = 512,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, help="Most requests that wait.")
    ] = 256,
    max_active: Annotated[
        int, typer.Option("--max-active", min=1, help="Most requests that take turns.")
    ] = 64,
    reading_share: Annotated[
        float,
        typer.Option(
            "--reading-share",
            min=0.05,
            max=0.95,
            help="Part of the time for reading texts while questions are being answered.",
        ),
    ] = 0.5,
    memory_dir: Annotated[
        Optional[Path],  # noqa: UP045
        path_option(
            "--memory-dir",
            help="Folder where documents and long conversations outlive the server, as private "
            "as they are.",
        ),
    ] = None,
    disk_quota: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--disk-quota",
            help="Most that memories take in --memory-dir: 50GiB. Default: no limit.",
        ),
    ] = None,
    max_queue_per_client: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--max-queue-per-client",
            min=1,
            help="Most requests of one client that wait or are being answered. Default: half of "
            "--max-queue.",
        ),
    ] = None,
    max_connections: Annotated[
        int, typer.Option("--max-connections", min=1, help="Most connections at once.")
    ] = 512,
    forwarded_allow_ips: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--forwarded-allow-ips",
            help="Proxies whose X-Forwarded-For says who the client is: 127.0.0.1, 10.0.0.0/8, *.",
        ),
    ] = None,
    cors_origin: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--cors-origin",
            help="Origin of pages in browsers that may ask: http://localhost:3000, or * for any; "
            "may be repeated.",
        ),
    ] = None,
    allowed_host: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--allowed-host",
            help="Name that a server on a local address answers to beside localhost: "
            "host.docker.internal; may be repeated.",
        ),
    ] = None,
    tool_calls: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--tool-calls",
            help="How the model writes calls of functions: hermes, mistral, llama or bare. "
            "Default: as its chat template says.",
        ),
    ] = None,
    engine: Engine = "local",
    replicas: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--replicas",
            help="With --engine ray: how many, or the least and the most, 1-8; between these "
            "their number follows the tokens that wait.  [default: 1]",
        ),
    ] = None,
    address: Address = None,
    replica_cpus: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--replica-cpus", min=0.1, help="With --engine ray: cores of each.  [default: 1]"
        ),
    ] = None,
    replica_gpus: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--replica-gpus", min=0, help="With --engine ray: GPUs of each.  [default: 0]"
        ),
    ] = None,
    tokens_per_replica: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--tokens-per-replica",
            min=1,
            help="With --replicas 1-8: tokens that may wait for each before there is another.  "
            "[default: 50000]",
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", min=1, help="Seconds that requests have to finish after a stop signal."
        ),
    ] = 30.0,
    force: Force = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Serve a model to OpenAI clients, and a chat page at /.

    Texts that were read stay in memory, so a further question costs only its own tokens.
    """
    chosen = configuration(config, model, overrides)
    cluster = cluster_of(
        engine,
        replicas,
        address=address,
        cpus=replica_cpus,
        gpus=replica_gpus,
        tokens=tokens_per_replica,
    )
    budget = _budget(memory_budget, force, 1 if cluster is None else cluster.on_this_machine)
    largest = parse_bytes("--max-request-bytes", max_request_bytes)
    quota = None if disk_quota is None else parse_bytes("--disk-quota", disk_quota)
    if quota is not None and memory_dir is None:
        raise ConfigError("--disk-quota is for --memory-dir: give a folder, or leave it out")
    api_key = _key(api_key)
    if tool_calls is not None:
        CALLS.require(tool_calls)
    from inf_llm.serve import require_extra

    require_extra()
    from inf_llm.cli.serving import serve_here, serve_on_ray
    from inf_llm.serve.origins import checked_hosts, checked_origins
    from inf_llm.serve.start import ServeOptions
    from inf_llm.serve.web import listen, trusted_proxies

    allowed = forwarded_allow_ips
    options = ServeOptions(
        host,
        port,
        budget,
        api_key,
        largest,
        model_name,
        max_new_tokens,
        max_queue,
        max_active,
        reading_share,
        grace,
        memory_dir,
        quota,
        max_queue_per_client,
        max_connections,
        None if allowed is None else trusted_proxies("--forwarded-allow-ips", allowed),
        checked_origins("--cors-origin", cors_origin or ()),
        checked_hosts("--allowed-host", allowed_host or ()),
        tool_calls,
    )
    listening = listen(host, port)  # first: an error here saves loading a model
    with contextlib.closing(listening.socket):
        if cluster is None:
            in_time = serve_here(chosen, options, force, listening)
        else:
            in_time = serve_on_ray(chosen, options, cluster, force, listening)
    say("stopped" if in_time else "stopped before everything had ended")
    if not in_time:
        raise typer.Exit(UNEXPECTED)


def _key(given: str | None) -> str | None:
    """Return the key that clients must send.

    Typer ignores an empty environment variable. Here it is an error: a secret may be missing.
    """
    key = os.environ.get(KEY) if given is None else given
    if key is not None and not key.strip():
        raise ConfigError(f"--api-key ({KEY}) is empty: give a key, or leave it out")
    return key


def _budget(text: str, force: bool, replicas: int) -> int:
    """Return the memory budget of each replica on this machine, in bytes."""
    from inf_llm.plan.free import machine_bytes

    most = machine_bytes()
    if not text:
        return 8 << 30 if most is None else min(8 << 30, most // 2 // replicas)
    budget = parse_bytes("--memory-budget", text)
    if most is not None and budget > most and not force:
        raise ConfigError(
            f"--memory-budget is {size(budget)}, but this machine has {size(most)}: give less"
        )
    return budget
