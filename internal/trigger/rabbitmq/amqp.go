package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

const (
	// channels is how many queues are asked for at a time over one connection.
	channels = 4
	// heartbeat is how often either side tells that it is alive; a silent server is given up after 15 seconds.
	heartbeat = 10 * time.Second
	// retryAfter is for how long a connection that could not be made is not tried again, however many triggers ask.
	retryAfter = time.Second
	// goodbye is how long the server may take to answer that the connection is closed.
	goodbye = time.Second
)

// errClosed is the error of a connection that no trigger uses any more.
var errClosed = errors.New("the connection to RabbitMQ is closed")

// amqpSettings is all that makes one connection differ from another; it stays comparable.
type amqpSettings struct {
	// url holds the user and the password.
	url      string
	address  string
	vhost    string
	user     string
	password string
	tls      network.TLS
	// serverName is what the server's certificate is to name; empty means the host.
	serverName string
	// external tells that the client's certificate logs in.
	external bool
}

// parseAMQP reads the host's URL, with the user and the password that parameters give in place of its own.
func parseAMQP(values trigger.Values) (settings amqpSettings, problem string) {
	const form = "give amqp://user:password@host:5672/vhost or amqps://…, with characters such as # / @ " +
		"in a password written as %23 %2F %40"
	parsed, err := url.Parse(values.String(paramHost))
	if err != nil {
		return amqpSettings{}, "is not a URL; " + form
	}
	for _, file := range []string{"cacertfile", "certfile", "keyfile"} {
		if parsed.Query().Has(file) {
			return amqpSettings{}, "names a file in " + file + ", which is not read; " +
				"give ca, cert and key in a TriggerAuthentication"
		}
	}
	if values.Has(paramUsername) && values.Has(paramPassword) {
		parsed.User = url.UserPassword(values.String(paramUsername), values.String(paramPassword))
	}
	uri, err := amqp.ParseURI(parsed.String())
	if err != nil {
		return amqpSettings{}, "is not a URL for AMQP; " + form
	}
	settings = amqpSettings{
		url: parsed.String(), address: net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port)), vhost: uri.Vhost,
		user: uri.Username, password: uri.Password, serverName: uri.ServerName,
	}
	if vhost := values.String(paramVhostName); vhost != "" {
		settings.vhost = vhost
	}
	_, hasPassword := parsed.User.Password()
	settings.external = values.String(paramTLS) == tlsEnable && values.Has(network.ParamCert) && !hasPassword
	return settings, ""
}

func newAMQPSettings(values trigger.Values, material network.TLS) (settings amqpSettings, problem string) {
	settings, problem = parseAMQP(values)
	settings.tls = material
	return settings, problem
}

// connection is one connection to a server, made when a queue is first asked for and again after it is lost.
type connection struct {
	settings amqpSettings
	config   *tls.Config

	// ctx ends with the connection.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// slots holds one element for each queue that is being asked for.
	slots chan struct{}

	mu sync.Mutex
	// pending are the questions that are not answered yet, by queue.
	pending map[string]*question

	// turn is held, by an element in it, while a session is looked for; it guards what follows.
	turn     chan struct{}
	session  *session
	failure  error
	failedAt time.Time
}

// question asks for one queue on behalf of all who want to know at that time.
type question struct {
	done  chan struct{}
	count int
	err   error
}

// session is a connection that is established, and its channels that are not in use. A channel serves one question at
// a time, because the server closes it when there is no such queue.
type session struct {
	connection *amqp.Connection
	idle       chan *amqp.Channel
}

func newConnection(settings amqpSettings, config *tls.Config) *connection {
	// The connection outlives the context of the trigger that happens to use it first.
	ctx, cancel := context.WithCancel(context.Background())
	return &connection{
		settings: settings, config: config, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, channels), turn: make(chan struct{}, 1), pending: map[string]*question{},
	}
}

// stop ends the connection and waits for what is under way.
func (c *connection) stop() {
	c.cancel()
	c.turn <- struct{}{}
	if c.session != nil {
		_ = c.session.connection.CloseDeadline(time.Now().Add(goodbye)) // an error means that it is lost already
	}
	<-c.turn
	c.running.Wait()
}

// read returns how many messages are ready in the queue.
func (c *connection) read(ctx context.Context, queue string) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	asked := c.question(queue)
	var err error
	select {
	case <-asked.done:
		err = asked.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return reading{}, c.settings.explain(err, queue)
	}
	return reading{messages: float64(asked.count)}, nil
}

// question returns the one that is under way for the queue, or a new one. So a queue that the server does not answer
// for is asked for once, however often it is measured.
func (c *connection) question(queue string) *question {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.pending[queue]
	if asked == nil {
		asked = &question{done: make(chan struct{})}
		c.pending[queue] = asked
		c.running.Go(func() {
			asked.count, asked.err = c.ask(queue)
			c.mu.Lock()
			delete(c.pending, queue)
			c.mu.Unlock()
			close(asked.done)
		})
	}
	return asked
}

