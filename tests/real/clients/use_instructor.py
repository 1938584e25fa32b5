"""instructor against a server: a model of pydantic by a call and by JSON of a schema."""

import sys

import instructor
from openai import OpenAI
from pydantic import BaseModel, Field

address, model = sys.argv[1:]


class Sum(BaseModel):
    """Two numbers."""

    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)


client = OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    made = instructor.from_openai(client, mode=mode).chat.completions.create(
        model=model,
        response_model=Sum,
        messages=[{"role": "user", "content": "What is 17 plus 25?"}],
        max_tokens=200,
        max_retries=0,
    )
    assert isinstance(made, Sum), mode
