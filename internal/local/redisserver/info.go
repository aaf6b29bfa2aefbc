package redisserver

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// askTimeout bounds one question to a server.
const askTimeout = 2 * time.Second

// info is what a server says of itself.
type info struct {
	pid     int
	version string
	loading bool
}

// serverInfo asks the server on the port who it is; also while it loads its data.
func serverInfo(ctx context.Context, port int) (info, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{address(port)}, ForceSingleClient: true, PipelineMultiplex: -1, DisableCache: true,
		DisableRetry: true, ClientSetInfo: rueidis.DisableClientSetInfo, Dialer: net.Dialer{Timeout: askTimeout},
		ConnWriteTimeout: askTimeout, ReadBufferEachConn: 16 << 10, WriteBufferEachConn: 4 << 10, RingScaleEachConn: 4,
	})
	if err != nil {
		if client != nil {
			client.Close()
		}
		return info{}, err
	}
	defer client.Close()
	text, err := client.Do(ctx, client.B().Info().Build()).ToString()
	if err != nil {
		return info{}, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			fields[key] = value
		}
	}
	said := info{version: fields["redis_version"], loading: fields["loading"] != "0"}
	if own := fields["valkey_version"]; own != "" {
		said.version = own // valkey reports the version of Redis that it is compatible with as well
	}
	if said.pid, err = strconv.Atoi(fields["process_id"]); err != nil {
		return info{}, fmt.Errorf("the server on port %d does not say its process id: %w", port, err)
	}
	return said, nil
}
