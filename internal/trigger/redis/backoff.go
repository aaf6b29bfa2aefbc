package redis

import (
	"time"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// Delays between attempts to connect.
const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 10 * time.Second
	// retryMaster is the longest delay where sentinels, or the nodes of a cluster, may promote another server.
	retryMaster = time.Second
	// retryLoading is the longest delay while a server that is up loads its data.
	retryLoading = 250 * time.Millisecond
	// retryReset is how long a session must have lasted for the next loss to be a new one.
	retryReset = time.Second
)

// pause returns how long to wait after the failure.
func pause(retry *network.Backoff, err error) time.Duration {
	if isLoading(err) {
		return retry.NextAtMost(retryLoading)
	}
	return retry.Next()
}
