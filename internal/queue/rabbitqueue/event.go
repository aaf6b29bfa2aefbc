package rabbitqueue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/offboard-dev/offboard/internal/queue"
)

// kind is what an event does.
type kind string

const (
	// kindBegin does nothing. A connection that has read back its own knows everything that was before it.
	kindBegin kind = "begin"
	// kindClaim takes messages and then claims, if it has a claim.
	kindClaim kind = "claim"
	// kindSettle settles claims.
	kindSettle kind = "settle"
	// kindSweep puts items whose wait is over back to the ready ones.
	kindSweep kind = "sweep"
	// kindRelease gives all claims of the owner back.
	kindRelease kind = "release"
	// kindRetry and kindDrop are for dead items.
	kindRetry kind = "retry"
	kindDrop  kind = "drop"
	// kindKept tells that the acknowledgements of messages are kept by the server.
	kindKept kind = "kept"
	// kindRestore is a part of the state that a journal begins with.
	kindRestore kind = "restore"
	// kindClose ends the journal.
	kindClose kind = "close"
)

// event is an entry of the journal: a line of JSON, and then the bytes of messages one after another.
type event struct {
	Kind kind `json:"kind"`
	// ID is the event's own, Session the connection's that sends it.
	ID      string `json:"id"`
	Session string `json:"session"`
	// Now is the sender's clock, in milliseconds since 1970.
	Now int64 `json:"now"`

	Take        []taken            `json:"take,omitempty"`
	Claim       *claim             `json:"claim,omitempty"`
	Settlements []queue.Settlement `json:"settlements,omitempty"`
	Owner       string             `json:"owner,omitempty"`
	IDs         []string           `json:"ids,omitempty"`
	// Kept are ids of messages, each with the session that had it last.
	Kept    map[string]string `json:"kept,omitempty"`
	Restore *restored         `json:"restore,omitempty"`
}

// taken is a message that is got from the queue.
type taken struct {
	// Print names the message; see printOf.
	Print string `json:"print"`
	// Doubt tells that it may be one that was taken before.
	Doubt bool `json:"doubt,omitempty"`
	Size  int  `json:"size"`

	body []byte
}

// claim is queue.ClaimOptions as far as they matter.
type claim struct {
	Owner string `json:"owner"`
	Most  int    `json:"most"`
	Holds int    `json:"holds,omitempty"`
	Parts int    `json:"parts,omitempty"`
	Bytes int64  `json:"bytes,omitempty"`
}

// restored is a part of a state. Numbers are in the last part only.
type restored struct {
	Records []*record         `json:"records,omitempty"`
	Prints  map[string]unkept `json:"prints,omitempty"`
	Numbers *numbers          `json:"numbers,omitempty"`
}

var errNoEvent = errors.New("it is no event of Offboard's")

// encode returns what the journal has of the event.
func (e *event) encode() ([]byte, error) {
	for i := range e.Take {
		e.Take[i].Size = len(e.Take[i].body)
	}
	if e.Restore != nil {
		for _, r := range e.Restore.Records {
			r.Sizes = r.Sizes[:0]
			for _, part := range r.parts {
				r.Sizes = append(r.Sizes, len(part))
			}
		}
	}
	head, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	body := bytes.NewBuffer(append(head, '\n'))
	for i := range e.Take {
		body.Write(e.Take[i].body)
	}
	if e.Restore != nil {
		for _, r := range e.Restore.Records {
			for _, part := range r.parts {
				body.Write(part)
			}
		}
	}
	return body.Bytes(), nil
}

// decode reads an entry of the journal. What it returns shares memory with the entry.
func decode(entry []byte) (*event, error) {
	head, rest, found := bytes.Cut(entry, []byte("\n"))
	if !found {
		return nil, errNoEvent
	}
	e := new(event)
	if err := json.Unmarshal(head, e); err != nil {
		return nil, errNoEvent
	}
	switch e.Kind {
	case kindBegin, kindClaim, kindSettle, kindSweep, kindRelease, kindRetry, kindDrop, kindKept, kindRestore, kindClose:
	default:
		return nil, fmt.Errorf("it is an event of the kind %q, perhaps of a later version of Offboard", e.Kind)
	}
	next := func(size int) ([]byte, bool) {
		if size < 0 || size > len(rest) {
			return nil, false
		}
		part := rest[:size:size]
		rest = rest[size:]
		return part, true
	}
	whole := true
	for i := range e.Take {
		e.Take[i].body, found = next(e.Take[i].Size)
		whole = whole && found
	}
	if e.Restore != nil {
		for _, r := range e.Restore.Records {
			if r == nil {
				return nil, errNoEvent
			}
			for _, size := range r.Sizes {
				part, found := next(size)
				r.parts = append(r.parts, part)
				whole = whole && found
			}
			whole = whole && len(r.parts) > 0 && r.known()
		}
	}
	if !whole || len(rest) > 0 {
		return nil, errNoEvent
	}
	return e, nil
}
