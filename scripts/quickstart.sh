#!/usr/bin/env bash
# From a fresh checkout to a model that reads a text many times longer than it was trained for:
#   bash scripts/quickstart.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

install ""
cd "$ROOT"

book="$VENV/quickstart.txt"
step "writing a text of 20,000 tokens with a pass key at a third of it"
key="$("$VENV/bin/python" - "$book" <<'PY'
import pathlib, sys
from transformers import AutoTokenizer
from inf_llm.needles import build
tokenizer = AutoTokenizer.from_pretrained("inf_llm/assets/demo")
sample = build("passkey", tokenizer, length=20_000, depth=0.33, seed=1)
pathlib.Path(sys.argv[1]).write_text(sample.context, encoding="utf-8")
print(sample.answers[0])
PY
)"

question="What is the pass key? The pass key is"
step "inf-llm run --config config/demo-inf-llm.yaml --file $book --prompt \"$question\""
"$VENV/bin/inf-llm" run --config config/demo-inf-llm.yaml --file "$book" \
    --prompt "$question" --max-new-tokens 8 conv_type=plain

cat >&2 <<TEXT

The key in the text is $key; the model was trained at 512 tokens. To go on:
  source .venv/bin/activate
  inf-llm run --help
  inf-llm run --config config/llama-3.2-inf-llm.yaml --file BOOK.txt --prompt "Who is ...?"
TEXT
