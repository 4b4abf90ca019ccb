#!/bin/sh
# The first process of the container. A platform stops a container with SIGTERM: R would die of it in the middle of an
# answer, and as process 1 it would not even see it. R takes SIGINT as an interrupt, and the server drains on that.
# (A shell starts what runs next to it with SIGINT ignored, and R from 4.3 on leaves it so: hence env.)
env --default-signal=INT,QUIT Rscript --vanilla "$(dirname "$0")/main.R" &
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
