#!/usr/bin/env bash
# All that waits for a GPU, in one command: is the CUDA path right, how fast is it, what comes out of half an hour.
#
#   benchmarks/gpu.sh [RECIPE] [PRETRAIN OPTIONS...]
#   STAGES="tests speed" benchmarks/gpu.sh
#   STAGES=train benchmarks/gpu.sh training/recipes/gpu.yaml --num-steps 3500 --output runs/gpu
#
# Stages, all where none is named: tests, speed (2 to 3 minutes), train (some 10 steps a second at the recipe's size), science.
# Run again, training goes on from its last checkpoint. Where a machine is lent for minutes: SIGTERM, or `timeout -s TERM`,
# writes a checkpoint, and the model is saved before anything is measured on it; leave that half a minute.
# DEVICE=cpu SIZE=tiny SPECTRA=1 tries all of it without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
device=${DEVICE:-cuda} size=${SIZE:-base} spectra=${SPECTRA:-256} recipe=${1:-training/recipes/gpu.yaml}
stages=${STAGES:-tests speed train science}
shift || true
asked() { [[ " $stages " == *" $1 "* ]]; }
measure() { "$python" -m "benchmarks.$1" --device "$device" --model "hub_configs/$size" --spectra "$spectra" "${@:2}"; }

# GPU against CPU, packed against padded against one by one, compiled and recomputed against plain.
if asked tests; then
    "$python" -m pytest -q tests/test_cuda.py tests/test_packed_patches.py
fi

# A step as a part of the matmul peak, plain and compiled; what feeds it; hours for the paper's budget.
if asked speed; then
    measure training_step
    if [ "$device" = cuda ]; then measure training_step --compile; fi
    measure stream --workers 0 "$("$python" -c 'import os; print(max(1, os.cpu_count() - 1))')"
    measure fed_step --workers "$("$python" -c 'import os; print(max(1, os.cpu_count() - 2))')" --micro-batches 2
    for name in data_path encode budget; do measure "$name"; done
fi

# log.jsonl holds spectra/s and the part of the matmul peak (mfu), the simulator included.
if asked train; then
    launcher=(--config_file training/accelerate/one_gpu.yaml)
    [ "$device" = cuda ] || launcher=(--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no)
    "$python" -m accelerate.commands.launch "${launcher[@]}" training/pretrain.py --config "$recipe" --resume auto "$@"
fi

# What it learned, beside an untrained encoder, principal components and raw spectra.
if asked science; then
    output=$("$python" -c "import sys; sys.path.insert(0, 'training'); import recipe; \
print(recipe.parse_arguments(['--config', *sys.argv[1:]])[0].output)" "$recipe" "$@")
    "$python" -m benchmarks.science classes redshift labels reconstruction --device "$device" \
        --budget "${BUDGET:-full}" --encoder "$output/model" "untrained:$size" pca64 pca256 raw --output "$output/science"
fi
