package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

const (
	// mostConnections is how many connections are open to one server at a time.
	mostConnections = 4
	// mostReply is how many bytes of a reply are read; a consumer takes about 1 kB.
	mostReply = 64 << 20
)

// monitorSettings is all that makes what is read differ; it stays comparable.
type monitorSettings struct {
	scheme, host   string
	user, password string
	account        string
}

// monitor reads the monitoring endpoints of one cluster:
// https://docs.nats.io/running-a-nats-service/nats_admin/monitoring.
type monitor struct {
	settings monitorSettings
	client   *http.Client

	// ctx ends with the monitor.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu sync.Mutex
	// reads are under way, by the server's host and port; next ones begin when those have ended.
	reads, next map[string]*read
}

// read is one reading on behalf of all who asked before it began.
type read struct {
	done chan struct{}
	info jsInfo
	err  error
}

func newMonitor(settings monitorSettings) *monitor {
	// What is read for several triggers outlives the context of the one that happens to ask first.
	ctx, cancel := context.WithCancel(context.Background())
	return &monitor{
		settings: settings, ctx: ctx, cancel: cancel, reads: map[string]*read{}, next: map[string]*read{},
		client: &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: mostConnections, MaxIdleConnsPerHost: mostConnections,
			IdleConnTimeout: 90 * time.Second,
		}},
	}
}

func (m *monitor) stop() {
	m.cancel()
	m.running.Wait()
	m.client.CloseIdleConnections()
}

// jsInfo is what /jsz tells.
type jsInfo struct {
	Accounts []struct {
		ID      string `json:"id"`
		Name    string `json:"name"`
		Streams []struct {
			Name      string         `json:"name"`
			Consumers []consumerInfo `json:"consumer_detail"`
		} `json:"stream_detail"`
	} `json:"account_details"`
	// Meta is missing where there is no cluster.
	Meta *struct {
		Size int `json:"cluster_size"`
	} `json:"meta_cluster"`
}

type consumerInfo struct {
	Name       string `json:"name"`
	Pending    uint64 `json:"num_pending"`
	AckPending uint64 `json:"num_ack_pending"`
	// Cluster is about the servers that have the consumer, of which the replicas are those other than the one asked.
	Cluster struct {
		Leader   string `json:"leader"`
		Replicas []struct {
			Name string `json:"name"`
		} `json:"replicas"`
	} `json:"cluster"`
}

// led tells whether the server that was asked leads the consumer. Others may be behind.
func (c consumerInfo) led() bool {
	for _, replica := range c.Cluster.Replicas {
		if replica.Name == c.Cluster.Leader {
			return false
		}
	}
	return c.Cluster.Leader != ""
}

func (c consumerInfo) lag() float64 { return float64(c.Pending) + float64(c.AckPending) }

// consumerName says which consumer is meant.
type consumerName struct{ account, accountID, stream, consumer string }

// errMissing is the error of an account, a stream or a consumer that a server does not have.
type errMissing string

func (e errMissing) Error() string { return "it has no " + string(e) }

// find returns what the server tells of the consumer. The error is errMissing when it has none.
func (n consumerName) find(info jsInfo) (consumerInfo, error) {
	missing := fmt.Sprintf("account %q with JetStream", cmp.Or(n.account, n.accountID))
	for _, account := range info.Accounts {
		// Servers that need no public keys have the name as the id too.
		if account.ID != cmp.Or(n.accountID, n.account) && (n.account == "" || account.Name != n.account) {
			continue
		}
		missing = fmt.Sprintf("stream %q", n.stream)
		for _, stream := range account.Streams {
			if stream.Name != n.stream {
				continue
			}
			for _, consumer := range stream.Consumers {
				if consumer.Name == n.consumer {
					return consumer, nil
				}
			}
			return consumerInfo{}, errMissing(fmt.Sprintf("consumer %q of stream %q", n.consumer, n.stream))
		}
	}
	return consumerInfo{}, errMissing(missing)
}

// lag returns how many messages the consumer has yet to get or to acknowledge, and the host of the server that leads
// it, which is asked first when it is known already.
func (m *monitor) lag(ctx context.Context, asked consumerName, leader string) (lag float64, leads string, err error) {
	first := leader
	if first == "" {
		first = m.settings.host
	}
	info, err := m.read(ctx, first)
	if err != nil && leader == "" {
		return 0, "", m.explain(first, err)
	}
	if err == nil {
		consumer, missing := asked.find(info)
		switch {
		case missing == nil && (consumer.led() || info.Meta == nil || info.Meta.Size < 2):
			return consumer.lag(), first, nil
		case missing != nil && (info.Meta == nil || info.Meta.Size < 2):
			return 0, "", m.explain(first, missing)
		}
	}
	return m.search(ctx, asked)
}

