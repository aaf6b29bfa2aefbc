package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// How often the nodes are asked which of them serves which slots: while all is well, while something is not, and at the
// very most.
const (
	slotsCheck   = 5 * time.Second
	slotsTrouble = time.Second
	slotsPause   = 100 * time.Millisecond
)

// nodeGrace is for how long the connection to a node is kept that serves no slot any more: longer than what is under
// way there takes.
const nodeGrace = 15 * time.Second

// maxRedirections is how often one reading or change follows a cluster's nodes that name another.
const maxRedirections = 8

// cluster is a Redis Cluster: a connection to each node that serves slots, and the knowledge which serves which. Its
// goroutine starts with the first use and ends with stop.
type cluster struct {
	*usage

	settings settings
	log      *slog.Logger

	startOnce sync.Once
	cancel    context.CancelFunc
	done      chan struct{}
	// refresh asks for the slots to be asked for soon.
	refresh chan struct{}

	mu sync.Mutex
	// owners are the nodes by slot; empty until the slots are known, nil for one that no node serves.
	owners []*connection
	nodes  map[string]*connection
	// needed tells when a node was last known to serve slots, or asked for one on its way to it.
	needed map[string]time.Time
	// err says why the slots are not known.
	err error
	// learned is closed when owners or err change.
	learned  chan struct{}
	watchers map[*slotWatcher]struct{}
	// trouble tells that a key could not be read or changed although its node answers.
	trouble bool
	// answered is the address of the node that last told the slots.
	answered string
}

// slotWatcher is told of changes of a key, wherever it is.
type slotWatcher struct {
	key     string
	slot    int
	changed func()
	node    *connection
	// forget ends watching at the node.
	forget func()
}

func newCluster(s settings, log *slog.Logger) *cluster {
	return &cluster{
		usage:    newUsage(),
		settings: s,
		log:      log,
		done:     make(chan struct{}),
		refresh:  make(chan struct{}, 1),
		nodes:    map[string]*connection{},
		needed:   map[string]time.Time{},
		learned:  make(chan struct{}),
		watchers: map[*slotWatcher]struct{}{},
	}
}

// node returns the settings by which one node is reached.
func (s settings) node(address string) settings {
	s.topology, s.addresses = clusterNode, address
	return s
}

func (c *cluster) start() {
	c.startOnce.Do(func() {
		// The cluster outlives the context of the trigger that happens to use it first.
		ctx, cancel := context.WithCancel(context.Background())
		c.cancel = cancel
		go c.run(ctx)
	})
}

// stop implements server.
func (c *cluster) stop() {
	c.startOnce.Do(func() { close(c.done) })
	if c.cancel != nil {
		c.cancel()
	}
	<-c.done
	c.mu.Lock()
	nodes := c.nodes
	c.nodes, c.owners = map[string]*connection{}, nil
	c.fail(errClosed)
	c.mu.Unlock()
	for _, node := range nodes {
		node.stop()
	}
}

