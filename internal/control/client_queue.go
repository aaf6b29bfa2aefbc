package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/offboard-dev/offboard/internal/queue"
)

// PushWith implements Backend. One push holds at most MaxPushBytes and MaxPushItems.
func (c *Client) PushWith(
	ctx context.Context, to Queue, options queue.PushOptions, items [][]byte,
) (queue.Pushed, error) {
	var pushed queue.Pushed
	if err := checkPush(options, len(items)); err != nil {
		return pushed, err
	}
	query := to.query()
	for name, values := range pushQuery(options) {
		query[name] = values
	}
	err := c.sendItems(ctx, "/v1/push-with", query, items, &pushed)
	return pushed, err
}

// Stats implements Backend.
func (c *Client) Stats(ctx context.Context, of Queue) (queue.Stats, error) {
	var stats queue.Stats
	err := c.get(ctx, "/v1/queue/stats", of.query(), &stats)
	return stats, err
}

// Items implements Backend.
func (c *Client) Items(ctx context.Context, of Queue, s Selection) ([]queue.Record, error) {
	query := of.query()
	query.Set("id", s.ID)
	query.Set("state", string(s.State))
	query.Set("skip", strconv.Itoa(s.Skip))
	query.Set("limit", strconv.Itoa(s.Limit))
	var records []queue.Record
	err := c.get(ctx, "/v1/queue/items", query, &records)
	return records, err
}

// Change implements Backend.
func (c *Client) Change(ctx context.Context, of Queue, operation Operation, items []ItemRef) ([]string, error) {
	if err := checkChange(operation, items); err != nil {
		return nil, err
	}
	body, err := json.Marshal(items)
	if err != nil {
		return nil, fmt.Errorf("encode the items: %w", err)
	}
	query := of.query()
	query.Set("operation", string(operation))
	request, err := newRequest(ctx, http.MethodPost, "/v1/queue/change", query, io.NopCloser(bytes.NewReader(body)))
	if err != nil {
		return nil, err
	}
	request.ContentLength = int64(len(body))
	request.Header.Set("Content-Type", "application/json")
	var changed []string
	err = c.do(request, &changed)
	return changed, err
}

// query writes the name of a queue, the reverse of queueOf.
func (q Queue) query() url.Values {
	return url.Values{"queue": {q.Name}, "namespace": {q.Namespace}, "scaledJob": {q.ScaledJob}}
}

// pushQuery writes the options of a push, the reverse of pushOptions.
func pushQuery(o queue.PushOptions) url.Values {
	query := url.Values{}
	if o.Delay > 0 {
		query.Set("delay", o.Delay.String())
	}
	if !o.At.IsZero() {
		query.Set("at", o.At.UTC().Format(time.RFC3339Nano))
	}
	if o.Unique != "" {
		query.Set("unique", o.Unique)
		query.Set("uniqueFor", o.UniqueFor.String())
	}
	return query
}
