"""`inf-llm serve`: an OpenAI-compatible server with a chat page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from inf_llm.cli.failures import UNEXPECTED, reported, say
from inf_llm.cli.options import Config, Debug, Force, Model, Overrides, configuration, load_aloud
from inf_llm.errors import ConfigError
from inf_llm.units import parse_bytes, size


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
            "--memory-budget", help="Memory for texts kept between requests: 8GiB, 500MB."
        ),
    ] = "8GiB",
    api_key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--api-key", envvar="INF_LLM_API_KEY", help="Key that clients must send."),
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
        typer.Option(
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
    budget = parse_bytes("--memory-budget", memory_budget)
    largest = parse_bytes("--max-request-bytes", max_request_bytes)
    quota = None if disk_quota is None else parse_bytes("--disk-quota", disk_quota)
    if quota is not None and memory_dir is None:
        raise ConfigError("--disk-quota is for --memory-dir: give a folder, or leave it out")
    if api_key is not None and not api_key.strip():
        raise ConfigError("--api-key is empty: give a key, or leave it out")
    from inf_llm.serve import require_extra

    require_extra()
    from inf_llm.serve.start import ServeOptions, build
    from inf_llm.serve.start import serve as serve_until_stopped

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
    )
    loaded, tokenizer = load_aloud(chosen, force)
    application = build(loaded, tokenizer, chosen, options)
    refused = application.engine.try_out()
    if refused is not None:
        say(f"chats will be refused: {refused}")

    def on_ready(address: str) -> None:
        say(f"serving {application.limits.model} at {address}, texts kept in {size(budget)}")
        if not application.limits.local and api_key is None:
            say("other computers can reach this address, and no --api-key protects it")

    in_time = serve_until_stopped(application, options, on_ready)
    say("stopped" if in_time else "stopped before everything had ended")
    if not in_time:
        raise typer.Exit(UNEXPECTED)
