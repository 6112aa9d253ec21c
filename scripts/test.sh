#!/usr/bin/env bash
# The stages of `make lint`, `make check` and `make test`, cheap ones first. Each says what it
# does and how long it took; the first that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=.venv/bin
workers=${WORKERS:-2}
slow_folders=(tests/integration tests/bench tests/console)
power_cut=tests/integration/test_power_cut.py

stage() {
    local title=$1 began=$SECONDS
    shift
    echo "==> $title"
    if ! "$@"; then
        echo "==> FAILED: $title"
        echo "    again: ${*#quietly }"
        exit 1
    fi
    echo "    ok, $((SECONDS - began)) s"
}

folders() {
    for folder in "$@"; do
        [ -n "$(find "$folder" -name 'test_*.py' 2>/dev/null | head -1)" ] && echo "$folder"
    done
    return 0
}

# pytest says 5 where a selection holds no test; for "the slow ones" that is no failure.
pytest_slow() {
    local code=0
    "$bin/pytest" -q -m slow -n "$workers" "${fast_only[@]}" || code=$?
    [ "$code" = 0 ] || [ "$code" = 5 ]
}

lint() {
    stage "lint: style (ruff check)" "$bin/ruff" check --quiet .
    stage "lint: format (ruff format)" "$bin/ruff" format --check --quiet .
    stage "lint: types (mypy --strict)" "$bin/mypy" --no-error-summary
    stage "lint: import contracts (lint-imports)" quietly "$bin/lint-imports"
    stage "lint: generated code is current" "$bin/python" scripts/generate_protobuf.py --check
    stage "lint: no module above 600 lines" "$bin/python" scripts/check_modules.py
    stage "lint: links in the documents" "$bin/python" scripts/check_docs.py
}

quietly() {
    local output
    output=$("$@" 2>&1) || { echo "$output"; return 1; }
}

fast_only=()
for folder in "${slow_folders[@]}"; do fast_only+=("--ignore=$folder"); done

fast() {
    stage "tests: unit, property, conformance, simulation smoke" \
        "$bin/pytest" -q -m "not slow" -n "$workers" "${fast_only[@]}"
}

rest() {
    stage "tests: the slow ones" pytest_slow
    local present
    present=$(folders "${slow_folders[@]}")
    if [ -n "$present" ]; then
        # A file's tests one after the other; most of their time is spent waiting.
        # shellcheck disable=SC2086
        stage "tests: real processes" \
            "$bin/pytest" -q -n "$workers" --dist loadfile --ignore=$power_cut $present
        # It cuts the power of disks, as a file of that stage does: not both at once.
        stage "tests: power cuts of a node" "$bin/pytest" -q $power_cut
    fi
    stage "simulation: fixed seeds" "$bin/python" -m ssgovern.sim --seeds "${SMOKE_SEEDS:-0-49}"
}

began=$SECONDS
case ${1:-all} in
    lint) lint ;;
    check) lint; fast ;;
    all) lint; fast; rest ;;
    *) echo "usage: $0 lint|check|all" >&2; exit 2 ;;
esac
echo "==> all passed, $((SECONDS - began)) s"
