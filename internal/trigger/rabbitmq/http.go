package rabbitmq

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

const (
	// mostConnections is how many connections are open to one server at a time.
	mostConnections = 8
	// mostReply is how many bytes of a reply are read; a page of 500 queues takes about 100 kB.
	mostReply = 16 << 20
)

// httpSettings is all that makes one client differ from another; it stays comparable.
type httpSettings struct {
	server string
	tls    network.TLS
}

// api is a client of a management API.
type api struct{ client *http.Client }

func newAPI(config *tls.Config) *api {
	return &api{&http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
		MaxConnsPerHost: mostConnections, MaxIdleConnsPerHost: mostConnections, IdleConnTimeout: 90 * time.Second,
	}}}
}

func (a *api) stop() { a.client.CloseIdleConnections() }

// query is what is asked of a management API: https://www.rabbitmq.com/docs/management#http-api.
type query struct {
	// base is the URL of the management plugin, without credentials.
	base           *url.URL
	user, password string
	vhost, queue   string
	regex          bool
	operation      operation
	pageSize       int64
	readyOnly      bool
	// rates tells that the mode needs them.
	rates   bool
	timeout time.Duration
}

// newQuery reads the host's URL, whose path ends with the virtual host, and the parameters that say what to ask for.
func newQuery(values trigger.Values) (asked query, problem string) {
	const form = "give http://user:password@host:15672/vhost or https://…, with characters such as # / @ " +
		"in a password written as %23 %2F %40"
	parsed, err := url.Parse(values.String(paramHost))
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Hostname() == "" {
		return query{}, "is not a URL for HTTP; " + form
	}
	before, vhost := "", parsed.EscapedPath()
	if slash := strings.LastIndexByte(vhost, '/'); slash >= 0 {
		before, vhost = vhost[:slash], vhost[slash+1:]
	}
	asked = query{
		base: &url.URL{Scheme: parsed.Scheme, Host: parsed.Host}, vhost: "/",
		queue: values.String(paramQueueName), regex: values.Bool(paramUseRegex),
		operation: operation(values.String(paramOperation)), pageSize: values.Int(paramPageSize),
		readyOnly: values.Bool(paramExcludeUnack), rates: modeOf(values) != queueLength,
	}
	if before = strings.TrimRight(before, "/"); before != "" {
		asked.base = asked.base.JoinPath(before)
	}
	if vhost != "" {
		if asked.vhost, err = url.PathUnescape(vhost); err != nil {
			return query{}, "is not a URL for HTTP; " + form
		}
	}
	if named := values.String(paramVhostName); named != "" {
		asked.vhost = named
	}
	asked.user = parsed.User.Username()
	asked.password, _ = parsed.User.Password()
	if values.Has(paramUsername) && values.Has(paramPassword) {
		asked.user, asked.password = values.String(paramUsername), values.String(paramPassword)
	}
	if asked.timeout = values.Duration(paramTimeout); asked.timeout == 0 {
		asked.timeout = trigger.MeasureTimeout
	}
	return asked, ""
}

// queueInfo is what the API tells of a queue. Counts that are missing are not known: statistics come some seconds after
// a queue, and the server may be set to collect none. Rates that are missing are zero: nothing has come or gone yet.
type queueInfo struct {
	Name     string   `json:"name"`
	Messages *float64 `json:"messages"`
	Ready    *float64 `json:"messages_ready"`
	Stats    struct {
		Published rate `json:"publish_details"`
		Delivered rate `json:"deliver_get_details"`
	} `json:"message_stats"`
}

type rate struct {
	Rate float64 `json:"rate"`
}

// page is a part of a list of queues.
type page struct {
	Items []queueInfo `json:"items"`
	Pages int         `json:"page_count"`
	// Matches is how many queues match in all pages.
	Matches int `json:"filtered_count"`
}

// read asks for the queue or the queues.
func (q query) read(ctx context.Context, client *api) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	read, err := q.readQueues(ctx, client)
	if err != nil {
		var refused statusError
		hint := ""
		if errors.As(err, &refused) {
			hint = q.hint(int(refused))
		}
		return reading{}, network.Error("rabbitmq at "+q.base.Redacted(), hint, err, q.base.Scheme == "https", q.password)
	}
	return read, nil
}

func (q query) readQueues(ctx context.Context, client *api) (reading, error) {
	if q.regex {
		return q.readMatches(ctx, client)
	}
	var info queueInfo
	path := "/api/queues/" + escape(q.vhost) + "/" + escape(q.queue)
	if err := q.get(ctx, client, path, url.Values{"columns": {columns}}, &info); err != nil {
		return reading{}, err
	}
	if info.Messages == nil && !q.rates {
		return q.readNew(ctx, client)
	}
	return q.reading(info)
}

