# Steps that several scripts share. Sourced, not run; needs bash.
# shellcheck shell=bash

PGRX_VERSION=0.18.1 # the newest that Rust 1.95 builds; Cargo.toml asks for exactly this one
RUST_VERSION=1.95
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # for those who source this file
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/sbin:/sbin
export LC_ALL=C.UTF-8

if [ -t 2 ]; then BOLD=$'\e[1m' RED=$'\e[31m' OFF=$'\e[0m'; else BOLD='' RED='' OFF=''; fi
say() { printf '%s==> %s%s\n' "$BOLD" "$*" "$OFF" >&2; }
die() { # MESSAGE [HINT]
  printf '%serror:%s %s\n' "$RED" "$OFF" "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "\"$1\" needs root, and sudo is not installed" "Run this script as root."
  fi
}

# Runs as the OS user postgres, in a folder that this user may enter, without the caller's PG* variables.
as_postgres() {
  local clean=(HOME=/tmp PATH="$PATH" TERM="${TERM:-dumb}" LC_ALL=C.UTF-8)
  if [ "$(id -un)" = postgres ]; then (cd /tmp && env -i "${clean[@]}" "$@")
  elif [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    (cd /tmp && setpriv --reuid=postgres --regid=postgres --init-groups env -i "${clean[@]}" "$@")
  else (cd /tmp && sudo -u postgres env -i "${clean[@]}" "$@")
  fi
}

# Installs those of the named Debian packages that are not installed yet.
need_packages() {
  local package missing=()
  command -v dpkg-query >/dev/null ||
    die "this is not a Debian system: cannot install $*" "Install the equivalent packages by hand."
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "Installing packages: ${missing[*]}"
  local -a get=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300
    --no-install-recommends "${missing[@]}")
  # Package lists may be stale or absent: fetch them only when the first try fails.
  as_root "${get[@]}" >/dev/null 2>&1 || { as_root apt-get update -qq >&2 && as_root "${get[@]}" >&2; } ||
    die "could not install ${missing[*]}"
}

# Tests of I/O errors and of power loss run programs under strace, which some containers forbid.
need_strace() {
  need_packages strace
  local said
  said=$(as_postgres strace -f -qq -e trace=none -o /dev/null true 2>&1) ||
    die "strace cannot trace: $said" "In a container, allow it: --cap-add=SYS_PTRACE, or a seccomp profile with ptrace."
}

# A locale that writes money and numbers in another way than C does.
need_locale() { # NAME
  ! locale -a | tr -d - | grep -qix "${1//-/}" || return 0
  need_packages locales
  as_root localedef -i "${1%%.*}" -f UTF-8 "$1" || die "could not make locale $1"
}

version_at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

need_rust() {
  command -v cargo >/dev/null || [ -z "$(apt-cache madison rustup 2>/dev/null)" ] ||
    { need_packages rustup && rustup toolchain install "$RUST_VERSION" --profile default >&2; }
  command -v cargo >/dev/null ||
    die "there is no cargo" "Install Rust $RUST_VERSION or newer with rustup, then run this script again."
  local version
  version=$(cargo --version | awk '{print $2}')
  version_at_least "$RUST_VERSION" "$version" ||
    die "cargo $version is too old" "Install Rust $RUST_VERSION or newer: rustup toolchain install $RUST_VERSION"
  need_packages gcc libc6-dev
}

need_cargo_pgrx() {
  [ "$(cargo pgrx --version 2>/dev/null | awk '{print $2}')" = "$PGRX_VERSION" ] && return
  need_packages pkg-config
  say "Installing cargo-pgrx $PGRX_VERSION (some minutes, once)"
  cargo install --quiet cargo-pgrx --version "$PGRX_VERSION" --locked >&2 || die "could not install cargo-pgrx"
}

# Absolute path of the pg_config to use: the given one, $PG_CONFIG, the one on PATH, Debian's newest supported one.
find_pg_config() { # [PATH]
  local found=${1:-${PG_CONFIG:-}} candidate
  if [ -z "$found" ]; then
    for candidate in "$(command -v pg_config || true)" /usr/lib/postgresql/{18,17,16,15}/bin/pg_config; do
      [ -x "$candidate" ] && [ -x "$("$candidate" --bindir)/postgres" ] && { found=$candidate; break; }
    done
  fi
  # No server at all: Debian's own.
  [ -n "$found" ] || { need_packages postgresql-15 postgresql-server-dev-15; found=/usr/lib/postgresql/15/bin/pg_config; }
  # Debian splits server and pg_config into packages.
  if [ ! -x "$found" ] && [[ $found =~ ^/usr/lib/postgresql/([0-9]+)/ ]]; then
    need_packages "postgresql-${BASH_REMATCH[1]}" "postgresql-server-dev-${BASH_REMATCH[1]}"
  fi
  [ -x "$found" ] || die "cannot run \"$found\"" "Name the server's pg_config: --pg-config PATH"
  [ -x "$("$found" --bindir)/postgres" ] ||
    die "\"$found\" belongs to no server" "Name the pg_config of a server: --pg-config PATH"
  readlink -f "$found"
}

pg_major() { "$1" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'; }

# Makes sure that the server behind a pg_config can be built against.
need_server_headers() { # PG_CONFIG
  local major
  major=$(pg_major "$1")
  case $major in 15 | 16 | 17 | 18) ;; *) die "PostgreSQL $major is not supported" "pg_ark supports 15, 16, 17 and 18." ;; esac
  [ -f "$("$1" --includedir-server)/postgres.h" ] || need_packages "postgresql-server-dev-$major"
  [ -f "$("$1" --includedir-server)/postgres.h" ] || die "the headers of the server behind $1 are missing"
  need_packages clang libclang-dev pkg-config
}

# Tells pgrx which pg_config stands for its major version. The file is written only when it changes, because pgrx
# builds anew after that. "cargo pgrx init" would forget the other versions.
register_pg_config() { # PG_CONFIG
  local file=${PGRX_HOME:-$HOME/.pgrx}/config.toml name known
  name=pg$(pg_major "$1")
  mkdir -p "$(dirname "$file")"
  [ -f "$file" ] || echo '[configs]' >"$file"
  known=$(sed -n "s/^$name *= *\"\(.*\)\"$/\1/p" "$file")
  [ -x "$known" ] && [ "$("$known" --bindir)" = "$("$1" --bindir)" ] && return
  sed -i "/^$name *=/d" "$file"
  echo "$name = \"$1\"" >>"$file"
}
