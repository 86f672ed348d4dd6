#!/bin/sh
# Run by CRIU at every stage of a dump; see dump-hook.ts. Only builtins: all this is paid while the unit is frozen.
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
# Pipes that CRIU has from the daemon: an error or the end of file if it is dead, never a wait for somebody who opens them.
echo post-dump > "/proc/$PPID/fd/5" || exit 1
read -r answer < "/proc/$PPID/fd/6"
test "$answer" = go
