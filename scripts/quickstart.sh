#!/usr/bin/env bash
# From a fresh checkout to a model that reads a text hundreds of times longer than it was trained for:
#   bash scripts/quickstart.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

install ""
cd "$ROOT"

step "inf-llm demo: needles in haystacks, four kinds of attention (the model was trained on 512 tokens)"
"$VENV/bin/inf-llm" demo --lengths 4k,32k

book="$VENV/quickstart.txt"
step "a whole book, with one sentence about a pass key hidden in it: $book"
"$VENV/bin/python" - "$book" <<'PYTHON'
import sys
from pathlib import Path

from inf_llm.demo import haystack_text

words = haystack_text().split(" ")
words.insert(len(words) // 3, "The pass key is 48213. Remember it. 48213 is the pass key.")
Path(sys.argv[1]).write_text(" ".join(words), encoding="utf-8")
PYTHON

step "inf-llm run --config config/demo-inf-llm.yaml --file BOOK --prompt 'What is the pass key? ...'"
"$VENV/bin/inf-llm" run --config config/demo-inf-llm.yaml --file "$book" \
    --prompt "What is the pass key? The pass key is" --max-new-tokens 8 conv_type=plain

cat >&2 <<'TEXT'

To go on:
  source .venv/bin/activate
  inf-llm --help
  inf-llm run --config smollm2 --file BOOK.txt --prompt "Who is ...?"
TEXT
