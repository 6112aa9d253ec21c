#!/usr/bin/env bash
# Unpack Debian's Prometheus into a directory, for the test that asks a real one: nothing is
# installed or started. Fails where there is no such package; that test is then skipped.
set -euo pipefail
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null
cd "$1"
if [ "$(id -u)" = 0 ]; then timeout 60 apt-get update -qq; fi
timeout 60 apt-get download -qq prometheus
dpkg-deb -x prometheus_*.deb .
rm prometheus_*.deb
