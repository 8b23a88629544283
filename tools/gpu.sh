#!/bin/sh
# What is to be done on the day when a GPU is at hand, in at most so many minutes:
#
#     tools/gpu.sh [--minutes 12] [--out FOLDER] [--dry]
#
# the tests that need a GPU; the step against SGD, with its share of the bandwidth of a copy and its
# peak of memory; ResNet-50 with and without DessiLBI; and of Table 3 as much as fits, which a later
# call with the same folder goes on with. --dry needs no GPU: it says what would be done and tries
# the benchmark on the CPU. PYTHON: the interpreter; DSLBI_DATA: the data sets.
set -u
cd "$(dirname "$0")/.." || exit 2

minutes=12 out=runs/gpu dry=
while [ $# -gt 0 ]; do
    case $1 in
        --minutes | --out)
            [ -n "${2:-}" ] || { echo "$1 needs a value, got none" >&2 && exit 2; }
            ;;
    esac
    case $1 in
        --minutes) minutes=$2 && shift ;;
        --out) out=$2 && shift ;;
        --dry) dry=yes ;;
        *) echo "gpu.sh takes --minutes, --out and --dry, got $1" >&2 && exit 2 ;;
    esac
    shift
done
case $minutes in
    '' | *[!0-9]* | 0) echo "minutes must be a whole number of at least 1, got $minutes" >&2 && exit 2 ;;
esac

python=${PYTHON:-}
if [ -z "$python" ]; then
    python=python3
    [ -x .venv/bin/python ] && python=.venv/bin/python
fi
if ! "$python" -c "import torch" 2>/dev/null; then
    echo "gpu.sh needs a Python with torch, got $python: set PYTHON" >&2 && exit 2
fi
if [ -z "$dry" ] && ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "gpu.sh needs a GPU; --dry says what it would do" >&2 && exit 2
fi
end=$(($(date +%s) + 60 * minutes))
failed=
mkdir -p "$out"

# run NAME SECONDS COMMAND...: within what is left of the time; its words go to OUT/NAME.log
run() {
    name=$1 limit=$2
    shift 2
    left=$((end - $(date +%s)))
    [ "$left" -lt "$limit" ] && limit=$left
    if [ "$limit" -lt 10 ]; then
        echo "$name: no time is left" && return
    fi
    if [ -n "$dry" ]; then
        echo "$name, at most $limit s: $*" && return
    fi
    echo "$name, at most $limit s"
    timeout -k 15 "$limit" "$@" > "$out/$name.log" 2>&1
    status=$?
    tail -n 12 "$out/$name.log"
    case $status in
        0) ;;
        124 | 137 | 143) echo "$name: cut off after $limit s" ;;
        *) failed="$failed $name" ;;
    esac
}

run tests 200 "$python" -m pytest -q -m gpu tests
run steps 120 "$python" -m benchmarks.gpu --out "$out/gpu.json"
if [ -n "$dry" ]; then
    "$python" -m benchmarks.gpu --dry --rounds 3 --steps 3 --out "$out/dry.json" || failed=dry
fi
cifar=${DSLBI_DATA:-$HOME/.cache/dslbi}
if [ -n "$(find "$cifar" -maxdepth 1 -name 'cifar-10-batches-*' 2>/dev/null)" ]; then
    for net in resnet56 vgg16; do
        run "table3-$net" 3600 "$python" -m dslbi_torch sweep "cifar10-$net" --kappas 1,2,5,10 \
            --amp bf16 --channels-last --data "$cifar" --out "$out/table3-$net"
    done
else
    echo "table3: skipped, there is no CIFAR-10 in $cifar (set DSLBI_DATA)"
fi
if [ -n "$failed" ]; then
    echo "failed:$failed (see $out)" >&2 && exit 1
fi
