#!/usr/bin/env bash
# Everything that a GPU is needed for, once, in under 8 minutes:
#     bash benchmarks/gpu.sh            where a GPU is
#     bash benchmarks/gpu.sh --toy      the same commands, tiny, on the CPU: a dry run
# Prints a section a part with its seconds, and goes on where a part fails; the exit status says how many did.
set -u
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0
# a dry run may share its processor with others: it is given as long as it takes
if [ "${1:-}" = "--toy" ]; then device=cpu toy=--toy slack=10; else device=cuda toy= slack=1; fi

part() {  # name, seconds it may take, command ...
    local name=$1 limit=$2 begun=$SECONDS; shift 2
    echo; echo "== $name"
    timeout $((limit * slack)) "$@" || { echo "FAILED ($?): $name"; failed=$((failed + 1)); }
    echo "-- $((SECONDS - begun)) s"
}

part "machine" 60 "$python" -c "
import torch
print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else 'no CUDA device')"
if [ "$device" = cuda ]; then
    part "tests that need a GPU" 120 "$python" -m pytest -q -m gpu tests/training
else
    part "tests that need a GPU (collected; skipped here)" 120 "$python" -m pytest -q -m gpu tests/training/test_engine.py
fi
part "share of the matrix product's peak" 150 "$python" -m benchmarks.matmul_peak --device $device $toy
part "guided step against a plain one" 60 "$python" -m benchmarks step --device $device --toy
part "class map against Grad-CAM" 60 "$python" -m benchmarks maps --device $device --toy

# one row at the paper's size (or a tiny one): phantom radiographs, ResNet-50 at 512 px, bf16, 100 steps
if [ "$device" = cuda ]; then
    part "phantom" 60 "$python" -c "from sightline.cli.main import main; main()" cohort phantom radiographs "$out/cohort" --studies 60
    part "one row at the paper's size" 150 "$python" -c "from sightline.cli.main import main; main()" train guided --cohort "$out/cohort" \
        --out "$out/run" --size 512 --weights none --steps 100 --precision bf16-mixed --device cuda --workers 8
else
    part "phantom" 120 "$python" -c "from sightline.cli.main import main; main()" cohort phantom radiographs "$out/cohort" --studies 12
    part "one row, tiny" 120 "$python" -c "from sightline.cli.main import main; main()" train guided --cohort "$out/cohort" \
        --out "$out/run" --size 64 --backbone test_resnet --weights none --steps 3 --batch-size 4 --device cpu
fi
[ -f "$out/run/history.csv" ] && tail -2 "$out/run/history.csv"
echo; echo "$SECONDS s in all; $failed parts failed"
exit $failed
