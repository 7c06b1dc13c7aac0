#!/usr/bin/env bash
# All that a machine with an NVIDIA GPU, and perhaps without a network, has to tell about rillet.
#
#   scripts/gpu_check.sh OUT [--device cpu] [--only PART[,PART...]]
#
# Writes to OUT: summary.txt (what passed, kept up to date), log.txt (all output), machine.json,
# tests.xml, speed-nano.json, speed-micro.json, training.json, loss.csv. A step that fails or hangs
# does not stop the others, and a run that is cut off leaves what it had. Exits with 0 if all passed.
#
# Parts, in this order; all of them take up to ten minutes:
#   machine   driver, libraries, versions
#   smoke     every engine takes real steps; training takes a few (two minutes with `machine`)
#   verify    `rillet verify` of nano and micro on CUDA and TensorRT, and 100,000 steps of each
#   speed     benchmarks/gpu.py: every engine and PyTorch, batches 1 to 512
#   training  tokens a second of nano, micro and small in bfloat16, batches 32 to 512
#   tests     the tests marked `gpu` or `tensorrt`
#   loss      `rillet train --preset micro` for LOSS_SECONDS, or for what is left of the ten minutes
#
# What it needs beside a driver, and takes from the environment:
#   PYTHON    an interpreter with numpy, click, safetensors, tokenizers, torch for CUDA, cuda-python
#             and onnxruntime; for `tests` also pytest, hypothesis, onnx and onnxscript, and torch
#             2.13 or newer, since they export. Default: python3. What it lacks travels as WHEELS.
#   WHEELS    a folder of wheels to install first, made with `pip download --no-deps`
#   PARTS     a folder with ort.txz (onnxruntime-gpu in site_ort) and rtx.txz (TensorRT-RTX in
#             site_rtx), whole or split into rtx.txz.00, rtx.txz.01 ..., for the interpreter's
#             Python; either may be missing. Without it, what is installed is used.
#   CORPUS    the text to train on. Default: ../shared/data/tales-train.txt
#   LOSS_SECONDS  default 300;  TOTAL  seconds of the whole, default 580;  LIMIT  most of any step
# `--device cpu` tries the script itself on any machine; its figures say nothing about a GPU.

set -u -m # -m: children get SIGINT, and a process group each
export PYTHONUNBUFFERED=1
root=$(cd "$(dirname "$0")/.." && pwd)
parts="machine smoke verify speed training tests loss"

usage() {
    echo "usage: scripts/gpu_check.sh OUT [--device cuda|cpu] [--only PART[,PART...]]" >&2
    echo "parts: $parts" >&2
    exit 2
}

out='' device=cuda only=$parts
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=${2-}; shift ;;
        --only) only=${2-}; only=${only//,/ }; shift ;;
        -*) usage ;;
        *) [ -z "$out" ] || usage; out=$1 ;;
    esac
    shift || usage
done
case $device in cuda | cpu) ;; *) usage ;; esac
for part in $only; do case " $parts " in *" $part "*) ;; *) usage ;; esac; done
[ -n "$out" ] && [ -n "$only" ] || usage
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2

# On busy cores, threads that wait for each other take ten times as long.
[ "$device" = cuda ] && threads=4 || threads=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$threads}"
python=${PYTHON:-python3}
corpus=${CORPUS:-$root/../shared/data/tales-train.txt}
total=${TOTAL:-580} most=${LIMIT:-580} log=$out/log.txt
scratch=$(mktemp -d)
done_steps=() current='' child='' failed=0
: > "$log"

