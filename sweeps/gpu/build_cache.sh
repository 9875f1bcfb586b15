#!/usr/bin/env bash
# Compiles the kernels that run.sh launches, without a GPU, and packs them for the machine with the GPU.
#
#   sweeps/gpu/build_cache.sh [--arch sm_90] [--out triton-cache]     leaves triton-cache/sm_90.txz
#
# It runs the steps on the simulated GPU (tests/simulated_gpu), so that keys, variants and alignment match
# those of a run. The cache is valid only for the same Python, Triton and kernel sources, including the line
# on which each function starts and the order in which a process uses kernels: Triton includes the globals of
# a device function in a kernel's key only if the function was hashed for an earlier kernel. It takes about
# fifteen minutes of CPU time and uses all cores.
#
#   PYTHON=python3  the same Python version as on the GPU machine, with the same torch (CUDA build) and Triton
#   BUILD=folder    where to compile, or a build to continue; a temporary folder by default
#   STEPS_ASKED='verify encoders'   steps to run; by default, all that launch kernels of this project
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
arch=sm_90
out=$root/triton-cache
while [ $# -gt 0 ]; do
    case $1 in
    --arch) arch=${2:?} ;;
    --out) out=${2:?} ;;
    *)
        sed -n '2,/^set/ { /^set/d; s/^# \{0,1\}//; p }' "$0" >&2
        exit 2
        ;;
    esac
    shift 2
done
if ! [[ $arch =~ ^sm_([0-9]+)([0-9])$ ]]; then
    echo "$arch is not an architecture; write it like sm_90" >&2
    exit 2
fi
export SIMULATED_CAPABILITY=${BASH_REMATCH[1]}.${BASH_REMATCH[2]}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
build=${BUILD:-$scratch/triton}
mkdir -p "$build" "$out"
build=$(cd "$build" && pwd)
out=$(cd "$out" && pwd)

jobs=$(nproc) # before OMP_NUM_THREADS, which nproc obeys
# verify reports every result as wrong, because a simulated GPU computes nothing; only the compilation matters
export PYTHON=$python TOUCH=1 TOTAL=600 CACHE=none TRITON_CACHE_DIR=$build OMP_NUM_THREADS=1 scratch here
printf '%s\n' ${STEPS_ASKED:-verify tests sizes encoders breakdown products ss2d profile operations} >"$scratch/steps"
nice "$python" "$root/tests/simulated_gpu/simulate.py" xargs -a "$scratch/steps" -P "$jobs" -I{} \
    bash -c 'OUT=$scratch/{} WORK=$scratch/{} "$here/run.sh" {}' | grep -E '^(==|--)' || true

cd "$build"
count=$(find . -name '*.cubin' | wc -l)
if [ "$count" -eq 0 ]; then
    echo "nothing was compiled" >&2
    exit 1
fi
# group files contain the build folder: run.sh replaces this placeholder by its own cache folder
mkdir "$scratch/packed"
find . \( -name '*.cubin' -o -name '*.so' -o -name '*.json' \) -print0 | tar -cf - --null -T - | tar -xf - -C "$scratch/packed"
find "$scratch/packed" -name '__grp__*.json' -exec sed -i "s#$build#@TRITON_CACHE_DIR@#g" {} +
tar -C "$scratch/packed" --sort=name --owner=0 --group=0 -cf - . | nice xz -T0 -6 >"$out/$arch.txz.part"
mv "$out/$arch.txz.part" "$out/$arch.txz"
echo "$count kernels for $arch, $(find . -name '*.so' | wc -l) launchers: $(du -h "$out/$arch.txz" | cut -f1) in $out/$arch.txz"
