#!/bin/sh
# The work itself. The item arrives on standard input (and in OFFBOARD_ITEM): {"user": 1}
item=$(cat)
echo "working on $item"
sleep 2
echo "done with $item"
