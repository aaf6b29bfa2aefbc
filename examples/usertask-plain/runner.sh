#!/bin/sh
# The runner without a wrapper: a Redis client that takes one item, works on it and ends.
echo "trying to get a single job from $REDIS_LIST"
item=$(redis-cli -h "$REDIS_HOST" -p "${REDIS_PORT:-6379}" LPOP "$REDIS_LIST") || exit 1
if [ -z "$item" ]; then
  echo "nothing to do"
  exit 0
fi
echo "working on $item"
sleep 2
echo "done with $item"
