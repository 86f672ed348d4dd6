# A long pipeline; every stage is somewhere in its work, and every pipe holds something. Arguments: rounds, pause between them.
# Prints two lines that depend on nothing but the rounds.
set -o pipefail
export LC_ALL=C
work=$(mktemp -d)
mkfifo "$work/never"
exec 9<> "$work/never" # nobody writes to it: a read with a timeout sleeps without a process of its own

{
  for ((round = 0; round < $1; round++)); do
    seq $((round * 5000)) $((round * 5000 + 4999))
    read -rt "$2" -u 9
  done
  echo end
} | sed 's/^/line /' | tee >(gzip -1 > "$work/lines.gz") | tr 'ilne' 'ILNE' | sort -S 1M -T "$work" |
  awk '{ n++; print n, $0 } END { print "total", n }' | gzip -6 | gzip -d | sha256sum || echo "FAIL: exit code $?"
wait
for ((i = 0; i < 100; i++)); do
  gzip -t "$work/lines.gz" 2> "$work/incomplete" && break
  read -rt 0.1 -u 9
done
gzip -dc "$work/lines.gz" | sha256sum
rm -r "$work"
