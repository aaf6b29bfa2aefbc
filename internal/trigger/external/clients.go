package external

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

// Clients shares connections between the triggers of a process whose settings are equal.
type Clients struct {
	connections *shared.Clients[settings, *grpc.ClientConn]
}

// NewClients returns an empty set. It needs no closing.
func NewClients() *Clients {
	return &Clients{shared.New[settings](func(connection *grpc.ClientConn) {
		_ = connection.Close() // fails only for one that is closed
	})}
}

const (
	// reconnectMost is the longest time between two attempts to connect.
	reconnectMost = 5 * time.Second
	// pingInterval is how long a connection may be silent before the server is asked whether it is still there. Servers
	// of gRPC refuse clients that ask more often than every 5 minutes.
	pingInterval = 6 * time.Minute
	// pingTimeout is how long the server may take to answer that, and how long what is sent may be on its way.
	pingTimeout = 10 * time.Second
	// spread is KEDA's way to use several addresses of one name: each in its turn.
	spread = `{"loadBalancingConfig": [{"round_robin": {}}]}`
)

// acquire returns the connection of the settings, which it does not wait for.
func (c *Clients) acquire(s settings) (connection *grpc.ClientConn, release func(), err error) {
	transport := insecure.NewCredentials()
	if s.secure {
		config, err := tlsConfig(s.tls)
		if err != nil {
			return nil, nil, err
		}
		transport = credentials.NewTLS(config)
	}
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 100*time.Millisecond, reconnectMost
	made, err := grpc.NewClient(s.address,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(spread),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: reconnectMost}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingInterval, Timeout: pingTimeout}),
	)
	if err != nil {
		return nil, nil, trigger.ParamError{
			Key: paramAddress, Value: s.address, Message: "is not the address of a server; give host:port",
		}
	}
	connection, release = c.connections.Acquire(s, func() *grpc.ClientConn { return made })
	if connection != made {
		_ = made.Close() // never used, as it is connected by the first request only
	}
	return connection, release, nil
}

// tlsConfig returns the TLS configuration, and errors that name the parameters as these types do.
func tlsConfig(settings network.TLS) (*tls.Config, error) {
	config, err := settings.Config()
	var finding trigger.ParamError
	if !errors.As(err, &finding) {
		return config, err
	}
	names := map[string]string{"ca": paramCA, "cert": paramCert, "key": paramKey}
	if name := names[finding.Key]; name != "" {
		finding.Key = name
	} else {
		finding.Key, finding.Message = paramKey, "is encrypted; give a private key that is not"
	}
	return nil, finding
}

// explain says which server failed and what that means. The error holds no secret that the server was told.
func (t *serverTrigger) explain(err error) error {
	what, isStatus := status.FromError(err)
	if !isStatus {
		return fmt.Errorf("external scaler at %s %w", t.settings.address, err)
	}
	hint := "fails"
	switch what.Code() {
	case codes.Canceled:
		err = context.Canceled
	case codes.DeadlineExceeded:
		hint, err = "does not answer in time", context.DeadlineExceeded
	case codes.Unavailable:
		hint = "is not reachable; where it expects TLS, give enableTLS \"true\" and caCert in a TriggerAuthentication"
		if t.settings.secure {
			hint = "is not reachable with TLS"
		}
	case codes.Unimplemented:
		hint = "does not serve the protocol of external scalers"
	}
	text := network.Show(what.Message(), t.secrets)
	if what.Code() == codes.Canceled || what.Code() == codes.DeadlineExceeded {
		return fmt.Errorf("external scaler at %s %s: %w", t.settings.address, hint, err)
	}
	return fmt.Errorf("external scaler at %s %s: %s: %s", t.settings.address, hint, what.Code(), text)
}
