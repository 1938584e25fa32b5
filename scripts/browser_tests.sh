#!/usr/bin/env bash
# The chat page and the recall report in a real browser:
#   bash scripts/browser_tests.sh
# On Debian and its like, as root, chromium is installed where it is absent. Without a browser the
# tests are skipped, and with CI=true that is a failure.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

has_browser() {
    { command -v chromium || command -v chromium-browser; } >/dev/null && command -v chromedriver >/dev/null
}

if ! has_browser && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    step "installing chromium"
    apt-get update --quiet=2 && apt-get install --yes --quiet=2 chromium chromium-driver \
        || printf 'chromium could not be installed\n' >&2
fi
has_browser || [ "${CI:-}" != true ] || die "there is no chromium with chromedriver here"
exec bash "$ROOT/scripts/test.sh" --slow tests/serve/test_page_in_browser.py tests/generation/test_report_page.py
