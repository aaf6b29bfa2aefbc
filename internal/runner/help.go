package runner

// Usage is the short help that goes with an error of usage.
const Usage = "usage: offboard runner [flags] -- COMMAND [ARG...]"

// Help is what the runner does, for whoever reads its help. docs/runner.md says more.
const Help = `Take one item from a Redis list and run COMMAND with it. This is what runs inside a Job; COMMAND may be
written in any language and need not know of Redis.

COMMAND finds the item on its standard input, byte for byte, and in the variable OFFBOARD_ITEM. An item that holds NUL
or has more than 96 KiB is on standard input only. OFFBOARD_ITEM_ID names the item, and OFFBOARD_ATTEMPT counts its
attempts, from 1. When the list is empty, the runner says "nothing to do" and succeeds without running anything.

No item is lost: it is claimed with a lease, which is renewed while COMMAND runs. COMMAND says how it went:
  exit code 0         done
  exit code 65        never again: the item is dead, and kept for a person to look at (EX_DATAERR)
  exit code 75        later: again after the backoff, and not counted as a failure (EX_TEMPFAIL)
  another, a signal   failed: again after the backoff; dead once --attempts attempts have failed
When a signal has asked the runner to end, which it passes on to COMMAND, an item that is not done goes back to the head
of the list and nothing is counted. When the runner dies, the item returns once its lease has ended, as a failed
attempt; any runner, operator or "offboard up" that looks at the list puts it back. When the lease is lost, because
Redis was away for longer, COMMAND gets SIGTERM, and SIGKILL 5 seconds later.

An item is taken only when COMMAND exists. If COMMAND cannot be started all the same, the item is given back to the
head of the list.

In a Job that was handed its item (OFFBOARD_ITEM_ID is set: spec.delivery.mode is claim) the runner needs no Redis. It
runs COMMAND with the item, from the file that OFFBOARD_ITEM_FILE names or else from OFFBOARD_ITEM, and the operator
settles the item by the Job's outcome; flags have no effect.

In a container of Kubernetes, the beginning of the item becomes its termination message (/dev/termination-log), so that
"offboard jobs" can show it; COMMAND may write another one.

The list is named by variables of the environment:
  REDIS_HOST      host that Redis runs on; required
  REDIS_LIST      name of the list; required
  REDIS_PORT      port, default 6379
  REDIS_USER      user, where the server has users
  REDIS_PASSWORD  password, where the server asks for one
  REDIS_DB        number of the database, default 0
  REDIS_TLS       true for a connection over TLS; SSL_CERT_FILE names the file of a private authority's certificate
If Redis cannot be reached, the runner tries again for 5 seconds.

Exit codes:
  those of COMMAND once it has started, or 128 and the number of the signal that ended it; otherwise
  0      nothing to do
  1      Redis cannot be used, or COMMAND was ended because the lease was lost
  2      wrong usage, a variable is missing or wrong, or the item that was handed cannot be read
  126    COMMAND cannot be started
  127    COMMAND does not exist
  128+n  signal n came before COMMAND was started`

// Examples are calls of the runner.
const Examples = `  REDIS_HOST=127.0.0.1 REDIS_LIST=usertask offboard runner -- ./process-user
  offboard runner --lease 2m --attempts 5 --backoff 1m -- ./convert
  offboard runner -- sh -c 'curl --fail --data-binary @- https://example.com/hook || exit 75'`
