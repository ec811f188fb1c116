#!/bin/sh
# Bring what the tests of examples/web need: Chromium and Node.js (by apt-get, where the user may), and npm's packages.
cd "$(dirname "$0")/.." || exit 1

missing=''
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
    || missing='chromium'
command -v npm >/dev/null || missing="$missing nodejs npm"
if [ "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null \
        && missing=''
fi
if [ "$missing" ]; then
    echo "The page of examples/web is not tested: install $missing (Debian: sudo apt-get install $missing)"
fi

packages=examples/web/node_modules/.package-lock.json
if command -v npm >/dev/null && [ ! "$packages" -nt examples/web/package-lock.json ]; then
    (cd examples/web && npm ci --silent && touch node_modules/.package-lock.json) \
        || echo 'The page of examples/web is not tested: npm ci failed there'
fi
exit 0
