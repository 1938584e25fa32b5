"""Clients as people use them against `inf-llm serve` with a real model."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra 'serve'")
pytest.importorskip("llguidance", reason="needs the extra 'structured'")

from pydantic import BaseModel, Field

from benchmark.schemas import SCHEMAS
from tests.real.models import MEMORY, MODELS, ROOT
from tests.serve.conftest import ServerProcess, start

jsonschema = pytest.importorskip("jsonschema", reason="needs the extra 'dev'")

CLIENTS = Path(os.environ.get("INF_LLM_CLIENTS") or ROOT / ".venv-clients") / "bin" / "python"
SCRIPTS = sorted((Path(__file__).parent / "clients").glob("use_*.py"))
ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "add", "description": "Add two numbers", "parameters": ADD},
    }
]


class Sum(BaseModel):
    """Two numbers and a remark."""

    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)
    remark: str | None = Field(max_length=40)


ON_RAY = ("--engine", "ray", "--replicas", "2", "--replica-cpus", "0.5")


@pytest.fixture(scope="module", params=["smollm2", "qwen", "smollm2-replicas"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Without a template for functions, with one, and two replicas."""
    name, _, on_ray = request.param.partition("-")
    if on_ray:
        pytest.importorskip("ray.serve", reason="needs the extra 'ray'")
    rows = {"type": "inf-llm", "path": MODELS[name].folder, "dtype": "auto", **MEMORY}
    config = tmp_path_factory.mktemp("served") / f"{name}.yaml"
    config.write_text("model:\n" + "".join(f"  {key}: {value}\n" for key, value in rows.items()))
    running = start(config, *(ON_RAY if on_ray else ()))
    yield running
    running.stop()


def test_a_loop_of_two_calls(server: ServerProcess) -> None:
    client: Any = server.client(timeout=300)
    messages: list[Any] = [
        {"role": "system", "content": "You add numbers with the function add."},
        {"role": "user", "content": "What is 17 plus 25? Then add 100 to the result."},
    ]
    asked = {"model": server.model, "tools": TOOLS, "max_tokens": 100}
    for _ in range(2):
        answer = client.chat.completions.create(
            **asked, messages=messages, tool_choice="required", parallel_tool_calls=False
        ).choices[0]
        assert answer.finish_reason == "tool_calls"
        (call,) = answer.message.tool_calls
        given = json.loads(call.function.arguments)
        result = {"role": "tool", "tool_call_id": call.id, "content": str(given["a"] + given["b"])}
        messages += [answer.message, result]
    stream = client.chat.completions.create(
        **asked | {"max_tokens": 12}, messages=messages, tool_choice="none", stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream).strip()


def test_a_call_of_its_own_will(server: ServerProcess) -> None:
    """Qwen calls; a model whose template has no functions answers in words."""
    answer = server.client(timeout=300).chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": "What is 17 plus 25? Use the tool."}],
        tools=TOOLS,
        max_tokens=40,
    )
    message = answer.choices[0].message
    if server.model == "qwen":
        assert message.tool_calls is not None
        assert json.loads(message.tool_calls[0].function.arguments) == {"a": 17, "b": 25}
    else:
        assert message.content


def test_models_of_pydantic(server: ServerProcess) -> None:
    client = server.client(timeout=300)
    said: Any = [{"role": "user", "content": "Give two numbers and a remark as JSON."}]
    chat = client.chat.completions.parse(
        model=server.model, messages=said, response_format=Sum, max_tokens=120
    )
    assert isinstance(chat.choices[0].message.parsed, Sum)
    response = client.responses.parse(
        model=server.model, input=said, text_format=Sum, max_output_tokens=120
    )
    assert isinstance(response.output_parsed, Sum)


def test_responses(server: ServerProcess) -> None:
    client: Any = server.client(timeout=300)
    asked = {"model": server.model, "instructions": "Be brief.", "max_output_tokens": 12}
    whole = client.responses.create(**asked, input="Name a colour.")
    assert whole.output_text.strip()
    with client.responses.stream(**asked, input="Name a colour.") as stream:
        events = list(stream)
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text == whole.output_text
    tool = {"type": "function", **TOOLS[0]["function"]}
    called = client.responses.create(
        **asked | {"max_output_tokens": 100, "tools": [tool], "parallel_tool_calls": False},
        input="What is 17 plus 25?",
        tool_choice="required",
    )
    (item,) = called.output
    result = {"type": "function_call_output", "call_id": item.call_id, "output": "42"}
    history = [{"role": "user", "content": "What is 17 plus 25?"}, item, result]
    assert client.responses.create(**asked, input=history, tools=[tool]).output_text is not None


@pytest.mark.parametrize("name", SCHEMAS)
def test_answers_fit_their_schemas(server: ServerProcess, name: str) -> None:
    request, schema = SCHEMAS[name]
    inner: Any = {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
    answer = server.client(timeout=300).chat.completions.create(
        model=server.model,
        messages=[{"role": "user", "content": f"{request} Answer with JSON."}],
        response_format=inner,
        temperature=1,
        seed=0,
        n=2,
        max_tokens=200,
    )
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content or ""), schema)
    # a schema that refers to itself lets a small model go on for ever
    assert name == "reference" or any(each.finish_reason == "stop" for each in answer.choices)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_clients_of_other_projects(server: ServerProcess, script: Path) -> None:
    package = {"use_langchain": "langchain_openai"}.get(script.stem, script.stem[4:])
    has = [str(CLIENTS), "-c", f"import {package}"]
    if not CLIENTS.exists() or subprocess.run(has, capture_output=True, check=False).returncode:
        absent = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        absent(f"no {package} in {CLIENTS.parent.parent}: bash scripts/client_tests.sh")
    command = [str(CLIENTS), str(script), server.address, server.model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
