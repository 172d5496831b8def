#!/bin/sh
# Creates .venv with the pinned versions of constraints.txt; seconds when nothing changed (the Makefile checks).
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "otic needs Python 3.11 or newer; $PYTHON is $("$PYTHON" --version). Try: make PYTHON=python3.12 ..." >&2
    exit 1
}
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
pip() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@" 2>.venv/pip.log || { cat .venv/pip.log >&2; exit 1; }; }
echo "setting up .venv (a minute or two the first time)" >&2
pip -c constraints.txt torch==2.13.0 numpy   # first and alone: a range would pull gigabytes of CUDA
pip -c constraints.txt -e '.[av,dev]'
touch .venv/ready
