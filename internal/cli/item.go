package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/scaledjob"
)

// item is what is known of an item of a queue: its record, and the Job that was made for it.
type item struct {
	queue.Record
	job *control.JobInfo
}

// leased tells whether a runner holds the item by a lease.
func (i item) leased() bool { return i.Record.State == queue.Claimed && !i.At.IsZero() }

// state is the record's, or that the item is being worked on.
func (i item) state() queue.State {
	if i.leased() || i.Record.State == queue.Claimed && i.job != nil && stateOf(*i.job) == jobRunning {
		return queue.Running
	}
	return i.Record.State
}

// holder says who works on the item: the Job, else who has claimed it.
func (i item) holder() string {
	if i.job != nil {
		return i.job.Job.Name
	}
	return i.Owner
}

// ownerKey returns the ScaledJob that holds the claim; false when it is a runner that does, or nobody.
func (i item) ownerKey() (namespace, name string, ok bool) {
	if i.leased() {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(i.Owner, "/")
	return namespace, name, ok && namespace != "" && name != ""
}

// claims returns all claims on the queue with their Jobs, oldest first.
func (s source) claims(ctx context.Context) ([]item, error) {
	records, err := s.records(ctx, queue.Claimed, 0)
	if err != nil {
		return nil, err
	}
	items := make([]item, len(records))
	var namespaces []string
	for i, record := range records {
		items[i].Record = record
		if namespace, _, ok := items[i].ownerKey(); ok && !slices.Contains(namespaces, namespace) {
			namespaces = append(namespaces, namespace)
		}
	}
	type claim struct {
		owner, id string
		attempt   int
	}
	jobs := map[claim]*control.JobInfo{}
	for _, namespace := range namespaces {
		infos, err := s.Jobs(ctx, namespace, "")
		if err != nil && control.ReasonOf(err) != control.NotFound { // the namespace may be gone, and its Jobs with it
			return nil, err
		}
		for _, info := range infos {
			if of, id, attempt := scaledjob.ItemOf(info.Job); s.isQueue(of) {
				owner := namespace + "/" + info.Job.Labels[v1alpha1.LabelScaledJob]
				jobs[claim{owner, id, attempt}] = &info
			}
		}
	}
	for i := range items {
		if _, _, ok := items[i].ownerKey(); ok {
			items[i].job = jobs[claim{items[i].Owner, items[i].ID, items[i].Attempt}]
		}
	}
	return items, nil
}

// isQueue tells whether a Job's annotation means the queue. People name a Redis stream by its key alone, and Jobs name
// its group too, since each group has items of its own; which group it is the owner of a claim tells.
func (s source) isQueue(of string) bool {
	return of == s.queue.Name || strings.HasPrefix(of, url.PathEscape(s.queue.Name)+"/")
}

// partsText shows the parts of an item on one line.
func partsText(parts [][]byte, limit int) string {
	switch len(parts) {
	case 0:
		return ""
	case 1:
		return printable(string(parts[0]), limit)
	}
	return printable(fmt.Sprintf("%d items, the first: %s", len(parts), parts[0]), limit)
}

// isText tells whether bytes can be shown as they are.
func isText(part []byte) bool {
	return utf8.Valid(part) && !strings.ContainsFunc(string(part), func(r rune) bool {
		return !unicode.IsPrint(r) && r != '\n' && r != '\t'
	})
}

// itemContent is what an item consists of: one of its fields says.
type itemContent struct {
	// Item is a text, and Base64 what is none.
	Item   *string `json:"item,omitempty"`
	Base64 []byte  `json:"itemBase64,omitempty"`
	// Parts are the items that were claimed together.
	Parts []itemContent `json:"parts,omitempty"`
}

func contentOf(parts [][]byte) (c itemContent) {
	switch {
	case len(parts) > 1:
		for _, part := range parts {
			c.Parts = append(c.Parts, contentOf([][]byte{part}))
		}
	case len(parts) == 1 && !utf8.Valid(parts[0]):
		c.Base64 = parts[0]
	case len(parts) == 1:
		text := string(parts[0])
		c.Item = &text
	}
	return c
}

// itemObject is an item for programs.
type itemObject struct {
	// ID is empty for a ready item that nobody has named yet.
	ID            string      `json:"id"`
	State         queue.State `json:"state"`
	Attempt       int         `json:"attempt"`
	Failures      int         `json:"failures"`
	TotalFailures int         `json:"totalFailures"`
	Owner         string      `json:"owner,omitempty"`
	Job           string      `json:"job,omitempty"`
	FirstSeen     *time.Time  `json:"firstSeen,omitempty"`
	ClaimedAt     *time.Time  `json:"claimedAt,omitempty"`
	// Due is when it becomes ready, LeaseUntil when its lease ends, DiedAt when it was given up.
	Due          *time.Time     `json:"due,omitempty"`
	LeaseUntil   *time.Time     `json:"leaseUntil,omitempty"`
	DiedAt       *time.Time     `json:"diedAt,omitempty"`
	FirstFailure *queue.Failure `json:"firstFailure,omitempty"`
	LastFailure  *queue.Failure `json:"lastFailure,omitempty"`
	// Size is that of the whole item in bytes, of which a list shows the beginning.
	Size int64 `json:"size"`
	itemContent
}

func (i item) object() itemObject {
	o := itemObject{
		ID: i.ID, State: i.state(), Attempt: i.Attempt, Failures: i.Failures, TotalFailures: i.Total, Owner: i.Owner,
		FirstSeen: known(i.First), ClaimedAt: known(i.Since), FirstFailure: i.FirstFailure, LastFailure: i.LastFailure,
		Size: i.Size, itemContent: contentOf(i.Parts),
	}
	if i.job != nil {
		o.Job = i.job.Job.Namespace + "/" + i.job.Job.Name
	}
	switch i.Record.State {
	case queue.Delayed, queue.Retry:
		o.Due = known(i.At)
	case queue.Dead:
		o.DiedAt = known(i.At)
	case queue.Claimed:
		o.LeaseUntil = known(i.At)
	case queue.Ready, queue.Running, queue.Done:
	}
	return o
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// since returns how long ago something was, until how long it is until then; "-" when that is not known.
func since(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(0, now.Sub(t)))
}

func until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case !t.After(now):
		return "now"
	}
	return duration.HumanDuration(t.Sub(now))
}
