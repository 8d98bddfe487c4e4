#!/bin/sh
# Stands for a server: speaks on both streams, then runs until it is stopped.
echo "serving, times are those of $TZ"
echo "nobody has asked for anything yet" >&2
exec sleep 1000000
