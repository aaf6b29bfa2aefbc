package natsqueue

import (
	"context"
	"sync"
	"time"
)

// tellsEach is how often within AckWait the server is told that a message is in progress, so that one word may be late.
const tellsEach = 3

// progress keeps the messages of one claim in progress, from when they are fetched until they are acknowledged or put
// back: however short AckWait is and however long the log takes, the server delivers them to nobody else meanwhile.
type progress struct {
	mu       sync.Mutex
	messages []message
	stop     func()
}

// add keeps further messages in progress. ackWait is that of their consumer.
func (p *progress) add(messages []message, ackWait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = append(p.messages, messages...)
	if p.stop != nil || len(messages) == 0 || ackWait < tellsEach {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var telling sync.WaitGroup
	telling.Go(func() {
		ticker := time.NewTicker(ackWait / tellsEach)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				p.tell()
			}
		}
	})
	p.stop = func() { cancel(); telling.Wait() }
}

func (p *progress) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.messages {
		_ = m.InProgress() // an error means that it is acknowledged or put back by now, or that there is no connection
	}
}

// end tells no more.
func (p *progress) end() {
	p.mu.Lock()
	stop := p.stop
	p.mu.Unlock()
	if stop != nil {
		stop()
	}
}