// search asks all servers of the cluster at the same time and takes what the leader of the consumer says.
func (m *monitor) search(ctx context.Context, asked consumerName) (lag float64, leads string, err error) {
	var server serverInfo
	if err := m.get(ctx, m.settings.host, "/varz", nil, &server); err != nil {
		return 0, "", m.explain(m.settings.host, err)
	}
	hosts := server.hosts(m.settings.host)
	type answer struct {
		host     string
		consumer consumerInfo
		err      error
	}
	answers := make(chan answer, len(hosts))
	for _, host := range hosts {
		m.running.Go(func() {
			info, err := m.read(ctx, host)
			found := answer{host: host, err: err}
			if err == nil {
				found.consumer, found.err = asked.find(info)
			}
			answers <- found
		})
	}
	// What tells most of why there is no leader: a server that fails, then one that has the consumer and follows.
	var failed, missing error
	followed := false
	for range hosts {
		found := <-answers
		var none errMissing
		switch {
		case found.err == nil && found.consumer.led():
			return found.consumer.lag(), found.host, nil
		case found.err == nil:
			followed = true
		case errors.As(found.err, &none):
			if missing == nil || strings.HasPrefix(string(none), "consumer") {
				missing = found.err
			}
		default:
			failed = m.explain(found.host, found.err)
		}
	}
	switch {
	case failed != nil:
		return 0, "", fmt.Errorf("the leader of consumer %q of stream %q is not found: %w",
			asked.consumer, asked.stream, failed)
	case followed:
		return 0, "", fmt.Errorf("nats at %s: consumer %q of stream %q has no leader at the moment",
			m.settings.host, asked.consumer, asked.stream)
	default:
		return 0, "", m.explain(m.settings.host, missing)
	}
}

// serverInfo is what /varz tells.
type serverInfo struct {
	// Connect are host:port that clients connect to, of all servers; none where they do not advertise themselves.
	Connect []string `json:"connect_urls"`
	Cluster struct {
		URLs []string `json:"urls"`
	} `json:"cluster"`
}

// hosts returns host:port of the monitoring of each server of the cluster, by the rules of KEDA: the hosts that clients
// connect to, at the port that monitoring has here. Where they do not advertise themselves, the first label of the
// name that servers connect to, before the name of the endpoint: that of a Pod in a headless Service.
func (s serverInfo) hosts(endpoint string) []string {
	name, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		name, port = endpoint, ""
	}
	found := []string{endpoint}
	advertised := s.Connect
	if len(advertised) == 0 {
		advertised = s.Cluster.URLs
	}
	for _, server := range advertised {
		host, _, err := net.SplitHostPort(server)
		if err != nil {
			host = server
		}
		if _, err := netip.ParseAddr(host); err != nil && len(s.Connect) == 0 {
			label, _, _ := strings.Cut(host, ".")
			host = label + "." + name
		}
		if port != "" {
			host = net.JoinHostPort(host, port)
		}
		if host != endpoint {
			found = append(found, host)
		}
	}
	return found
}

// read returns what the server tells, read after the call, together with others who ask at that time: a reply holds all
// consumers of the account.
func (m *monitor) read(ctx context.Context, host string) (jsInfo, error) {
	m.mu.Lock()
	reads := m.reads
	if reads[host] != nil {
		reads = m.next
	}
	joined := reads[host]
	if joined == nil {
		joined = &read{done: make(chan struct{})}
		reads[host] = joined
		if m.reads[host] == joined {
			m.running.Go(func() { m.readAll(host, joined) })
		}
	}
	m.mu.Unlock()
	select {
	case <-joined.done:
		return joined.info, joined.err
	case <-ctx.Done():
		return jsInfo{}, ctx.Err()
	}
}

// readAll reads, and again as long as others have asked in the meantime.
func (m *monitor) readAll(host string, current *read) {
	parameters := url.Values{"acc": {m.settings.account}, "consumers": {"true"}}
	for current != nil {
		ctx, cancel := context.WithTimeout(m.ctx, trigger.MeasureTimeout)
		current.err = m.get(ctx, host, "/jsz", parameters, &current.info)
		cancel()
		m.mu.Lock()
		following := m.next[host]
		delete(m.next, host)
		delete(m.reads, host)
		if following != nil {
			m.reads[host] = following
		}
		m.mu.Unlock()
		close(current.done)
		current = following
	}
}

// get asks a server and decodes the reply.
func (m *monitor) get(ctx context.Context, host, path string, parameters url.Values, into any) error {
	asked := url.URL{Scheme: m.settings.scheme, Host: host, Path: path, RawQuery: parameters.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, asked.String(), nil)
	if err != nil {
		return err
	}
	if m.settings.user != "" || m.settings.password != "" {
		request.SetBasicAuth(m.settings.user, m.settings.password)
	}
	reply, err := m.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Body.Close() }()
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP status %d %s", reply.StatusCode, http.StatusText(reply.StatusCode))
	}
	if err := json.NewDecoder(io.LimitReader(reply.Body, mostReply)).Decode(into); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.New("the reply is not that of a NATS server's monitoring") // the decoder quotes the reply
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(reply.Body, mostReply)) // so that the connection can be used again
	return nil
}

func (m *monitor) explain(host string, err error) error {
	return network.Error("nats at "+host, "", err, m.settings.scheme == "https", m.settings.password)
}
