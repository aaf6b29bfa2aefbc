package mongodb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/auth"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

const (
	// selectTimeout is how long a measurement waits for a server that can be asked, and a server may take to answer while
	// it is connected to; less than a measurement may take, so that its error says what is wrong.
	selectTimeout = 4 * time.Second
	// closeTimeout bounds how long the end of a client takes.
	closeTimeout = 5 * time.Second
	// maxConnections is how many questions a client asks a server at once, unless the connection string says otherwise;
	// further measurements wait for their turn.
	maxConnections = 4
)

// connection holds the client for some settings. To make one may take a question to DNS, so it is made with the first
// measurement, and again as long as that fails.
type connection struct {
	settings settings
	opening  sync.WaitGroup
	// failure is what the last look at the server came to; nil when that was well.
	failure atomic.Pointer[error]

	mu      sync.Mutex
	opened  opened
	attempt *attempt
}

// opened is a client and what its errors tell of it; the zero value where there is none.
type opened struct {
	client  *mongo.Client
	servers string // separated by commas
	withTLS bool
}

// attempt is an opening of the client that is under way.
type attempt struct {
	done   chan struct{}
	opened opened
	err    error
}

func newConnection(s settings) *connection { return &connection{settings: s} }

// close ends the client.
func (c *connection) close() {
	c.opening.Wait()
	if c.opened.client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.opened.client.Disconnect(ctx) // nobody waits for what it could say
}

// get returns the client; it makes one where there is none, and waits for that until ctx ends.
func (c *connection) get(ctx context.Context) (*mongo.Client, error) {
	c.mu.Lock()
	if c.opened.client != nil {
		defer c.mu.Unlock()
		return c.opened.client, nil
	}
	current := c.attempt
	if current == nil {
		current = &attempt{done: make(chan struct{})}
		c.attempt = current
		c.opening.Go(func() { c.open(current) })
	}
	c.mu.Unlock()
	select {
	case <-current.done:
		return current.opened.client, current.err
	case <-ctx.Done():
		return nil, c.explain(ctx, ctx.Err())
	}
}

// open makes the client and ends the attempt.
func (c *connection) open(current *attempt) {
	current.opened, current.err = c.newClient()
	c.mu.Lock()
	c.opened, c.attempt = current.opened, nil
	c.mu.Unlock()
	close(current.done)
}

// newClient makes a client, which connects by itself. Its errors hold nothing of the connection string but a host.
func (c *connection) newClient() (opened, error) {
	chosen := options.Client().ApplyURI(c.settings.uri)
	if err := chosen.Validate(); err != nil {
		var lookup *net.DNSError
		if errors.As(err, &lookup) {
			return opened{}, fmt.Errorf(
				"mongodb: DNS names no servers for %s; correct the host, or give scheme mongodb and a port",
				strings.TrimPrefix(lookup.Name, "_mongodb._tcp."))
		}
		return opened{}, errors.New(
			"mongodb: the driver does not take the connection string, or what DNS says about its host")
	}
	if c.settings.useTLS {
		config, err := c.settings.tls.Config()
		if err != nil {
			return opened{}, err
		}
		chosen.SetTLSConfig(config)
	}
	if chosen.MaxPoolSize == nil {
		chosen.SetMaxPoolSize(maxConnections)
	}
	if chosen.ConnectTimeout == nil {
		chosen.SetConnectTimeout(selectTimeout)
	}
	chosen.SetServerSelectionTimeout(selectTimeout)
	chosen.SetServerMonitor(&event.ServerMonitor{
		ServerHeartbeatSucceeded: func(*event.ServerHeartbeatSucceededEvent) { c.looked(nil) },
		ServerHeartbeatFailed:    func(e *event.ServerHeartbeatFailedEvent) { c.looked(e.Failure) },
	})
	client, err := mongo.Connect(chosen)
	if err != nil {
		return opened{}, errors.New("mongodb: the driver does not take the options of the connection string")
	}
	return opened{client: client, servers: strings.Join(chosen.Hosts, ","), withTLS: chosen.TLSConfig != nil}, nil
}

// looked keeps what a look at a server came to. One that the driver gave up itself, as it does when another connection
// to the server fails, says nothing about the server.
func (c *connection) looked(failure error) {
	switch {
	case failure == nil:
		c.failure.Store(nil)
	case !errors.Is(failure, context.Canceled):
		c.failure.Store(&failure)
	}
}

// The codes of errors that a server answers (https://www.mongodb.com/docs/manual/reference/error-codes/).
const (
	codeUnauthorized         = 13
	codeAuthenticationFailed = 18
	codeMaxTimeExpired       = 50
)

// explain says which server failed, what that means, and what would be right. The error holds no password and nothing
// of the connection string but the servers' addresses.
func (c *connection) explain(ctx context.Context, err error) error {
	c.mu.Lock()
	used := c.opened
	c.mu.Unlock()
	where := strings.TrimSuffix("mongodb at "+used.servers, " at ")
	var command mongo.CommandError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("%s: %w", where, context.Canceled)
	case errors.As(err, &command) && command.Code == codeMaxTimeExpired:
		return fmt.Errorf("%s takes too long for the query; have an index serve it", where)
	case isLoginError(err):
		return fmt.Errorf("%s does not accept the user with this password; "+
			"correct both, and the database that knows the user", where)
	case errors.As(err, &command) && command.Code == codeUnauthorized:
		return fmt.Errorf("%s denies the user the collection; grant a role that allows to read it", where)
	case errors.As(err, &command) && command.Code != 0:
		return fmt.Errorf("%s refuses the query: %s (code %d)", where, network.Show(command.Name, nil), command.Code)
	}
	if hint := c.hint(err, used.withTLS); hint != "" {
		return fmt.Errorf("%s %s", where, hint)
	}
	return fmt.Errorf("%s cannot be asked, or does not answer as MongoDB does", where)
}

// hint says in words what kept a server from answering; "" when that is not known. The last look at a server says more
// than the error, which tells only that the time is over, or how a connection ended.
func (c *connection) hint(err error, withTLS bool) string {
	if failure := c.failure.Load(); failure != nil {
		return network.Hint(*failure, withTLS)
	}
	if mongo.IsTimeout(err) {
		return "does not answer in time"
	}
	return network.Hint(err, withTLS)
}

// isLoginError tells whether a server refused the user while the connection was made, and did not only fail to answer.
func isLoginError(err error) bool {
	var command mongo.CommandError
	if errors.As(err, &command) && command.Code == codeAuthenticationFailed {
		return true
	}
	var login *auth.Error
	return errors.As(err, &login) && !mongo.IsTimeout(err) && network.Hint(err, false) == ""
}
