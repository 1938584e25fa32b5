#!/usr/bin/env bash
# Two versions of the project against each other, in turns, so that whatever else the machine does
# hits both alike:
#   bash scripts/compare_speed.sh OLD NEW [--pairs N] [--lengths 8k,32k,128k] [--limit 1.05]
# OLD and NEW are git revisions or folders with a checkout. Each gets an environment of its own, in
# .venvs/compare/. Prints the median of the ratios new over old, for reading a prompt, decoding
# behind it, and the most memory taken. Figures of pairs that are done are kept: run it again after
# an interruption and it goes on. Exit codes: 0 all within the limit, 1 not.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -ge 2 ] || die "two versions are needed: bash scripts/compare_speed.sh OLD NEW"
work="$ROOT/.venvs/compare"
mkdir -p "$work"

checkout() { # VERSION: its folder; a revision gets one
    local revision
    if [ -d "$1" ]; then
        (cd "$1" && pwd)
        return
    fi
    revision="$(git -C "$ROOT" rev-parse --verify --quiet "$1^{commit}")" \
        || die "$1 is neither a folder nor a git revision"
    [ -d "$work/$revision" ] || git -C "$ROOT" worktree add --quiet --detach "$work/$revision" "$revision"
    printf '%s\n' "$work/$revision"
}

prepare() { # FOLDER: its environment, by its own script
    bash -c 'source "$1/scripts/lib.sh"; install "" >&2' prepare "$1" || die "$1 cannot be installed"
}

old="$(checkout "$1")"
new="$(checkout "$2")"
shift 2
prepare "$old"
prepare "$new"
exec "$new/.venv/bin/python" "$ROOT/scripts/compare_speed.py" "$old" "$new" --work "$work" "$@"
