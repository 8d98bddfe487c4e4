#!/bin/sh
# Reads its greeting once, as servers read their source.
echo "running: $(cat greeting.txt)"
exec sleep 1000000
