#!/usr/bin/env bash
# Make .venv and install what is needed: `scripts/venv.sh run` for the node and the command,
# `scripts/venv.sh dev` for the checks and tests as well. Does nothing if all is there. The stamp
# holds what was installed from and where: an editable install does not survive a move.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:?run or dev}
venv=.venv
oldest_minor=11
stamp="$(cksum <pyproject.toml) $PWD"

say() { echo "==> setup: $*"; }

suits() {
    "$1" -c "import sys; sys.exit(sys.version_info < (3, $oldest_minor))" >/dev/null 2>&1
}

find_python() {
    for name in ${PYTHON:-} python3.14 python3.13 python3.12 python3.11 python3 python; do
        if command -v "$name" >/dev/null 2>&1 && suits "$name"; then
            echo "$name"
            return
        fi
    done
    echo "ss-govern needs Python 3.$oldest_minor or newer, and none was found on the PATH." >&2
    echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install" >&2
    echo "python; others: https://www.python.org/downloads/), or name it: make run PYTHON=/path" >&2
    exit 1
}

is_current() { [ "$(cat "$venv/.stamp-$1" 2>/dev/null)" = "$stamp" ] && suits "$venv/bin/python"; }

# What serves development serves running.
if is_current dev || { [ "$kind" = run ] && is_current run; }; then
    exit 0
fi

if ! suits "$venv/bin/python"; then
    python=$(find_python)
    say "a virtual environment in $venv with $("$python" --version)"
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "$python lacks the modules venv and ensurepip." >&2
        echo "On Debian and Ubuntu: apt-get install python3-venv; then run make again." >&2
        exit 1
    fi
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

install() {
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; then
        echo "pip could not install (see above). Is the package index reachable? Run make again." >&2
        exit 1
    fi
}

# --group came with pip 25.1.
if ! "$venv/bin/python" -c 'import pip, sys
sys.exit([int(n) for n in pip.__version__.split(".")[:2]] < [25, 1])'; then
    say "a pip that knows dependency groups"
    install --upgrade 'pip>=25.1'
fi

if [ "$kind" = dev ]; then
    say "ss-govern from here, and the tools for checks and tests (a minute, once)"
    install -e '.[server]' --group dev
else
    say "ss-govern from here (half a minute, once)"
    install -e '.[server]'
fi
echo "$stamp" >"$venv/.stamp-$kind"
