// Package httpget reads documents over HTTP for triggers, in the way of KEDA's types: the parameters of authentication
// and TLS that several types share, connections that triggers share, and replies and errors that stay small. It knows
// nothing of what a document says.
package httpget

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
	"github.com/offboard-dev/offboard/internal/trigger/shared"
)

const (
	// defaultTimeout is that of KEDA's HTTP clients.
	defaultTimeout = 3 * time.Second
	// maxBody is how many bytes of a document are read.
	maxBody = 32 << 20
	// maxRedirects is how often a server may send the client elsewhere.
	maxRedirects = 10
	// idlePerHost is how many connections to one server are kept for the next measurement.
	idlePerHost = 16
	// idleTimeout is how long a connection is kept.
	idleTimeout = 90 * time.Second
)

// Clients shares connections between the triggers of a process whose TLS settings are equal.
type Clients struct {
	transports *shared.Clients[network.TLS, *http.Transport]
}

// NewClients returns an empty set. It needs no closing.
func NewClients() *Clients {
	return &Clients{shared.New[network.TLS]((*http.Transport).CloseIdleConnections)}
}

// Client reads documents with the authentication of one trigger.
type Client struct {
	http    http.Client
	timeout time.Duration
	header  http.Header
	query   url.Values
	secrets []string
	release func()
}

// Open returns a client from the parameters that AuthParams declares, unsafeSsl and timeout. It does not connect.
func (c *Clients) Open(values trigger.Values) (*Client, error) {
	modes := values.List(paramModes)
	settings := network.TLS{Insecure: values.Bool(paramUnsafeSSL), CA: values.String(paramCA)}
	if slices.Contains(modes, modeTLS) {
		settings.Cert, settings.Key = values.String(paramCert), values.String(paramKey)
	}
	config, err := settings.Config()
	if err != nil {
		return nil, err
	}
	made := &Client{timeout: values.Duration(paramTimeout), header: http.Header{}, query: url.Values{}}
	if made.timeout == 0 {
		made.timeout = defaultTimeout
	}
	made.authenticate(modes, values)
	transport, release := c.transports.Acquire(settings, func() *http.Transport {
		return &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     config,
			MaxIdleConnsPerHost: idlePerHost,
			IdleConnTimeout:     idleTimeout,
		}
	})
	made.http, made.release = http.Client{Transport: transport, CheckRedirect: redirect}, release
	return made, nil
}

// authenticate prepares what each request shows of who asks.
func (c *Client) authenticate(modes []string, values trigger.Values) {
	for _, mode := range modes {
		switch mode {
		case modeCustom:
			c.header.Set(values.String(paramCustomHeader), values.String(paramCustomValue))
			c.secrets = append(c.secrets, values.String(paramCustomValue))
		case modeAPIKey:
			key, name := values.String(paramAPIKey), values.String(paramKeyParam)
			c.secrets = append(c.secrets, key, url.QueryEscape(key))
			switch {
			case values.String(paramMethod) != methodQuery && name == "":
				c.header.Set("X-API-KEY", key)
			case values.String(paramMethod) != methodQuery:
				c.header.Set(name, key)
			case name == "":
				c.query.Set("api_key", key)
			default:
				c.query.Set(name, key)
			}
		}
	}
	// After the header of custom, which may be the same one, as in KEDA.
	switch {
	case slices.Contains(modes, modeBearer):
		token := values.String(paramBearerToken)
		c.header.Set("Authorization", "Bearer "+token)
		c.secrets = append(c.secrets, token)
	case slices.Contains(modes, modeBasic):
		password := values.String(paramPassword)
		both := base64.StdEncoding.EncodeToString([]byte(values.String(paramUsername) + ":" + password))
		c.header.Set("Authorization", "Basic "+both)
		c.secrets = append(c.secrets, password, both)
	}
	c.secrets = slices.DeleteFunc(c.secrets, func(secret string) bool { return secret == "" })
}

// redirect follows the server within bounds. Another server is shown nothing that was meant for the first.
func redirect(request *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("redirects more than %d times", maxRedirects)
	}
	if request.URL.Host != via[0].URL.Host {
		request.Header = http.Header{}
	}
	return nil
}

// Get returns the document at the address. The header adds to that of authentication, which wins. The error says where
// it failed and shows no secret; a StatusError means that the server answered with another status than 2xx.
func (c *Client) Get(ctx context.Context, address *url.URL, header http.Header) ([]byte, error) {
	body, err := c.get(ctx, address, header)
	if err != nil {
		return nil, c.explain(err, address)
	}
	return body, nil
}

func (c *Client) get(ctx context.Context, address *url.URL, header http.Header) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.authenticated(address), http.NoBody)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	for name, values := range c.header {
		request.Header[name] = values
	}
	reply, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxBody:
		return nil, fmt.Errorf("sends more than %d MiB", maxBody>>20)
	case reply.StatusCode/100 != 2:
		return nil, StatusError{Code: reply.StatusCode, Body: body}
	}
	return body, nil
}

// authenticated returns the address with what authentication adds to its query.
func (c *Client) authenticated(address *url.URL) string {
	if len(c.query) == 0 {
		return address.String()
	}
	full := *address
	query := full.Query()
	for name, values := range c.query {
		query[name] = values
	}
	full.RawQuery = query.Encode()
	return full.String()
}

// Close gives up the client's share in its connections.
func (c *Client) Close() { c.release() }
