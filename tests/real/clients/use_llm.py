"""The command `llm` against a server that extra-openai-models.yaml names."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

address, model = sys.argv[1:]
folder = Path(tempfile.mkdtemp())
(folder / "extra-openai-models.yaml").write_text(
    f"- model_id: local\n  model_name: {model}\n  api_base: {address}/v1\n  api_key_name: local\n"
    "  supports_schema: true\n  supports_tools: true\n"
)
(folder / "keys.json").write_text('{"local": "any"}')


def llm(*words: str) -> str:
    command = [sys.executable, "-m", "llm", *words, "-m", "local"]
    environment = os.environ | {"LLM_USER_PATH": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


assert llm("Hello", "-o", "max_tokens", "8").strip()
assert llm("Hello", "-o", "max_tokens", "8", "--no-stream").strip()
said = llm("What is 17 plus 25?", "--schema", "yes bool", "-o", "max_tokens", "200")
assert json.loads(said).keys() == {"yes"}
