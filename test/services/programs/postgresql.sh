# PostgreSQL under pgbench, all inside one unit. Runs as user postgres. Argument: transactions for each of 4 clients.
# At the end: every transaction that pgbench saw committed must be there, the sums must agree, pg_amcheck must be content.
set -e
bin=$(echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | tail -1)
data=/var/tmp/data
export PGHOST=/var/tmp PGDATABASE=postgres
fail() { echo "FAIL: $*"; exit 1; }

"$bin/initdb" -D $data --auth=trust --no-sync --data-checksums > /var/tmp/initdb.log
cat >> $data/postgresql.conf <<'CONF'
unix_socket_directories = '/var/tmp'
listen_addresses = '127.0.0.1'
shared_buffers = 64MB
dynamic_shared_memory_type = posix
fsync = on
synchronous_commit = on
CONF
"$bin/pg_ctl" -D $data -l /var/tmp/server.log -w start > /var/tmp/start.log
"$bin/pgbench" -i -s 2 -q > /var/tmp/init.log 2>&1
psql -qc 'create extension amcheck'
echo ready
# Two clients by the unix socket, two by TCP, each on one connection for its whole life.
"$bin/pgbench" -n -c 2 -j 1 -t "$1" -P 1 > /var/tmp/bench-1 2>&1 & first=$!
"$bin/pgbench" -n -c 2 -j 2 -t "$1" -h 127.0.0.1 > /var/tmp/bench-2 2>&1 & second=$!
wait $first || { cat /var/tmp/bench-1; fail 'pgbench by the unix socket failed'; }
wait $second || { cat /var/tmp/bench-2; fail 'pgbench by TCP failed'; }
reported=$(cat /var/tmp/bench-1 /var/tmp/bench-2 | sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' | awk "{ s += \$1 } END { print s }")
echo "transactions: $reported"
[ "$reported" = $(($1 * 4)) ] || fail "pgbench reports $reported transactions"
sums=$(psql -Atc 'select (select count(*) from pgbench_history), (select sum(delta) from pgbench_history) = (select sum(abalance) from pgbench_accounts),
  (select sum(delta) from pgbench_history) = (select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history) = (select sum(bbalance) from pgbench_branches)')
[ "$sums" = "$reported|t|t|t" ] || fail "history and balances: $sums instead of $reported|t|t|t"
"$bin/pg_amcheck" --all --heapallindexed --parent-check > /var/tmp/amcheck.log 2>&1 || { cat /var/tmp/amcheck.log; fail 'pg_amcheck'; }
# What is in memory is also on disk: a crash of the server loses nothing that was committed.
"$bin/pg_ctl" -D $data -m immediate stop > /var/tmp/stop.log
"$bin/pg_ctl" -D $data -l /var/tmp/server.log -w start > /var/tmp/start.log
[ "$(psql -Atc 'select count(*) from pgbench_history')" = "$reported" ] || fail 'transactions were lost in a crash of the server'
"$bin/pg_ctl" -D $data -m fast -w stop > /var/tmp/stop.log
"$bin/pg_checksums" -D $data > /var/tmp/checksums.log || fail 'page checksums'
echo PASS
