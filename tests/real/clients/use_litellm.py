"""litellm against a server: words, a stream, a call, and JSON of a schema."""

import json
import sys

import litellm

address, model = sys.argv[1:]
asked = {
    "model": f"openai/{model}",
    "api_base": f"{address}/v1",
    "api_key": "any",
    "messages": [{"role": "user", "content": "What is 17 plus 25?"}],
    "max_tokens": 200,
}
COUNT = {"type": "integer", "minimum": 0, "maximum": 99}
SCHEMA = {
    "type": "object",
    "properties": {"a": COUNT, "b": COUNT},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "add", "description": "", "parameters": SCHEMA}}

assert litellm.completion(**asked | {"max_tokens": 8}).choices[0].message.content
chunks = litellm.completion(**asked | {"max_tokens": 8}, stream=True)
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
(call,) = (
    litellm.completion(**asked, tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    .choices[0]
    .message.tool_calls
)
assert call.function.name == "add"
assert json.loads(call.function.arguments).keys() == {"a", "b"}
wanted = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}
said = litellm.completion(**asked, response_format=wanted).choices[0].message.content
assert json.loads(said).keys() == {"a", "b"}
