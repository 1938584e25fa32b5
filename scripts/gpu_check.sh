#!/usr/bin/env bash
# What a CPU cannot show, on the first CUDA device, within eight minutes:
#   bash scripts/gpu_check.sh [--json FILE]
# All four types, the kernels against the reference, pinned copies, every choice of a setting, saved
# memories, answers given together, decoding behind 32k tokens, and a preset of benchmark/speed.py.
# Leaves one JSON file, gpu_check.json by default. Uses the Python that PYTHON names
# where it has all that is needed, else .venv, which it makes.
# Exit codes: 0 all passed, 1 something did not, 2 there is no CUDA device.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

has_gpu() { command -v nvidia-smi >/dev/null || compgen -G '/dev/nvidia[0-9]*' >/dev/null || [ -e /dev/dxg ]; }
is_ready() { "$1" -c 'import torch, transformers, accelerate, omegaconf, typer, rich
assert torch.cuda.is_available()' >/dev/null 2>&1; }

has_gpu || { echo "error: there is no CUDA device here: no driver (nvidia-smi) and no /dev/nvidia*" >&2; exit 2; }
python="$(find_python)"
if ! is_ready "$python"; then
    install ""
    python="$VENV/bin/python"
fi
PYTHONPATH="$ROOT:$ROOT/scripts${PYTHONPATH:+:$PYTHONPATH}" timeout --signal=INT 480 "$python" "$ROOT/scripts/gpu_check" "$@"
