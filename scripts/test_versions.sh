#!/usr/bin/env bash
# The tests of the seam with transformers, on its oldest supported and its newest release:
#   bash scripts/test_versions.sh                 5.10.* and the newest, the default tests
#   bash scripts/test_versions.sh 5.12.* 5.20.*   these releases
#   SLOW=1 bash scripts/test_versions.sh          all families too
# Each release has a virtual environment of its own in .venvs/, made the first time.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -gt 0 ] || set -- "5.10.*" ""
marks="not slow"
[ -z "${SLOW:-}" ] || marks="slow or not slow"
failed=()
for release in "$@"; do
    VENV="$ROOT/.venvs/transformers-${release:-newest}"
    VENV="${VENV//[^A-Za-z0-9_.\/-]/x}"
    make_venv
    wanted="transformers>=5.10"
    [ -z "$release" ] || wanted="transformers==$release"
    step "installing $wanted"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade \
        "$(grep '^torch==' "$ROOT/scripts/constraints.txt")" "$wanted" \
        accelerate safetensors omegaconf rich typer "pytest>=8" hypothesis \
        || die "the installation failed, see above"
    step "testing with transformers $("$VENV/bin/python" -c 'from importlib.metadata import version; print(version("transformers"))')"
    (cd "$ROOT" && "$VENV/bin/python" -m pytest tests/hf -m "$marks") || failed+=("${release:-newest}")
done
[ ${#failed[@]} -eq 0 ] || die "failed with transformers ${failed[*]}"
