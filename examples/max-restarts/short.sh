#!/bin/sh
echo "started, and about to end"
