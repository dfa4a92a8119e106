#!/bin/sh
# Installs what `cargo build -p ccl-capi` built, for C and C++ programs: the header, the shared library
# with its version in its name, the static library, a pkg-config file and a CMake package.
#
# install.sh BUILT PREFIX VERSION   BUILT is the folder with libccl.so and libccl.a. DESTDIR is put
# before PREFIX for the copies alone, as packagers need it.
set -eu

built=$1 prefix=$2 version=$3
here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-}$prefix
# Before 1.0 a minor version may break, so its number is part of the name that programs ask for.
case $version in
    0.*) interface=${version%.*} ;;
    *) interface=${version%%.*} ;;
esac

mkdir -p "$root/include" "$root/lib/pkgconfig" "$root/lib/cmake/ccl"
cp "$here/../../include/ccl.h" "$root/include/ccl.h"

objcopy --strip-debug "$built/libccl.so" "$root/lib/libccl.so.$version"
ln -sf "libccl.so.$version" "$root/lib/libccl.so.$interface"
ln -sf "libccl.so.$interface" "$root/lib/libccl.so"

# In one object, whose inner names are taken off: two libraries written in Rust would clash.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
functions=$(sed -n 's/^[a-z].*[ *]\(ccl[A-Za-z]*\)(.*/-u \1/p' "$here/../../include/ccl.h")
# shellcheck disable=SC2086 # one word each
${LD:-ld} -r $functions -o "$work/all.o" "$built/libccl.a"
# The compiler's own notes to itself are of no use to another, and stop some linkers.
objcopy --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd --wildcard \
    --keep-global-symbol='ccl[A-Z]*' "$work/all.o" "$work/ccl.o"
rm -f "$root/lib/libccl.a"
ar rcs "$root/lib/libccl.a" "$work/ccl.o"

for file in ccl.pc ccl-static.pc cclConfig.cmake cclConfigVersion.cmake; do
    case $file in
        *.pc) folder=pkgconfig ;;
        *) folder=cmake/ccl ;;
    esac
    sed -e "s|@PREFIX@|$prefix|g" -e "s|@VERSION@|$version|g" -e "s|@INTERFACE@|$interface|g" \
        "$here/$file.in" >"$root/lib/$folder/$file"
done