// columns are what is asked for of a queue.
const columns = "name,messages,messages_ready,message_stats.publish_details.rate,message_stats.deliver_get_details.rate"

// readNew counts the messages of a queue of which there are no statistics, because it is new.
func (q query) readNew(ctx context.Context, client *api) (reading, error) {
	list := q
	list.queue, list.pageSize = "^"+regexp.QuoteMeta(q.queue)+"$", mostPageSize
	found, err := list.page(ctx, client, 1)
	if err != nil {
		return reading{}, err
	}
	for _, info := range found.Items {
		if info.Name == q.queue {
			return q.reading(info)
		}
	}
	return reading{}, statusError(http.StatusNotFound) // it is gone again
}

// readMatches reads all pages of queues whose names match.
func (q query) readMatches(ctx context.Context, client *api) (reading, error) {
	var readings []reading
	matches := 0
	for number := 1; ; number++ {
		found, err := q.page(ctx, client, number)
		if err != nil {
			return reading{}, err
		}
		if number > 1 && found.Matches != matches {
			return reading{}, errors.New("queues came or went while they were counted")
		}
		matches = found.Matches
		for _, info := range found.Items {
			read, err := q.reading(info)
			if err != nil {
				return reading{}, err
			}
			readings = append(readings, read)
		}
		if number >= found.Pages {
			return q.operation.combine(readings), nil
		}
	}
}

func (q query) page(ctx context.Context, client *api, number int) (page, error) {
	parameters := url.Values{
		"page": {strconv.Itoa(number)}, "page_size": {strconv.FormatInt(q.pageSize, 10)},
		"name": {q.queue}, "use_regex": {"true"}, "columns": {columns},
	}
	if !q.rates {
		// The counts without the statistics cost the server less, and they are those of now.
		parameters.Set("disable_stats", "true")
		parameters.Set("enable_queue_totals", "true")
	}
	var found page
	err := q.get(ctx, client, "/api/queues/"+escape(q.vhost), parameters, &found)
	return found, err
}

// reading takes what is needed from what the API told.
func (q query) reading(info queueInfo) (reading, error) {
	messages := info.Messages
	if q.readyOnly {
		messages = info.Ready
	}
	if messages == nil {
		return reading{}, fmt.Errorf("it has no count of the messages in queue %q: "+
			"the queue is new or down, or the server collects no statistics", info.Name)
	}
	return reading{
		messages: *messages, published: info.Stats.Published.Rate, delivered: info.Stats.Delivered.Rate,
	}, nil
}

// statusError is the status of a reply other than 200.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("HTTP status %d %s", int(e), http.StatusText(int(e)))
}

// get asks for a resource below the base and decodes the reply.
func (q query) get(ctx context.Context, client *api, path string, parameters url.Values, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, q.base.String()+path+"?"+parameters.Encode(), nil)
	if err != nil {
		return err
	}
	if q.user != "" || q.password != "" {
		request.SetBasicAuth(q.user, q.password)
	}
	reply, err := client.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Body.Close() }()
	if reply.StatusCode != http.StatusOK {
		return statusError(reply.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(reply.Body, mostReply)).Decode(into); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.New("the reply is not that of a management API") // the decoder quotes the reply
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(reply.Body, mostReply)) // so that the connection can be used again
	return nil
}

// hint says in words what a status means; "" when it speaks for itself.
func (q query) hint(status int) string {
	switch status {
	case http.StatusUnauthorized:
		if q.user == "" {
			return "requires a user and a password; give username and password in a TriggerAuthentication"
		}
		return fmt.Sprintf("does not accept user %q with this password, or does not let the user see virtual host %q; "+
			"correct username and password, or permit it", q.user, q.vhost)
	case http.StatusForbidden:
		return fmt.Sprintf("denies user %q the management API; give the user the tag management", q.user)
	case http.StatusNotFound:
		if q.regex {
			return fmt.Sprintf("has no virtual host %q, or no management API at this URL; correct host or vhostName", q.vhost)
		}
		return fmt.Sprintf("has no queue %q in virtual host %q, or no management API at this URL; "+
			"declare the queue, or correct queueName and host", q.queue, q.vhost)
	case http.StatusBadRequest:
		if q.regex {
			return fmt.Sprintf("does not take %q for a regular expression; correct queueName", q.queue)
		}
	}
	return ""
}

// escape makes one segment of a path. A plus sign is escaped too, since some versions of the server take it for a
// space.
func escape(segment string) string {
	return strings.ReplaceAll(url.QueryEscape(segment), "+", "%20")
}
