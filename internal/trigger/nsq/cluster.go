package nsq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/offboard-dev/offboard/internal/trigger/network"
)

const (
	// maxAnswer is how many bytes a server may send; a channel takes about 300, and its consumers are left out.
	maxAnswer = 16 << 20
	// maxConcurrent is how many servers one measurement asks at a time.
	maxConcurrent = 16
	// idleTimeout is for how long a connection that is not used stays open.
	idleTimeout = 90 * time.Second
)

// cluster asks nsqlookupds and nsqds.
type cluster struct {
	client *http.Client
	https  bool
}

func newClient(s settings) *http.Client {
	config, err := network.TLS{Insecure: s.insecure}.Config()
	if err != nil {
		panic(err) // only certificates can be wrong, and there are none
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config,
			MaxIdleConnsPerHost: maxConcurrent, IdleConnTimeout: idleTimeout,
		},
		// Neither nsqlookupd nor nsqd redirects; what does is another server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what a server says; complete tells whether it has what a server of that kind always says.
type answer interface{ complete() bool }

// lookupAnswer is what nsqlookupd tells of a topic (https://nsq.io/components/nsqlookupd.html).
type lookupAnswer struct {
	Producers []struct {
		BroadcastAddress string `json:"broadcast_address"`
		HTTPPort         int    `json:"http_port"`
	} `json:"producers"`
}

func (a *lookupAnswer) complete() bool { return a.Producers != nil }

// nsqds returns the addresses of the nsqds that have the topic, as all nsqlookupds together know them; none when no one
// knows the topic.
func (c cluster) nsqds(ctx context.Context, lookupds []string, topic string) ([]string, error) {
	answers := make([]lookupAnswer, len(lookupds))
	err := each(ctx, lookupds, func(ctx context.Context, i int, address string) error {
		err := c.get(ctx, "nsqlookupd", address, "/lookup", url.Values{"topic": {topic}}, &answers[i])
		if errors.Is(err, errNotFound) {
			return nil // another may know it
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	found := map[string]struct{}{}
	for i, answer := range answers {
		for _, producer := range answer.Producers {
			address := net.JoinHostPort(producer.BroadcastAddress, strconv.Itoa(producer.HTTPPort))
			if checkAddress(address) != "" {
				return nil, fmt.Errorf("nsqlookupd at %s names an nsqd without an address that can be used; "+
					"correct the nsqd's --broadcast-address and --broadcast-http-port", lookupds[i])
			}
			found[address] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// statsAnswer is what nsqd tells of its topics (https://nsq.io/components/nsqd.html).
type statsAnswer struct {
	Version string       `json:"version"`
	Topics  []topicStats `json:"topics"`
}

func (a *statsAnswer) complete() bool { return a.Version != "" }

type topicStats struct {
	Name     string `json:"topic_name"`
	Depth    int64  `json:"depth"`
	Channels []struct {
		Name   string `json:"channel_name"`
		Depth  int64  `json:"depth"`
		Paused bool   `json:"paused"`
	} `json:"channels"`
}

// depth returns how many messages wait in the channel on the nsqds.
func (c cluster) depth(ctx context.Context, nsqds []string, topic, channel string) (float64, error) {
	// Asking for the channel as well would leave out the topic where there is no such channel.
	query := url.Values{
		"format": {"json"}, "topic": {topic}, "include_clients": {"false"}, "include_mem": {"false"},
	}
	depths := make([]float64, len(nsqds))
	err := each(ctx, nsqds, func(ctx context.Context, i int, address string) error {
		var answer statsAnswer
		if err := c.get(ctx, "nsqd", address, "/stats", query, &answer); err != nil {
			return err
		}
		depths[i] = float64(answer.depth(topic, channel))
		return nil
	})
	var sum float64
	for _, depth := range depths {
		sum += depth
	}
	return sum, err
}

// depth returns how many messages wait for the channel on one nsqd. As long as the channel does not exist, they wait in
// the topic, and a Job that makes the channel gets them. While it is paused, nobody gets any.
func (a *statsAnswer) depth(topic, channel string) int64 {
	at := slices.IndexFunc(a.Topics, func(t topicStats) bool { return t.Name == topic })
	if at < 0 {
		return 0
	}
	for _, known := range a.Topics[at].Channels {
		switch {
		case known.Name != channel:
		case known.Paused:
			return 0
		default:
			return max(known.Depth, 0)
		}
	}
	return max(a.Topics[at].Depth, 0)
}

// each asks all servers at the same time, up to a limit. The first error ends it.
func each(ctx context.Context, addresses []string, ask func(context.Context, int, string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxConcurrent)
	for i, address := range addresses {
		group.Go(func() error { return ask(ctx, i, address) })
	}
	return group.Wait()
}

// errNotFound is the error of an nsqlookupd that does not know the topic.
var errNotFound = errors.New("does not know the topic")

// get asks a server for JSON. Its errors name the server and hold nothing of what it answers.
func (c cluster) get(ctx context.Context, kind, address, path string, query url.Values, into answer) error {
	target := url.URL{Scheme: "http", Host: address, Path: path, RawQuery: query.Encode()}
	if c.https {
		target.Scheme = "https"
	}
	fail := func(err error) error {
		hint := network.Hint(err, c.https)
		if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
			hint = "speaks no TLS on this port; leave useHttps out, or give the HTTPS port"
		}
		if hint != "" {
			hint += ": "
		}
		return fmt.Errorf("%s at %s %s%w", kind, address, hint, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return fail(errors.New("has an address that makes no URL"))
	}
	request.Header.Set("Accept", "application/json")
	response, err := c.client.Do(request)
	if err != nil {
		var wrapped *url.Error // it repeats the URL
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return fail(err)
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fail(err)
	case len(content) > maxAnswer:
		return fail(fmt.Errorf("answers with more than %d bytes", maxAnswer))
	case response.StatusCode == http.StatusNotFound && bytes.Contains(content, []byte("TOPIC_NOT_FOUND")):
		return fail(errNotFound)
	case response.StatusCode != http.StatusOK:
		return fail(fmt.Errorf("answers with status %d; give the addresses of %ss for HTTP", response.StatusCode, kind))
	case json.Unmarshal(content, into) != nil || !into.complete():
		return fail(fmt.Errorf("does not answer as %s does; give the addresses of %ss for HTTP", kind, kind))
	}
	return nil
}
