"""A server in this process, or a front that forwards requests to replicas on Ray."""

from __future__ import annotations

from collections.abc import Callable

from inf_llm.cli.failures import say
from inf_llm.cli.options import load_with_progress
from inf_llm.cluster.options import Cluster
from inf_llm.config import RunConfig
from inf_llm.plan.refuse import require_room
from inf_llm.serve.heap import bound_heap
from inf_llm.serve.start import ServeOptions, build, served_name
from inf_llm.serve.start import serve as serve_until_stopped
from inf_llm.serve.web import Listening, is_local
from inf_llm.units import size


def serve_here(config: RunConfig, options: ServeOptions, force: bool, listening: Listening) -> bool:
    """Load a model and serve it until a signal arrives; return whether all jobs ended in time."""
    bound_heap()
    model, tokenizer = load_with_progress(config, force)
    application = build(model, tokenizer, config, options)
    refused = application.engine.try_out()
    if refused is not None:
        say(f"chats will be refused: {refused}")
    return serve_until_stopped(application, options, _ready(config, options), listening)


def serve_on_ray(
    config: RunConfig, options: ServeOptions, cluster: Cluster, force: bool, listening: Listening
) -> bool:
    """Start replicas, forward requests until a signal arrives; return whether the front started."""
    from inf_llm.cluster.start import deploy, serve_front, stop

    if cluster.address is None and not force:
        require_room(config)
    say(f"starting {cluster.description} of {config.model.path}")
    handle = deploy(config, options, cluster)
    try:
        return serve_front(handle, options, _ready(config, options), listening)
    finally:
        if cluster.address is None:
            stop()
        else:
            say(f"the replicas at {cluster.address} go on: the same command takes them up again")


def _ready(config: RunConfig, options: ServeOptions) -> Callable[[str], None]:
    def say_so(address: str) -> None:
        kept = size(options.memory_budget)
        say(f"serving {served_name(config, options)} at {address}, texts kept in {kept}")
        if not is_local(options.host) and options.api_key is None:
            say("other computers can reach this address, and no --api-key protects it")

    return say_so
