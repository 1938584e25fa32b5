#!/usr/bin/env bash
# From a fresh checkout to a model that reads a text many times longer than it was trained for:
#   bash scripts/quickstart.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

install ""
cd "$ROOT"

book="$VENV/quickstart.txt"
find inf_llm -name '*.py' -exec cat {} + > "$book.all"  # any text will do
head -c 20000 "$book.all" > "$book"

if [ -f inf_llm/assets/demo/config.json ] && [ -f config/demo-inf-llm.yaml ]; then
    config=config/demo-inf-llm.yaml
    model=demo
else
    config=config/tiny-inf-llm.yaml
    model="$VENV/tiny-model"
    step "making a tiny model with random weights"
    [ -f "$model/config.json" ] || "$VENV/bin/python" scripts/make_tiny_checkpoint.py "$model"
fi

step "inf-llm run --config $config --file $book --prompt ..."
"$VENV/bin/inf-llm" run --config "$config" --model "$model" --file "$book" \
    --prompt "What is a block?" --max-new-tokens 32

cat >&2 <<TEXT

It works. To go on:
  source .venv/bin/activate
  inf-llm run --help
  inf-llm run --config config/llama-3.2-inf-llm.yaml --file BOOK.txt --prompt "Who is ...?"
TEXT
