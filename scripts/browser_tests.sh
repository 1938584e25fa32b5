#!/usr/bin/env bash
# The chat page and the recall report in a real browser:
#   bash scripts/browser_tests.sh
# On Debian and its like, as root, chromium is installed where it is absent. axe-core, which looks for
# what people with screen readers cannot use, comes from npm. Without a browser the tests are skipped,
# without axe-core its checks; with CI=true either is a failure.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

AXE_VERSION=4.14.1
export AXE="$ROOT/.venv/axe-$AXE_VERSION.min.js"

has_browser() {
    { command -v chromium || command -v chromium-browser; } >/dev/null && command -v chromedriver >/dev/null
}

fetch_axe() {
    local folder
    folder="$(mktemp -d)"
    (cd "$folder" && npm pack --silent "axe-core@$AXE_VERSION" >/dev/null && tar -xzf axe-core-*.tgz) \
        && mkdir -p "$(dirname "$AXE")" && cp "$folder/package/axe.min.js" "$AXE"
    rm -r "$folder"
}

if ! has_browser && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    step "installing chromium"
    apt-get update --quiet=2 && apt-get install --yes --quiet=2 chromium chromium-driver \
        || printf 'chromium could not be installed\n' >&2
fi
has_browser || [ "${CI:-}" != true ] || die "there is no chromium with chromedriver here"
if [ ! -f "$AXE" ]; then
    step "fetching axe-core $AXE_VERSION"
    make_venv
    fetch_axe || printf 'axe-core could not be fetched\n' >&2
fi
[ -f "$AXE" ] || [ "${CI:-}" != true ] || die "there is no axe-core here, and no npm that fetches it"
exec bash "$ROOT/scripts/test.sh" --slow tests/serve/browser tests/generation/test_report_page.py
