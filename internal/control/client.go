package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// answerTimeout is above what the server allows itself, so that its error is seen and not ours.
	answerTimeout = pushTimeout + 10*time.Second
	maxErrorBody  = 1 << 20
)

// Client asks the `offboard up` that works with a data folder. It implements Up.
type Client struct {
	http *http.Client
}

var _ Up = (*Client)(nil)

// NewClient returns a client for the data folder. It connects when it is first asked; Close releases it.
func NewClient(dataDir string) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return dial(ctx, dataDir)
		},
		DisableCompression:    true,
		ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout:       30 * time.Second,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info implements Up.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var info Info
	err := c.get(ctx, "/v1/info", nil, &info)
	return info, err
}

// ScaledJobs implements Backend.
func (c *Client) ScaledJobs(ctx context.Context, namespace string) ([]ScaledJobInfo, error) {
	var infos []ScaledJobInfo
	err := c.get(ctx, "/v1/scaledjobs", url.Values{"namespace": {namespace}}, &infos)
	return infos, err
}

// Jobs implements Backend.
func (c *Client) Jobs(ctx context.Context, namespace, scaledJob string) ([]JobInfo, error) {
	var infos []JobInfo
	err := c.get(ctx, "/v1/jobs", url.Values{"namespace": {namespace}, "scaledJob": {scaledJob}}, &infos)
	return infos, err
}

// Job implements Backend.
func (c *Client) Job(ctx context.Context, namespace, name string) (JobInfo, error) {
	var info JobInfo
	err := c.get(ctx, "/v1/job", url.Values{"namespace": {namespace}, "name": {name}}, &info)
	return info, err
}

// SetPaused implements Backend.
func (c *Client) SetPaused(ctx context.Context, namespace, scaledJob string, paused bool) (bool, error) {
	query := url.Values{
		"namespace": {namespace}, "scaledJob": {scaledJob}, "paused": {strconv.FormatBool(paused)},
	}
	request, err := newRequest(ctx, http.MethodPost, "/v1/pause", query, nil)
	if err != nil {
		return false, err
	}
	var answer pauseAnswer
	err = c.do(request, &answer)
	return answer.Changed, err
}

// Push implements Backend. One push holds at most MaxPushBytes and MaxPushItems.
func (c *Client) Push(ctx context.Context, queue Queue, items [][]byte) (PushResult, error) {
	var result PushResult
	err := c.sendItems(ctx, "/v1/push", queue.query(), items, &result)
	return result, err
}

func (c *Client) sendItems(ctx context.Context, path string, query url.Values, items [][]byte, result any) error {
	if len(items) > MaxPushItems {
		return Errorf(BadRequest, "%d items in one push; at most %d are allowed", len(items), MaxPushItems)
	}
	body, size := encodeItems(items)
	if size > MaxPushBytes {
		return Errorf(BadRequest, "the push has %d bytes; at most %d are allowed", size, MaxPushBytes)
	}
	request, err := newRequest(ctx, http.MethodPost, path, query, io.NopCloser(body))
	if err != nil {
		return err
	}
	request.ContentLength = size
	request.Header.Set("Content-Type", itemsContentType)
	return c.do(request, result)
}

// Logs implements Backend.
func (c *Client) Logs(ctx context.Context, namespace, job string, opts LogOptions) (io.ReadCloser, error) {
	query := logQuery(opts)
	query.Set("namespace", namespace)
	query.Set("job", job)
	request, err := newRequest(ctx, http.MethodGet, "/v1/log", query, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.send(request) //nolint:bodyclose // the reader closes it
	if err != nil {
		return nil, err
	}
	return &logReader{ctx: ctx, response: response}, nil
}

// logQuery writes the options of a request for logs, the reverse of logOptions.
func logQuery(opts LogOptions) url.Values {
	query := url.Values{
		"pod":       {opts.Pod},
		"container": {opts.Container},
		"follow":    {strconv.FormatBool(opts.Follow)},
		"previous":  {strconv.FormatBool(opts.Previous)},
	}
	if opts.Tail != nil {
		query.Set("tail", strconv.FormatInt(*opts.Tail, 10))
	}
	return query
}

// logReader reads a stream of output, at whose end the trailers tell whether it is complete.
type logReader struct {
	ctx      context.Context
	response *http.Response
}

func (r *logReader) Read(p []byte) (int, error) {
	n, err := r.response.Body.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		if reason := r.response.Trailer.Get(trailerReason); reason != "" {
			message, escapeErr := url.QueryUnescape(r.response.Trailer.Get(trailerMessage))
			if escapeErr != nil {
				message = "the stream of output ended early"
			}
			err = &Error{Reason: Reason(reason), Message: message}
		}
	case r.ctx.Err() != nil:
		err = r.ctx.Err()
	default:
		err = Errorf(Unavailable, "offboard up ended the stream of output early: %w", err)
	}
	return n, err
}

func (r *logReader) Close() error { return r.response.Body.Close() }

func (c *Client) get(ctx context.Context, path string, query url.Values, result any) error {
	request, err := newRequest(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	return c.do(request, result)
}

func (c *Client) do(request *http.Request, result any) error {
	response, err := c.send(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if err := json.NewDecoder(response.Body).Decode(result); err != nil {
		if ctxErr := request.Context().Err(); ctxErr != nil {
			return ctxErr
		}
		return Errorf(Unavailable, "read the answer of offboard up: %w", err)
	}
	// Reading to the end is what lets the connection be used again.
	_, _ = io.CopyN(io.Discard, response.Body, 1)
	return nil
}

// send returns the response to a request that succeeded, whose body the caller closes, or the error that the server
// told.
func (c *Client) send(request *http.Request) (*http.Response, error) {
	response, err := c.http.Do(request)
	if err != nil {
		var own *Error
		switch {
		case errors.As(err, &own):
			return nil, own
		case request.Context().Err() != nil:
			return nil, request.Context().Err()
		}
		// The URL that a *url.Error shows is of no use to a reader: there is no such host.
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err
		}
		if netErr := net.Error(nil); errors.As(err, &netErr) && netErr.Timeout() {
			return nil, Errorf(Timeout, "offboard up does not answer: %w", err)
		}
		return nil, Errorf(Unavailable, "talk to offboard up: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	var body errorBody
	err = json.NewDecoder(io.LimitReader(response.Body, maxErrorBody)).Decode(&body)
	if err != nil || body.Message == "" {
		return nil, Errorf(Internal, "offboard up answered with the status %s and no explanation", response.Status)
	}
	return nil, &Error{Reason: body.Reason, Message: body.Message}
}

func newRequest(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Request, error) {
	target := url.URL{Scheme: "http", Host: "offboard", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("make a request to offboard up: %w", err)
	}
	return request, nil
}
