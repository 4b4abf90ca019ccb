#!/bin/sh
# The first process of the container. A platform stops a container with SIGTERM: R would die of it in the middle of an
# answer, and as process 1 it would not even see it. R takes SIGINT as an interrupt, and the server drains on that.
Rscript --vanilla "$(dirname "$0")/main.R" &
child=$!
trap 'kill -INT "$child" 2>/dev/null' TERM INT
wait "$child"
status=$?
# A trapped signal ends the first wait: wait again, for the drain.
while kill -0 "$child" 2>/dev/null; do
  wait "$child"
  status=$?
done
exit "$status"
