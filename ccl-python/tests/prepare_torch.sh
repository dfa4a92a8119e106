#!/bin/bash
# Makes the environment in which the tests with torch run: prepare_torch.sh PYTHON ENVIRONMENT WHEEL [PACKAGE...]
#
# Torch fills gigabytes, so it is installed once, outside the clone, for all clones of this user; ENVIRONMENT
# sees it by a .pth file, and holds nothing itself but the wheel of this clone, and the PACKAGEs.
set -euo pipefail

python=$1
environment=$(realpath "$2")
wheel=$(realpath "$3")
shift 3

torch=2.15.0
uv=0.13.9
# What torch and its CUDA libraries fill, with something to spare. PyPI has no build for CPUs only.
needed_mib=7000
# The default of 30 s is short for a slow mirror.
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-180}

cd "$(dirname "$0")/.."
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
shared=${XDG_CACHE_HOME:-$HOME/.cache}/ccl/torch-$torch-python$version
# The parts that the tests need are named in pyproject.toml.
wanted="torch==$torch $(grep '^test = ' pyproject.toml)"
torchft=$(grep '^test-torchft = ' pyproject.toml)

is_complete() {
    "$shared/bin/python" -c '' 2>/dev/null && [ "$(cat "$shared/complete" 2>/dev/null)" = "$wanted" ]
}

check_space() {
    local free_mib
    free_mib=$(df --output=avail -B1M "$(dirname "$shared")" | tail -n 1)
    if [ "$free_mib" -lt "$needed_mib" ]; then
        echo "The tests with torch need $needed_mib MiB in $(dirname "$shared"), and $free_mib are free." >&2
        echo "Make room, or name another place by XDG_CACHE_HOME=...; \`make test-rust test-python\`" \
            "does without torch." >&2
        exit 1
    fi
}

explain() {
    echo "Torch could not be installed from PyPI; the error is above. Run it again: what was" \
        "downloaded whole is kept. \`make test-rust test-python\` does without torch." >&2
}

install() {
    "$python" -m venv --clear "$shared"
    "$shared/bin/python" -m pip install --quiet uv==$uv
    echo "installing torch $torch in $shared (2.5 GB from PyPI, once)"
    "$shared/bin/uv" pip install --quiet --python "$shared/bin/python" \
        "torch==$torch" --requirement pyproject.toml --extra test
    "$shared/bin/python" -c 'import torch'
    echo "$wanted" >"$shared/complete"
}

# PyPI drops old nightlies, and has none for some versions of Python: the tests with it are then skipped.
install_torchft() {
    [ "$(cat "$shared/torchft" 2>/dev/null)" != "$torchft" ] || return 0
    if "$shared/bin/uv" pip install --quiet --python "$shared/bin/python" \
        "torch==$torch" --requirement pyproject.toml --extra test-torchft; then
        echo "$torchft" >"$shared/torchft"
    else
        echo "torchft could not be installed, for the reason above: the tests with it are skipped." >&2
    fi
}

mkdir -p "$(dirname "$shared")"
exec 9>"$shared.lock"
flock 9 # Another clone may be doing the same.
if ! is_complete; then
    rm -rf "$shared"
    check_space
    trap explain EXIT
    install
    trap - EXIT
fi
install_torchft
exec 9>&-

"$python" -m venv --clear --without-pip "$environment"
packages=$(echo "$environment"/lib/python*/site-packages)
echo "$(echo "$shared"/lib/python*/site-packages)" >"$packages/torch.pth"
"$shared/bin/uv" pip install --quiet --python "$environment/bin/python" --no-deps "$wheel" "$@"
