#!/bin/sh
# A run in small, killed and resumed, before the real one is queued: launcher/rehearse.sh FLAGS OF TRAIN.PY
# A minute or two on two ranks; ends with one line and exit code 0, or says what failed. See launcher/rehearsal.py.
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=python3
PATH=$(dirname "$python"):$PATH PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m launcher.rehearsal "$@"
