# Steps that benchmarks share. Sourced, not run; needs bash.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"


# shellcheck disable=SC2034 # not every script uses all of them
ROUNDS=3 SCALE=130 WANTED='' JOBS=2 TIME=20 RATE=20480
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0; }
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) ROUNDS=$2; shift ;;
    --scale) SCALE=$2; shift ;;
    --jobs) JOBS=$2; shift ;;
    --time) TIME=$2; shift ;;
    --rate) export RATE=$2; shift ;;
    --pg-config) WANTED=$2; shift ;;
    -h | --help) usage ;;
    *) die "unknown option \"$1\"" "See $0 --help." ;;
  esac
  shift
done

PG_CONFIG=$(find_pg_config "$WANTED")
B=$("$PG_CONFIG" --bindir)
W=$(mktemp -d /tmp/pg_ark_bench.XXXXXX)
chmod 755 "$W"
[ "$(id -u)" != 0 ] || chown postgres "$W"
D=$W/data PORT=54329
pg() { as_postgres "$@"; }
sql() { pg "$B/psql" -h "$W" -p $PORT -XAtq -v ON_ERROR_STOP=1 -d postgres -c "$1"; }
cleanup() {
  pg "$B/pg_ctl" -D "$D" -m immediate stop >/dev/null 2>&1 || true
  rm -rf "$W"
}
trap cleanup EXIT

# A server with data checksums and the extension, its data of about SCALE x 16 MB at rest.
start_server() {
  need_packages zstd
  [ -x "$B/pgark" ] || die "pg_ark is not installed in $B" "Run scripts/install --pg-config $PG_CONFIG."
  say "Making a database of about $((SCALE * 16)) MB"
  pg "$B/initdb" -k -D "$D" >/dev/null 2>&1
  pg tee -a "$D/postgresql.conf" >/dev/null <<C
port = $PORT
listen_addresses = ''
unix_socket_directories = '$W'
shared_buffers = 256MB
max_wal_size = 8GB
autovacuum = off
pg_ark.jobs = $JOBS
C
  pg "$B/pg_ctl" -D "$D" -l "$W/log" -w start >/dev/null
  pg "$B/pgbench" -h "$W" -p $PORT -i -q -s "$SCALE" postgres >/dev/null 2>&1
  # Some life, so that not every row is the same.
  pg "$B/pgbench" -h "$W" -p $PORT -n -c 4 -t 5000 postgres >/dev/null 2>&1
  sql "CREATE EXTENSION pg_ark; SELECT count(*) FROM ark.enable('file://$W/repo')" >/dev/null
  sql "CHECKPOINT"
  size=$(du -sm --exclude=pg_wal "$D" | cut -f1)
}

# Runs a command and adds its wall seconds to the named series.
declare -A SERIES
timed() { # NAME COMMAND...
  local name=$1 begin end
  shift
  sync
  begin=$(date +%s.%N)
  "$@" >"$W/out" 2>&1 || { cat "$W/out" >&2; die "$name failed"; }
  end=$(date +%s.%N)
  SERIES[$name]+="$(awk -v a="$begin" -v b="$end" 'BEGIN{printf "%.2f", b-a}') "
}
median() { tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n | awk '{v[NR]=$1} END{print v[int((NR+1)/2)]}'; }

# Prints each series, and the ratio of pg_ark's median to each peer's.
report() { # TITLE PEER...
  local title=$1 ours peer
  shift
  ours=$(median "${SERIES[pg_ark]}")
  printf '\n%s: %s MB, %s threads, %s rounds in turns\n' "$title" "$size" "$JOBS" "$ROUNDS"
  printf '  %-44s %8s   %8s   %s\n' '' median ratio 'all rounds (s)'
  printf '  %-44s %8s   %8s   %s\n' pg_ark "$ours" '' "${SERIES[pg_ark]}"
  for peer in "$@"; do
    [ -n "${SERIES[$peer]:-}" ] || continue
    local theirs
    theirs=$(median "${SERIES[$peer]}")
    printf '  %-44s %8s   %8s   %s\n' "$peer" "$theirs" \
      "$(awk -v a="$ours" -v b="$theirs" 'BEGIN{printf "%.2f", a/b}')" "${SERIES[$peer]}"
  done
}

# Transactions per second of a pgbench run of TIME seconds, added to the named series.
throughput() { # NAME OPTION...
  local name=$1
  shift
  pg "$B/pgbench" -h "$W" -p $PORT -n -c 4 -j 2 -T "$TIME" "$@" postgres >"$W/out" 2>&1 || { cat "$W/out" >&2; die "pgbench failed"; }
  SERIES[$name]+="$(awk '/^tps = /{printf "%.0f", $3; exit}' "$W/out") "
}

# Prints each series of throughput, and the ratio of each median to the first one's.
report_throughput() { # TITLE FIRST OTHER...
  local title=$1 base name middle
  shift
  base=$(median "${SERIES[$1]}")
  printf '\n%s: %s MB, %s s each, %s rounds in turns\n' "$title" "$size" "$TIME" "$ROUNDS"
  printf '  %-44s %8s   %8s   %s\n' '' median ratio 'all rounds (tps)'
  for name in "$@"; do
    [ -n "${SERIES[$name]:-}" ] || continue
    middle=$(median "${SERIES[$name]}")
    printf '  %-44s %8s   %8s   %s\n' "$name" "$middle" \
      "$(awk -v a="$middle" -v b="$base" 'BEGIN{printf "%.2f", b ? a/b : 0}')" "${SERIES[$name]}"
  done
}

# pgBackRest with the options that make it fast, when it is installed.
PGBACKREST=()
start_pgbackrest() {
  command -v pgbackrest >/dev/null || { say "pgBackRest is not installed: left out"; return 0; }
  local block=''
  ! version_at_least 2.50 "$(pgbackrest version | awk '{print $2}')" || block=repo1-block=y
  pg mkdir -p "$W/pgbackrest" "$W/spool" "$W/lock" "$W/pblog"
  pg tee "$W/pgbackrest.conf" >/dev/null <<C
[global]
repo1-path=$W/pgbackrest
repo1-bundle=y
$block
repo1-retention-full=1
compress-type=zst
compress-level=1
process-max=$JOBS
start-fast=y
archive-check=n
archive-copy=n
spool-path=$W/spool
lock-path=$W/lock
log-path=$W/pblog
[main]
pg1-path=$D
pg1-port=$PORT
pg1-socket-path=$W
C
  PGBACKREST=(pgbackrest --config="$W/pgbackrest.conf" --stanza=main --log-level-console=warn)
  pg "${PGBACKREST[@]}" --no-online stanza-create >/dev/null 2>&1 || pg "${PGBACKREST[@]}" stanza-create >/dev/null 2>&1 ||
    { say "pgBackRest does not start here: left out"; PGBACKREST=(); }
}
