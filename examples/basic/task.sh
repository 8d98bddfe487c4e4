#!/bin/sh
# Stands for a job of a few moments.
echo "the task begins"
echo "the task has finished"
