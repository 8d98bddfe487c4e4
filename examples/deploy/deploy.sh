#!/bin/sh
# Makes a release the current one, and goes back to the one before where it does
# not come up. No request is lost on either way:
#
#   ./deploy.sh releases/1      # the first time: starts it
#   ./deploy.sh releases/2      # a new version
#   ./deploy.sh releases/3      # a broken one: exit 1, 2 goes on
#   ./deploy.sh releases/1      # roll back
#
# Paths in pup.json start at current/, as it is written here, so each life
# begins in the release that the link leads to at that moment.
set -eu
cd "$(dirname "$0")"
config=current/pup.json
former=$(readlink current || true)

# One rename: there is no moment without a current release.
point_to() {
  ln -s "$1" current.new
  mv -T current.new current
}

# What changed in pup.json, then a new life for each instance, one by one.
switch_to() {
  point_to "$1"
  pup apply "$config" && pup --config "$config" reload all
}

if [ -z "$former" ]; then
  point_to "$1"
  exec pup start "$config"
fi
switch_to "$1" && exit 0
echo "$1 does not come up; $former goes on" >&2
switch_to "$former"
exit 1