# summary [LAST LINE]: write the summary anew, in one go.
summary() {
    {
        echo "rillet on $device, $(date -u +%Y-%m-%dT%H:%M:%SZ), ${SECONDS} s"
        [ ${#done_steps[@]} -eq 0 ] || printf '%s\n' "${done_steps[@]}"
        [ -z "$current" ] || echo "$current"
        [ -z "${1-}" ] || echo "$1"
    } > "$scratch/summary" && cp "$scratch/summary" "$out/summary.txt"
}

finish() {
    cp "$scratch"/loss/*.csv "$out/loss.csv" 2> /dev/null
    rm -rf "$scratch"
    exit "$1"
}

cut_off() {
    trap '' INT TERM HUP
    [ -z "$current" ] || done_steps+=("cut off  ${current#running  }")
    current=''
    summary "cut off by a signal"
    if [ -n "$child" ]; then # a moment to write its report
        kill -INT -- "-$child" 2> /dev/null
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            kill -0 -- "-$child" 2> /dev/null || break
            sleep 0.3
        done
        kill -KILL -- "-$child" 2> /dev/null
    fi
    finish 1
}
trap cut_off INT TERM HUP

# step NAME LIMIT COMMAND...: run a command for at most LIMIT seconds, and note how it went.
step() {
    local name=$1 limit=$2 status verdict began=$SECONDS lines last left=$((total - SECONDS))
    shift 2
    [ "$limit" -le "$most" ] || limit=$most
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 1 ]; then
        done_steps+=("not run  $name: the $total s of the whole are over")
        failed=$((failed + 1))
        summary
        return
    fi
    current="running  $name"
    summary
    lines=$(wc -l < "$log")
    printf '\n== %s: %s\n' "$name" "$*" >> "$log"
    # SIGINT first: pytest then writes its report, and training its checkpoint.
    timeout --signal=INT --kill-after=20 "$limit" "$@" >> "$log" 2>&1 < /dev/null &
    child=$!
    { wait "$child"; status=$?; } 2> /dev/null # the shell itself reports a killed child there
    child='' current=''
    case $status in
        0) verdict=passed ;;
        124 | 137) verdict="stopped at its limit of $limit s" ;;
        *) verdict="FAILED with $status" ;;
    esac
    [ "$status" -eq 0 ] || failed=$((failed + 1))
    last=$(tail -n "+$((lines + 3))" "$log" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 | cut -c 1-150)
    done_steps+=("$verdict  $name, $((SECONDS - began)) s: $last")
    summary
    return 0
}

wanted() { case " $only " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
rillet() { step "$1" "$2" "$python" -m rillet.runtime "${@:3}"; }

# The packages, importable as `rillet` without an installation, and what PARTS and WHEELS bring.
mkdir "$scratch/site"
ln -s "$root" "$scratch/site/rillet"
path=$scratch/site
if [ -n "${WHEELS-}" ]; then
    step wheels 60 "$python" -m pip install --quiet --no-index --no-deps --no-compile \
        --target "$scratch/wheels" "$WHEELS"/*.whl
    path=$scratch/wheels:$path
fi
if [ -n "${PARTS-}" ]; then
    for name in ort rtx; do
        if ls "$PARTS/$name".txz* > /dev/null 2>&1; then
            step "unpack $name" 60 sh -c 'cat "$1/$2".txz* | tar -C "$3" -xJf -' \
                sh "$PARTS" "$name" "$scratch"
            path=$scratch/site_$name:$path
        fi
    done
fi
export PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH}
# CUDA's libraries that pip installed, which torch finds by itself and nothing else does.
libraries=$(timeout -k 5 60 "$python" -c 'import glob, sysconfig
print(":".join(glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib")))' 2> /dev/null)
[ -z "$libraries" ] || export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
cd "$root" || exit 2

# Engines are built beside a bundle, so the bundle is copied. micro ships in int8, which TensorRT
# cannot read, so it is exported.
cp -r models/shakespeare-nano "$scratch/nano"
checkpoints=models/checkpoints
if wanted verify || wanted speed; then
    rillet "export: micro" 60 export "$checkpoints/shakespeare-micro" --out "$scratch/micro" \
        --parity-steps 100
fi

# What a GPU gets, and what the processor gets when the script is tried.
if [ "$device" = cuda ]; then
    engines="cuda tensorrt" long=--long tokens=10000 batches=1,8,64,512 precision=bf16
    presets=nano,micro,small training=32,128,512 seconds=4 steps=300 built=1,8 learner=micro
    shape='' driverless=1
else
    engines=cpu long='' tokens=500 batches=1,8 precision=fp32
    presets=nano,micro training=2 seconds=1 steps=20 built=1 learner=nano
    shape='--set batch=2' driverless=0
fi

if wanted machine; then
    step driver 20 sh -c 'command -v nvidia-smi > /dev/null || { echo "there is no nvidia-smi"; exit "$1"; }; nvidia-smi' \
        sh "$driverless" # its exit status where there is no driver
    step libraries 20 sh -c '/sbin/ldconfig -p 2> /dev/null | grep -E "nvinfer|cudnn|cudart|cublas|libcuda\.so" || echo "ldconfig knows no library of CUDA, cuDNN or TensorRT"'
    step packages 120 "$python" -m pip list --disable-pip-version-check
    step versions 120 "$python" -c '
import importlib, sys
print(sys.version)
for name in ("torch", "onnxruntime", "tensorrt", "tensorrt_rtx", "cuda.bindings"):
    try:
        module = importlib.import_module(name)
        print(name, getattr(module, "__version__", "?"), module.__file__)
    except Exception as error:
        print(f"{name}: {error}")
    if name == "torch" and name in sys.modules:
        print("torch for CUDA", module.version.cuda, "available:", module.cuda.is_available())
'
    # Its exit status tells of problems such as two packages of onnxruntime; `smoke` tells what works.
    step doctor 120 sh -c '"$@" > "$0"; cat "$0"; test -s "$0"' "$out/machine.json" \
        "$python" -m rillet.runtime doctor "$scratch/nano" --json
fi

build() {
    [ -d "$scratch/$1.engines" ] ||
        rillet "engines of $1" 60 engine build "$scratch/$1" --batch "$built"
}

if wanted smoke; then
    build nano
    for engine in $engines; do
        rillet "smoke: nano on $engine" 40 verify "$scratch/nano" --engine "$engine"
    done
    rillet "smoke: training" 60 train --corpus docs/troubleshooting.md --out "$scratch/smoke" \
        --no-plot --device "$device" --steps 3 --set "precision=$precision" --set batch=4
fi

if wanted verify; then
    for model in nano micro; do
        build $model
        for engine in $engines; do
            # shellcheck disable=SC2086 # $long is one option or none
            rillet "verify: $model on $engine" 60 verify "$scratch/$model" --engine "$engine" \
                --checkpoint "$checkpoints/shakespeare-$model" --steps "$tokens" $long
        done
    done
fi

if wanted speed; then
    for model in nano micro; do
        step "speed: $model" 100 "$python" benchmarks/gpu.py "$scratch/$model" \
            "$checkpoints/shakespeare-$model" --device "$device" --batch "$batches" \
            --steps "$steps" --bursts 3 --json "$out/speed-$model.json"
    done
fi

if wanted training; then
    step training 90 "$python" benchmarks/training.py "$corpus" --speed --device "$device" \
        --presets "$presets" --batch "$training" --precision "$precision" --seconds "$seconds" \
        --json "$out/training.json"
fi

if wanted tests; then
    parallel=''
    timeout -k 5 60 "$python" -c 'import xdist' 2> /dev/null && parallel='-n 8 --dist worksteal'
    [ "$device" = cuda ] || parallel=''
    files=$(grep -rlE 'mark\.(gpu|tensorrt)' tests --include='test_*.py' | sort -r) # runtime first
    # shellcheck disable=SC2086 # options and files
    OMP_NUM_THREADS=1 step tests 150 "$python" -m pytest -v -p no:cacheprovider $parallel \
        -m "gpu or tensorrt" --junitxml "$out/tests.xml" $files
fi

if wanted loss; then
    budget=${LOSS_SECONDS:-300} left=$((total - SECONDS - 30))
    [ "$budget" -le "$left" ] || budget=$left
    if [ "$budget" -ge 10 ]; then
        # shellcheck disable=SC2086 # $shape is options, or none
        rillet "loss: $learner after $budget s" $((budget + 25)) train --corpus "$corpus" \
            --out "$scratch/loss" --preset $learner --budget "${budget}s" --device "$device" \
            --steps 100000 --set validate_every=200 --set "precision=$precision" --no-plot $shape
    else
        step loss 0 true
    fi
fi

if [ "$failed" -eq 0 ]; then
    summary "all passed"
    finish 0
fi
summary "$failed did not pass"
finish 1