func (c *connection) ask(queue string) (int, error) {
	ctx, cancel := context.WithTimeout(c.ctx, trigger.MeasureTimeout)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	leave := sync.OnceFunc(func() { <-c.slots })
	defer leave()
	// The library cannot be told to give up, so the slot is left to others and the channel to the server.
	stop := context.AfterFunc(ctx, leave)
	defer stop()
	used, err := c.current(ctx)
	if err != nil {
		return 0, err
	}
	channel, err := used.channel()
	if err != nil {
		return 0, err
	}
	// To declare passively is to ask for the queue's name and counts. The server closes the channel with an error.
	declared, err := channel.QueueDeclarePassive(queue, false, false, false, false, nil)
	if err != nil {
		return 0, err
	}
	used.put(channel)
	return declared.Messages, nil
}

// channel returns one that is not in use.
func (s *session) channel() (*amqp.Channel, error) {
	select {
	case channel := <-s.idle:
		return channel, nil
	default:
		return s.connection.Channel()
	}
}

func (s *session) put(channel *amqp.Channel) {
	select {
	case s.idle <- channel:
	default:
		_ = channel.Close() // one too many, after a slow answer; an error means that it is closed already
	}
}

// current returns the session, made anew where there is none.
func (c *connection) current(ctx context.Context) (*session, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case c.ctx.Err() != nil:
		return nil, errClosed
	case c.session != nil && !c.session.connection.IsClosed():
		return c.session, nil
	case c.failure != nil && time.Since(c.failedAt) < retryAfter:
		return nil, c.failure
	}
	c.session = nil
	made, err := c.settings.open(ctx, c.ctx, c.config)
	c.failure, c.failedAt = err, time.Now()
	if err != nil {
		return nil, err
	}
	c.session = &session{connection: made, idle: make(chan *amqp.Channel, channels)}
	return c.session, nil
}

// open connects and logs in, or gives up when ctx or life ends.
func (s amqpSettings) open(ctx, life context.Context, config *tls.Config) (*amqp.Connection, error) {
	var socket *watchedConn
	stop := func() bool { return true }
	options := amqp.Config{
		Vhost: s.vhost, Heartbeat: heartbeat, Locale: "en_US",
		Properties:      amqp.Table{"product": "Offboard", "connection_name": "offboard"},
		TLSClientConfig: config.Clone(),
		Dial: func(kind, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, kind, address)
			if err != nil {
				return nil, err
			}
			socket = &watchedConn{Conn: conn}
			// Logging in is not worth waiting for when nobody needs the connection any more.
			stop = context.AfterFunc(life, func() { _ = conn.Close() })
			if deadline, limited := ctx.Deadline(); limited {
				err = conn.SetDeadline(deadline) // the library takes it off when the connection is established
			}
			return socket, err
		},
	}
	options.TLSClientConfig.ServerName = s.serverName
	if s.external {
		options.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	made, err := amqp.DialConfig(s.url, options)
	stop()
	if err == nil {
		return made, nil
	}
	if socket == nil {
		return nil, err
	}
	_ = socket.Close() // the library leaves it open after some errors
	if socket.timedOut.Load() {
		return nil, context.DeadlineExceeded // the library takes it for wrong credentials
	}
	return nil, err
}

// watchedConn tells why a connection failed, which the library does not.
type watchedConn struct {
	net.Conn
	timedOut atomic.Bool
}

// Read reads from the connection.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.timedOut.Store(true)
	}
	return n, err
}

// explain says which server failed, what that means, and what would be right.
func (s amqpSettings) explain(err error, queue string) error {
	var reply *amqp.Error
	hint := ""
	switch {
	case errors.Is(err, amqp.ErrCredentials):
		// RabbitMQ closes the connection without a word, so this is what the library takes any loss at that time for.
		hint = fmt.Sprintf("does not accept user %q with this password, as far as can be told; "+
			"correct username and password", s.user)
	case errors.Is(err, amqp.ErrSASL):
		hint = "does not offer the way to log in that is asked for"
	case errors.Is(err, amqp.ErrClosed):
		hint = "is not connected any more"
	case errors.As(err, &reply) && !reply.Server && reply.Code == amqp.FrameError:
		// The library has no other word for a connection that fails.
		if hint = "closed the connection"; !strings.Contains(reply.Reason, "EOF") {
			hint = "speaks no AMQP on this port; give its port for AMQP, or amqps:// where it is for TLS"
		}
	case errors.As(err, &reply) && reply.Server:
		switch reply.Code {
		case amqp.NotFound:
			hint = fmt.Sprintf("has no queue %q in virtual host %q; declare it, or correct queueName and the virtual host",
				queue, s.vhost)
		case amqp.AccessRefused:
			hint = fmt.Sprintf("denies user %q the login or queue %q; correct the password or the user's permissions",
				s.user, queue)
		case amqp.NotAllowed:
			hint = fmt.Sprintf("does not let user %q into virtual host %q; correct host or vhostName, or permit it",
				s.user, s.vhost)
		case amqp.ResourceLocked:
			hint = fmt.Sprintf("keeps queue %q for another connection alone: it is exclusive", queue)
		}
	}
	return network.Error("rabbitmq at "+s.address, hint, err, strings.HasPrefix(s.url, "amqps:"), s.password)
}
