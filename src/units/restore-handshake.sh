#!/bin/sh
# Run by CRIU at every stage of a restore; see restore-handshake.ts. Only builtins: a fork here is time a client waits.
case "$CRTOOLS_SCRIPT_ACTION" in
setup-namespaces | post-restore)
  cd "$CAIRN_HANDSHAKE" || exit 1
  # Opened for both directions, so that neither side waits for the other to open it.
  exec 3<>ask 4<>answer
  kill -0 "$CAIRN_MONITOR" || exit 1
  echo "$CRTOOLS_SCRIPT_ACTION $CRTOOLS_INIT_PID" >&3
  read -r answer <&4
  test "$answer" = go
  ;;
esac
