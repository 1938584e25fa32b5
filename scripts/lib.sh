# Shared by the scripts here: a virtual environment in .venv, made once and brought up to date only
# when what it depends on changes. Needs Python 3.10+ with pip, nothing else.
#
# PYTHON=/path/to/python chooses the interpreter.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"

step() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

timed() { # timed NAME COMMAND ...: runs it as a step, and says how long it took
    local name="$1" begun="$SECONDS" code=0
    shift
    step "$name"
    "$@" || code=$?
    printf -- '-- %s: %d min %d s%s\n' "$name" $(((SECONDS - begun) / 60)) $(((SECONDS - begun) % 60)) \
        "$([ "$code" = 0 ] || printf ', failed with exit code %d' "$code")" >&2
    return "$code"
}

is_fit() { # a Python of 3.10 or later?
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

find_python() {
    local name
    if [ -n "${PYTHON:-}" ]; then
        is_fit "$PYTHON" || die "PYTHON=$PYTHON is not a Python of version 3.10 or later"
        printf '%s\n' "$PYTHON"
        return
    fi
    for name in python3.12 python3.11 python3.13 python3.10 python3.14 python3 python; do
        if command -v "$name" >/dev/null 2>&1 && is_fit "$name"; then
            command -v "$name"
            return
        fi
    done
    die "no Python 3.10 or later was found: install one, or name it with PYTHON=/path/to/python3"
}

find_installed() { # the Python that has this project's packages: PYTHON, an active environment, .venv, PATH
    local name
    if [ -n "${PYTHON:-}" ]; then
        printf '%s\n' "$PYTHON"
        return
    fi
    for name in "${VIRTUAL_ENV:-/nonexistent}/bin/python" "$VENV/bin/python" python python3; do
        if "$name" -c 'import importlib.util as u, sys
sys.exit(not all(map(u.find_spec, ("filelock", "omegaconf", "torch", "transformers"))))' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
    die "no Python here has the packages of requirements.txt: bash scripts/quickstart.sh installs" \
        "them in .venv, and PYTHON=/path/to/python names another"
}

make_venv() {
    local python
    is_fit "$VENV/bin/python" && return
    python="$(find_python)" || exit 1
    step "making $VENV with $("$python" --version)"
    if ! "$python" -m venv --clear "$VENV" >/dev/null 2>&1; then
        # some systems ship venv without the pip to put into it: use the one outside
        "$python" -m venv --clear --without-pip "$VENV" \
            || die "$python has no venv module: install it (on Debian: python3-venv)"
        "$python" -m pip --python "$VENV/bin/python" install pip \
            || die "$python has no pip: install it (on Debian: python3-pip)"
    fi
}

fingerprint() { # of everything that decides what is installed, and built in C
    "$VENV/bin/python" - "$ROOT"/{pyproject.toml,setup.py,scripts/constraints.txt} \
        "$ROOT"/inf_llm/native/*.[ch] "$1" <<'PY'
import hashlib, pathlib, sys
*files, extras = sys.argv[1:]
parts = [pathlib.Path(file).read_bytes() for file in files]
print(hashlib.sha256(b"\0".join([*parts, extras.encode(), sys.version.encode()])).hexdigest())
PY
}

pip_finds_cpu_torch() { # an index of CPU builds, or a folder with one, in pip's configuration?
    local place
    for place in $("$VENV/bin/python" -m pip config list 2>/dev/null \
        | sed -nE "s/^.*(index-url|find-links)='(.*)'$/\2/p" | sed 's/\\n/ /g'); do
        case "$place" in
            */cpu | */cpu/) return 0 ;;
        esac
        ls "${place#file://}"/torch-*+cpu*.whl >/dev/null 2>&1 && return 0
    done
    return 1
}

say_download() { # before it begins: how much it is, and how to make it less
    if "$VENV/bin/python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)'
    then
        step "installing inf-llm$1 (PyTorch is here already)"
    elif [ "$(uname -s)" != Linux ] || pip_finds_cpu_torch; then
        step "installing inf-llm$1 (the first time this downloads a few hundred MB)"
    else
        step "installing inf-llm$1 (the first time this downloads several GB: for Linux, PyTorch's" \
            "default build comes with the CUDA libraries)"
        command -v nvidia-smi >/dev/null 2>&1 && return
        printf '%s\n' "   No NVIDIA GPU was found here. The CPU build is a few hundred MB. To get it," \
            "   stop this with Ctrl-C and run it again with PyTorch's index for the compute platform" \
            "   CPU (see pytorch.org/get-started):" \
            "   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash $0" >&2
    fi
}

torch_pin() { # the release of torch that the project is developed with
    grep '^torch==' "$ROOT/scripts/constraints.txt"
}

install() { # install EXTRAS: the package, in place, with extras such as "[dev,faiss]" or ""
    local extras="${1:-}" stamp wanted
    make_venv
    wanted="$(fingerprint "$extras")"
    stamp="$VENV/.installed${extras//[^a-z]/-}"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    say_download "$extras"
    (cd "$ROOT" && "$VENV/bin/python" -m pip install --disable-pip-version-check \
        --constraint scripts/constraints.txt --editable ".$extras") \
        || die "the installation failed, see above"
    printf '%s\n' "$wanted" > "$stamp"
}

install_clients() { # the clients of other projects that the tests drive, in .venv-clients
    local clients="$ROOT/.venv-clients" wanted="$ROOT/tests/real/clients/requirements.txt"
    make_venv
    if ! cmp -s "$wanted" "$clients/.installed"; then
        step "installing the clients in $clients (some 500 MB)"
        "$VENV/bin/python" -m venv --clear "$clients"
        "$clients/bin/pip" install --disable-pip-version-check --quiet --requirement "$wanted"
        cp "$wanted" "$clients/.installed"
    fi
}
