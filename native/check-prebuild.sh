#!/bin/sh
# Refuses a prebuilt core that would not load where it is meant to: the linker takes libc.a without a word where it finds
# no libc.so, and a newer glibc gives its symbols versions that an older one does not have.
# usage: check-prebuild.sh glibc|musl FILE
set -eu
oldest_glibc=2.28 # what Node 20 itself needs

refuse() {
  echo "$1: $2" >&2
  exit 1
}

needed=$(readelf -d "$2" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort | tr '\n' ' ')
case "$1 $needed" in
  "glibc libc.so.6 " | "glibc ld-linux-aarch64.so.1 libc.so.6 " | "musl libc.so " | "musl libc.musl-"*".so.1 ") ;;
  *) refuse "$2" "needs these libraries, and should need the libc of $1 alone: ${needed:-none}" ;;
esac
newest=$(readelf -V "$2" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
[ "$(printf '%s\n' "$newest" $oldest_glibc | sort -V | tail -n 1)" = $oldest_glibc ] ||
  refuse "$2" "needs glibc $newest; Node 20 runs on $oldest_glibc, and so should this"
