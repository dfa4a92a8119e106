#!/bin/bash
# Installs what `ccl bench compare` compares with, gloo of PyTorch and Open MPI: peers.sh [FOLDER]
#
# FOLDER, by default target/peers, then holds the programs `gloo` and `mpi`. What cannot be installed is left out,
# with the reason; the comparison does without it. Needs CPython 3.11 or newer, and for Open MPI Debian or Ubuntu.
set -uo pipefail

cd "$(dirname "$0")/.."
folder=${1:-target/peers}
python=${PYTHON:-python3}
openmpi=4.1.4-3+b1 # Debian 12

# The torch of the tests if it is there; otherwise one beside it: 2.5 GB from PyPI, once for all clones.
install_gloo() {
    local torch version shared
    torch=$(sed -n 's/^torch=//p' ccl-python/tests/prepare_torch.sh)
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || return 1
    shared=${XDG_CACHE_HOME:-$HOME/.cache}/ccl/torch-$torch-python$version
    if [ ! -s "$shared/complete" ]; then
        shared=${shared/torch-/peers-torch-}
        "$shared/bin/python" -c 'import torch' 2>/dev/null || {
            echo "installing torch $torch in $shared"
            "$python" -m venv --clear "$shared" &&
                "$shared/bin/python" -m pip install --quiet "torch==$torch" numpy
        } || return 1
    fi
    "$shared/bin/python" -c 'import torch.distributed as d; d.ProcessGroupGloo' || return 1
    printf '#!/bin/sh\nexec "%s" -W ignore "%s" "$@"\n' \
        "$shared/bin/python" "$PWD/stress/peers/gloo.py" >"$folder/gloo"
    chmod +x "$folder/gloo"
}

install_mpi() {
    command -v mpicc >/dev/null && command -v mpirun >/dev/null || {
        apt-get update -qq && apt-get install -y -qq --no-install-recommends \
            gcc libc6-dev openmpi-bin="$openmpi" libopenmpi-dev="$openmpi"
    } || return 1
    mpicc -O2 -Wall -Wextra -Werror -o "$folder/mpi" stress/peers/mpi.c
}

mkdir -p "$folder"
rm -f "$folder/gloo" "$folder/mpi"
install_gloo || echo "gloo is left out, for the reason above" >&2
install_mpi || echo "Open MPI is left out, for the reason above" >&2
ls "$folder"