// run asks for the slots again and again, until ctx ends.
func (c *cluster) run(ctx context.Context) {
	defer close(c.done)
	for {
		ranges, err := c.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		delay := slotsCheck
		if err != nil {
			c.mu.Lock()
			c.fail(err)
			c.mu.Unlock()
			delay = slotsTrouble
		} else if c.learn(ranges) {
			delay = slotsTrouble
		}
		if !network.Sleep(ctx, slotsPause) {
			return
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-c.refresh:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// ask returns the slots as the first node that answers tells them.
func (c *cluster) ask(ctx context.Context) ([]slotRange, error) {
	c.mu.Lock()
	addresses := c.settings.servers()
	seeds := len(addresses)
	if c.answered != "" {
		addresses, seeds = append([]string{c.answered}, addresses...), seeds+1
	}
	addresses = append(addresses, slices.Sorted(maps.Keys(c.nodes))...)
	c.mu.Unlock()
	var failure error
	asked := map[string]bool{}
	for i, address := range addresses {
		if asked[address] {
			continue
		}
		asked[address] = true
		answer, err := ask(ctx, c.settings.node(address), address, "CLUSTER", "SLOTS")
		var ranges []slotRange
		if err == nil {
			ranges, err = parseSlots(answer, address)
		}
		if err == nil {
			c.mu.Lock()
			c.answered = address
			c.mu.Unlock()
			return ranges, nil
		}
		if i >= seeds && failure != nil {
			continue // the error need not list every node
		}
		err = explain(err, address, c.settings.node(address))
		if failure != nil {
			err = fmt.Errorf("%w; %w", failure, err)
		}
		failure = err
	}
	return nil, failure
}

// fail notes that the slots could not be asked for. What is known is kept: each node's connection tells how it fares.
// The caller holds mu.
func (c *cluster) fail(err error) {
	news := c.err == nil || c.err.Error() != err.Error()
	c.err = err
	if c.owners != nil || !news {
		return
	}
	close(c.learned)
	c.learned = make(chan struct{})
	for w := range c.watchers {
		w.changed()
	}
}

// learn takes the slots, and tells whether something is wrong, so that it is worth while to ask again soon. Watchers
// are told where their keys have gone to another node.
func (c *cluster) learn(ranges []slotRange) (trouble bool) {
	c.mu.Lock()
	owners := make([]*connection, redisqueue.Slots)
	for _, r := range ranges {
		node := c.nodeAt(r.address)
		for slot := r.first; slot <= r.last; slot++ {
			owners[slot] = node
		}
	}
	c.owners, c.err = owners, nil
	close(c.learned)
	c.learned = make(chan struct{})
	for w := range c.watchers {
		// After trouble a key may be readable again.
		if c.attach(w) || c.trouble {
			w.changed()
		}
	}
	trouble, c.trouble = c.trouble || slices.Contains(owners, nil), false
	var left []*connection
	for address, node := range c.nodes {
		if time.Since(c.needed[address]) > nodeGrace {
			left = append(left, node)
			delete(c.nodes, address)
			delete(c.needed, address)
		}
		trouble = trouble || node.current().err != nil
	}
	c.mu.Unlock()
	for _, node := range left {
		node.stop()
	}
	return trouble
}

// nodeAt returns the connection to the node at the address, which is needed. The caller holds mu.
func (c *cluster) nodeAt(address string) *connection {
	c.needed[address] = time.Now()
	if c.nodes[address] == nil {
		c.nodes[address] = newConnection(c.settings.node(address), c.log, c.usage)
	}
	return c.nodes[address]
}

// attach lets the watcher watch where its key is now, and tells whether that is elsewhere than before. The caller holds
// mu.
func (c *cluster) attach(w *slotWatcher) (moved bool) {
	var node *connection
	if c.owners != nil {
		node = c.owners[w.slot]
	}
	if node == w.node {
		return false
	}
	if w.forget != nil {
		w.forget()
	}
	w.node, w.forget = node, nil
	if node != nil {
		w.forget = node.watch(w.key, w.changed)
	}
	return true
}

// moved notes that a slot is at another node than was known.
func (c *cluster) moved(slot int, address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owners == nil {
		return
	}
	c.owners[slot] = c.nodeAt(address)
	for w := range c.watchers {
		if w.slot == slot && c.attach(w) {
			w.changed()
		}
	}
	c.askSoon()
}

// asked returns the connection to a node to which a slot is on its way; nil when nobody uses the cluster any more.
func (c *cluster) asked(address string) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owners == nil {
		return nil
	}
	return c.nodeAt(address)
}

// askSoon asks for the slots to be asked for soon.
func (c *cluster) askSoon() {
	select {
	case c.refresh <- struct{}{}:
	default:
	}
}

// note lets the slots be asked for after an error that a change of the cluster may explain.
func (c *cluster) note(err error) {
	switch replyWord(err) {
	case "":
		if isLost(err) {
			c.askSoon()
		}
	case "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK":
		c.mu.Lock()
		c.trouble = true
		c.mu.Unlock()
		c.askSoon()
	}
}

// owner returns the node that serves a slot. It waits while the slots are asked for the first time.
func (c *cluster) owner(ctx context.Context, slot int) (*connection, error) {
	c.start()
	for {
		c.mu.Lock()
		owners, err, learned := c.owners, c.err, c.learned
		var node *connection
		if owners != nil {
			node = owners[slot]
		}
		c.mu.Unlock()
		switch {
		case node != nil:
			return node, nil
		case owners != nil:
			return nil, fmt.Errorf("redis cluster at %s: no node serves slot %d, which holds the key",
				c.settings.addresses, slot)
		case err != nil:
			return nil, err
		}
		select {
		case <-learned:
		case <-ctx.Done():
			return nil, explain(ctx.Err(), c.settings.addresses, c.settings)
		}
	}
}

// route lets do use the node that serves the key, and others that nodes name. again tells that do may be repeated also
// when it may have taken effect.
func (c *cluster) route(
	ctx context.Context, key string, again bool, do func(node *connection, asking bool) error,
) error {
	slot := int(redisqueue.Slot(key))
	var next *redirection
	for redirections := 0; ; redirections++ {
		node, err := c.owner(ctx, slot)
		if err != nil {
			return err
		}
		asking := next != nil && next.ask
		if asking {
			if node = c.asked(next.address); node == nil {
				return errClosed
			}
		}
		if err = do(node, asking); err == nil {
			return nil
		}
		next = redirectionOf(err, node.settings.addresses)
		if redirections == maxRedirections || ctx.Err() != nil {
			c.note(err)
			return err
		}
		switch {
		case next != nil:
			if !next.ask {
				c.moved(slot, next.address)
			}
		case replyWord(err) == "TRYAGAIN" && network.Sleep(ctx, slotsPause):
			// Some of the keys are on their way to another node; the server did nothing.
			redirections--
		case (again && isLost(err) || errors.Is(err, errClosed)) && !c.serves(node, slot):
			// The node was left for another meanwhile.
		default:
			c.note(err)
			return err
		}
	}
}

// serves tells whether the node serves the slot, as far as is known.
func (c *cluster) serves(node *connection, slot int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owners == nil || c.owners[slot] == node
}

// read implements server.
func (c *cluster) read(
	ctx context.Context, key string, do func(*session, time.Duration) error,
) (holds time.Duration, err error) {
	err = c.route(ctx, key, true, func(node *connection, asking bool) error {
		var err error
		holds, err = node.read(ctx, key, func(opened *session, age time.Duration) error {
			if asking {
				opened = opened.asked()
			}
			return do(opened, age)
		})
		if asking {
			holds = 0
		}
		return err
	})
	return holds, err
}

// write implements server.
func (c *cluster) write(ctx context.Context, key string, do func(*session) error) error {
	return c.route(ctx, key, false, func(node *connection, asking bool) error {
		return node.write(ctx, key, func(opened *session) error {
			if asking {
				opened = opened.asked()
			}
			return do(opened)
		})
	})
}

// reach implements server.
func (c *cluster) reach() settings { return c.settings }

// watch implements server.
func (c *cluster) watch(key string, changed func()) (remove func()) {
	c.start()
	added := &slotWatcher{key: key, slot: int(redisqueue.Slot(key)), changed: changed}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[added] = struct{}{}
	c.attach(added)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, added)
		if added.forget != nil {
			added.forget()
		}
	}
}
