#!/usr/bin/env bash
# What only a GPU can show, in one run of some six minutes: tests, counts of launches and waits, times, memory.
#
#   OUT=gpu_check bash scripts/gpu_check.sh [--seconds 340] [--device cuda] [--only NAME]...
#
# It needs no installation and no network: torch, numpy, rich, networkx, safetensors, matplotlib, pytest and hypothesis
# are enough. Results are written to the folder $OUT as they come, so that a run that is cut off still tells.
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT="${OUT:-gpu_check}"
exec env PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 python3 -W ignore scripts/gpu_check.py "$@"
