package jetstream

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

const (
	// reconnectWait is how long to wait between attempts to connect.
	reconnectWait = time.Second
	// askTimeout bounds one request to JetStream.
	askTimeout = 5 * time.Second
)

// clientSettings is all that makes one connection differ from another; it stays comparable. Empty means that there is
// to be none.
type clientSettings struct{ servers, credentials string }

// secrets returns what no message may show.
func (s clientSettings) secrets() []string {
	secrets := []string{s.credentials}
	for server := range strings.SplitSeq(s.servers, ",") {
		if parsed, err := url.Parse(strings.TrimSpace(server)); err == nil {
			password, _ := parsed.User.Password()
			secrets = append(secrets, password, parsed.User.Username()) // a user without a password is a token
		}
	}
	return secrets
}

// client is a connection as a client of NATS, made when something is first watched or claimed.
type client struct {
	settings clientSettings
	log      *slog.Logger
	// ctx ends with the client.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// connect makes the connection once.
	connect func() (*nats.Conn, error)
	// failed is what failed last; nil when the connection was made since.
	failed atomic.Pointer[failure]
}

func newClient(settings clientSettings, log *slog.Logger) *client {
	ctx, cancel := context.WithCancel(context.Background())
	made := &client{settings: settings, log: log, ctx: ctx, cancel: cancel}
	made.connect = sync.OnceValues(made.open)
	return made
}

func (c *client) stop() {
	c.cancel()
	c.running.Wait()
	if conn, err := c.connect(); err == nil {
		conn.Close()
	}
}

// open returns a connection that is, or will be, established, and again after each loss. The error is one of what is to
// log in with.
func (c *client) open() (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name("offboard"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.Timeout(askTimeout),
		nats.ReconnectWait(reconnectWait), nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				c.fails(err)
			}
			c.tell(err)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.fails(err)
				c.tell(err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.fails(err) }),
		nats.ConnectHandler(func(*nats.Conn) { c.failed.Store(nil) }),
		nats.ReconnectHandler(func(*nats.Conn) { c.failed.Store(nil) }),
	}
	if c.ctx.Err() != nil {
		return nil, c.ctx.Err() // never used
	}
	if c.settings.credentials != "" {
		options = append(options, nats.UserCredentialBytes([]byte(c.settings.credentials)))
	}
	return nats.Connect(c.settings.servers, options...)
}

// tell logs what only costs that a change is noticed later.
func (c *client) tell(err error) {
	c.log.DebugContext(c.ctx, "NATS does not tell of new messages, trying again until it does",
		"error", network.Error("nats", "", err, false, c.settings.secrets()...))
}

// watch calls changed for new messages of the stream that the consumer gets, until stop is called. It handles outages
// itself.
func (c *client) watch(stream, consumer string, changed func()) (stop func()) {
	ctx, cancel := context.WithCancel(c.ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for ctx.Err() == nil {
			if err := c.listen(ctx, stream, consumer, changed); err != nil && ctx.Err() == nil {
				c.tell(err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(reconnectWait):
			}
		}
	})
	c.running.Go(listening.Wait)
	return func() {
		cancel()
		listening.Wait()
	}
}

// listen makes a consumer of its own that gets the headers of messages which come from now on. The server hands out a
// message when the stream has it, so that a measurement which follows counts it; the library goes on after the last one
// when the connection or the server's leader is lost.
func (c *client) listen(ctx context.Context, stream, consumer string, changed func()) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(askTimeout))
	if err != nil {
		return err
	}
	watched, err := js.Consumer(ctx, stream, consumer)
	if err != nil {
		return err
	}
	source, err := js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	of := source.CachedInfo()
	settings := watched.CachedInfo().Config
	subjects := settings.FilterSubjects
	if settings.FilterSubject != "" {
		subjects = []string{settings.FilterSubject}
	}
	if of.Config.Retention == jetstream.WorkQueuePolicy { // which lets no second consumer get the messages
		if len(subjects) == 0 {
			subjects = of.Config.Subjects
		}
		return overhear(ctx, conn, subjects, changed)
	}
	ordered, err := source.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: subjects, HeadersOnly: true,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: of.State.LastSeq + 1,
	})
	if err != nil {
		return err
	}
	messages, err := ordered.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	changed() // what came before is not told
	for {
		if _, err := messages.Next(jetstream.NextContext(ctx)); err != nil {
			return err
		}
		changed()
	}
}

// storedWithin is how long a stream takes at the most, in general, to have a message that others have got.
const storedWithin = 200 * time.Millisecond

// overhear calls changed for messages of the subjects while they are published, and once more when the stream has them.
// The library subscribes again when the connection was lost.
func overhear(ctx context.Context, conn *nats.Conn, subjects []string, changed func()) error {
	messages := make(chan *nats.Msg, 1000)
	for _, subject := range subjects {
		subscription, err := conn.ChanSubscribe(subject, messages)
		if err != nil {
			return err
		}
		defer func() { _ = subscription.Unsubscribe() }()
	}
	lost := conn.StatusChanged(nats.CONNECTED)
	defer conn.RemoveStatusListener(lost)
	changed() // what came before is not told
	var stored <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-messages:
			if stored == nil {
				stored = time.After(storedWithin)
				changed()
			}
		case <-lost: // what came while there was no connection is not told
			stored = time.After(storedWithin)
			changed()
		case <-stored:
			stored = nil
			changed()
		}
	}
}
