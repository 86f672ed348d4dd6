# R01: a bash script (arrays, coprocess, trap, here-string, background job) goes on where it was.
go=${PROBE_GO:-/probe/go}
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }

declare -a seen
declare -A named
value=1 count=0 interrupted=0
trap 'interrupted=$((interrupted + 1))' USR1
coproc ECHO { while read -r line; do echo "answer $line"; done; }
(while [ ! -e "$go" ]; do sleep 0.1; done; exit 7) &
background=$!
echo ready
while [ ! -e "$go" ]; do
  value=$(((value * 1103515245 + 12345) % 2147483648))
  seen[count]=$value
  named[n$count]=$value
  count=$((count + 1))
  echo "$value" >&"${ECHO[1]}"
  read -r answer <&"${ECHO[0]}"
  [ "$answer" = "answer $value" ] || { fail "the coprocess answered '$answer'"; break; }
  read -rt 0.01 -u "${ECHO[0]}" # sleeps without a process of its own
done
[ -n "$PROBE_BREAK" ] && seen[0]=0

value=1
for ((i = 0; i < count; i++)); do
  value=$(((value * 1103515245 + 12345) % 2147483648))
  [ "${seen[i]}" = "$value" ] || fail "element $i of the array differs"
  [ "${named[n$i]}" = "$value" ] || fail "entry n$i of the associative array differs"
done
kill -USR1 $$
[ "$interrupted" = 1 ] || fail "the trap ran $interrupted times"
wait "$background"
status=$?
[ "$status" = 7 ] || fail "the background job ended with $status"
[ "$failures" = 0 ] || exit 1
echo PASS
