#!/usr/bin/env bash
# Tests of the connection to transformers (tests/hf) and the demo, on the oldest supported and the
# newest release of transformers. All other packages but torch are of their newest releases.
#   bash scripts/test_versions.sh                 5.10.* and the newest, the default tests
#   bash scripts/test_versions.sh newest          the newest alone
#   bash scripts/test_versions.sh 5.12.* 5.20.*   these releases
#   SLOW=1 bash scripts/test_versions.sh          all families too
# Each release has a virtual environment of its own in .venvs/, made the first time. One whose packages
# are all of the same release in .venv is left out: scripts/test.sh tests those.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -gt 0 ] || set -- "5.10.*" newest
marks="not slow and not real"
[ -z "${SLOW:-}" ] || marks="not real"

install_release() { # RELEASE of transformers, all else but torch unconstrained
    local wanted="transformers"
    [ "$1" = newest ] || wanted="transformers==$1"
    (cd "$ROOT" && "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        --upgrade --upgrade-strategy eager "$(torch_pin)" "$wanted" --editable ".[faiss,gguf]" \
        "pytest>=8" "pytest-timeout>=2.3" "pytest-xdist>=3.5" "hypothesis>=6.100") \
        || die "the installation failed, see above"
}

versions() {
    "$VENV/bin/python" -c 'import sys; from importlib.metadata import version
print("Python", sys.version.split()[0], *(f"{n} {version(n)}" for n in ("torch", "transformers")))'
}

packages() { # PYTHON: its packages with their releases, without those that only install others
    "$1" -c 'from importlib.metadata import distributions
found = {f"{each.name}=={each.version}" for each in distributions()}
print(*sorted(each for each in found if not each.startswith(("pip==", "setuptools=="))), sep="\n")'
}

is_tested() { # has .venv every package of this release's environment?
    [ -x "$ROOT/.venv/bin/python" ] \
        && [ -z "$(LC_ALL=C comm -23 <(packages "$VENV/bin/python") <(packages "$ROOT/.venv/bin/python"))" ]
}

test_release() {
    # two processes of one thread do more than two of two, as in scripts/test.sh
    (cd "$ROOT" && OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE "$VENV/bin/python" -m pytest tests/hf \
        -m "$marks" --numprocesses 2)
}

failed=()
for release in "$@"; do
    VENV="$ROOT/.venvs/transformers-${release//[^A-Za-z0-9._-]/x}"
    make_venv
    timed "installing transformers $release" install_release "$release"
    with="$(versions)"
    if is_tested; then
        step "$with, and all that it needs, is what scripts/test.sh tests in .venv"
        continue
    fi
    timed "the seam with $with" test_release || failed+=("transformers $release: tests/hf")
    timed "the demo with $with" "$VENV/bin/inf-llm" demo --lengths 4k \
        || failed+=("transformers $release: inf-llm demo")
done
[ ${#failed[@]} -eq 0 ] || die "failed: $(printf '%s; ' "${failed[@]}")"
