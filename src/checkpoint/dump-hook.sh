#!/bin/sh
# Run by CRIU at every stage of a dump; see dump-hook.ts. Only builtins: all this is paid while the unit is frozen.
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
cd "$CAIRN_HANDSHAKE" || exit 1
# Each end is opened for one direction: when the daemon dies, the read sees the end of file, and the unit runs on.
kill -0 "$CAIRN_DAEMON" || exit 1
echo post-dump > ask || exit 1
read -r answer < answer
test "$answer" = go
