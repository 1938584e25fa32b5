"""langchain against a server: words, a stream, bound tools, and structured output both ways."""

import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

address, model = sys.argv[1:]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Sum(BaseModel):
    """Two numbers."""

    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)


chat = ChatOpenAI(model=model, base_url=f"{address}/v1", api_key="any", max_tokens=200, timeout=300)
question = HumanMessage("What is 17 plus 25?")
assert (
    ChatOpenAI(model=model, base_url=f"{address}/v1", api_key="any", max_tokens=8)
    .invoke([question])
    .content
)
assert "".join(chunk.content for chunk in chat.bind(max_tokens=8).stream([question]))
caller = chat.bind_tools([add], tool_choice="any", parallel_tool_calls=False)
answer = caller.invoke([question])
(call,) = answer.tool_calls
assert call["name"] == "add"
result = ToolMessage("42", tool_call_id=call["id"])
assert chat.bind_tools([add]).bind(max_tokens=8).invoke([question, answer, result])
for method in ("json_schema", "function_calling"):
    made = chat.with_structured_output(Sum, method=method).invoke([question])
    assert isinstance(made, Sum), method
