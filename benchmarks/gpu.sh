#!/usr/bin/env bash
# All that waits for a GPU, in one command: is the CUDA path right, how fast is it, what comes out of half an hour.
#
#   benchmarks/gpu.sh [RECIPE] [PRETRAIN OPTIONS...]
#   benchmarks/gpu.sh training/recipes/gpu.yaml --num-steps 6000 --output runs/gpu
#
# Run again, training goes on from its last checkpoint. DEVICE=cpu SIZE=tiny SPECTRA=1 tries all of it without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
device=${DEVICE:-cuda} size=${SIZE:-base} spectra=${SPECTRA:-64} recipe=${1:-training/recipes/gpu.yaml}
shift || true

# GPU against CPU, packed against padded against one by one.
"$python" -m pytest -q tests/test_cuda.py tests/test_packed_patches.py

# A step as a part of the matmul peak; data on disk to steps; hours for the paper's budget.
for name in training_step data_path encode budget; do
    "$python" -m "benchmarks.$name" --device "$device" --model "hub_configs/$size" --spectra "$spectra"
done

# log.jsonl holds spectra/s and the part of the matmul peak (mfu), the simulator included.
launcher=(--config_file training/accelerate/one_gpu.yaml)
[ "$device" = cuda ] || launcher=(--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no)
"$python" -m accelerate.commands.launch "${launcher[@]}" training/pretrain.py --config "$recipe" --resume auto "$@"

# What it learned, beside an untrained encoder, principal components and raw spectra.
output=$("$python" -c "import sys; sys.path.insert(0, 'training'); import recipe; \
print(recipe.parse_arguments(['--config', *sys.argv[1:]])[0].output)" "$recipe" "$@")
"$python" -m benchmarks.science classes redshift labels reconstruction --device "$device" --budget "${BUDGET:-full}" \
    --encoder "$output/model" "untrained:$size" pca64 pca256 raw --output "$output/science"
