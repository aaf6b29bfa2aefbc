package redistest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/servertest"
)

const (
	// slots is how many slots a cluster has.
	slots = 16384
	// agreeTimeout is how long the nodes of a cluster may take until they agree.
	agreeTimeout = 3 * time.Minute
	// nodeTimeout is how many milliseconds a node may be silent before the others take it for dead: more than a busy
	// machine makes it be, and no more than tests can wait for that kill one.
	nodeTimeout = 5000
	// meetAgain is after which time nodes that do not know each other are made known once more. They forget each other
	// when one does not answer the other within nodeTimeout.
	meetAgain = 2 * nodeTimeout * time.Millisecond
)

// Cluster is a Redis Cluster, of which the first nodes are masters that share the slots evenly.
type Cluster struct {
	Nodes []*Server

	tb      testing.TB
	options Options
}

// StartCluster starts that many masters, makes them a cluster, and waits until all of them say that it works. The
// options are those of each node.
func StartCluster(tb testing.TB, masters int, options Options) *Cluster {
	tb.Helper()
	if options.TLS {
		options.Certs = servertest.NewCerts(tb, tb.TempDir())
	}
	options.Cluster = true
	cluster := &Cluster{tb: tb, options: options}
	for i := range masters {
		node := Start(tb, options)
		node.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/masters), strconv.Itoa((i+1)*slots/masters-1))
		cluster.Nodes = append(cluster.Nodes, node)
	}
	var met time.Time
	cluster.until("the cluster to work", func() bool {
		if time.Since(met) > meetAgain {
			for _, node := range cluster.Nodes[1:] {
				node.meet(cluster.Nodes[0])
			}
			met = time.Now()
		}
		return cluster.works()
	})
	return cluster
}

// clusterLines are the settings of a node.
func (s *Server) clusterLines() []string {
	lines := []string{
		"cluster-enabled yes",
		fmt.Sprintf("cluster-port %d", s.Process.Port(1)),
		fmt.Sprintf("cluster-node-timeout %d", nodeTimeout),
	}
	if s.options.Password != "" {
		lines = append(lines, "masterauth "+strconv.Quote(s.options.Password))
	}
	if s.options.TLS {
		lines = append(lines, "tls-cluster yes", "tls-replication yes")
	}
	return lines
}

// meet makes the node known to the cluster of the other.
func (s *Server) meet(other *Server) {
	s.tb.Helper()
	s.Do("CLUSTER", "MEET", other.Host(), other.Port(), strconv.Itoa(other.Process.Port(1)))
}

// ID returns by what id the cluster knows the node.
func (s *Server) ID() string {
	s.tb.Helper()
	return s.Text("CLUSTER", "MYID")
}

// AddReplica starts a node that follows the master, and waits until it does.
func (c *Cluster) AddReplica(master *Server) *Server {
	c.tb.Helper()
	replica := Start(c.tb, c.options)
	var met time.Time
	c.until("the replica to know its master", func() bool {
		if time.Since(met) > meetAgain {
			replica.meet(master)
			met = time.Now()
		}
		return strings.Contains(replica.Text("CLUSTER", "NODES"), master.ID())
	})
	replica.Do("CLUSTER", "REPLICATE", master.ID())
	c.until("the replica to follow", func() bool {
		return strings.Contains(replica.Text("INFO", "replication"), "master_link_status:up")
	})
	c.Nodes = append(c.Nodes, replica)
	c.until("all nodes to know the replica", func() bool {
		for _, node := range c.Nodes {
			if strings.Count(node.Text("CLUSTER", "NODES"), "slave") != 1 {
				return false
			}
		}
		return true
	})
	return replica
}

// Await waits until all nodes know each other and say that the cluster works.
func (c *Cluster) Await() {
	c.tb.Helper()
	c.until("the cluster to work", c.works)
}

// works tells whether all nodes know each other and say that the cluster works.
func (c *Cluster) works() bool {
	c.tb.Helper()
	for _, node := range c.Nodes {
		text := node.Text("CLUSTER", "INFO")
		if !strings.Contains(text, "cluster_state:ok") ||
			!strings.Contains(text, fmt.Sprintf("cluster_known_nodes:%d", len(c.Nodes))) {
			return false
		}
	}
	return true
}

// Owner returns the node that serves the key, out of those that run.
func (c *Cluster) Owner(key string) *Server {
	c.tb.Helper()
	if owner := c.Find(key); owner != nil {
		return owner
	}
	c.tb.Fatalf("no node serves %q", key)
	return nil
}

// Find is Owner; nil when no node that runs serves the key.
func (c *Cluster) Find(key string) *Server {
	c.tb.Helper()
	for _, node := range c.Running() {
		client := node.connect()
		err := client.Do(context.Background(), client.B().Exists().Key(key).Build()).Error()
		client.Close()
		if err == nil {
			return node
		}
		if _, redirected := rueidis.IsRedisErr(err); !redirected {
			c.tb.Fatalf("ask %s for %q: %v", node.Addr(), key, err)
		}
	}
	return nil
}

// Running returns the nodes that run.
func (c *Cluster) Running() []*Server {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(node *Server) bool { return !node.Running() })
}

// Slot returns the slot of the key.
func (c *Cluster) Slot(key string) string {
	c.tb.Helper()
	message := c.Nodes[0].Do("CLUSTER", "KEYSLOT", key)
	slot, err := message.AsInt64()
	if err != nil {
		c.tb.Fatal(err)
	}
	return strconv.FormatInt(slot, 10)
}

// Begin begins to move a slot; Finish ends it. In between, what is created goes to the new node.
func (c *Cluster) Begin(slot string, from, to *Server) {
	c.tb.Helper()
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", from.ID())
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", to.ID())
}

// Finish moves the keys of a slot that are left, and lets all nodes know.
func (c *Cluster) Finish(slot string, from, to *Server) {
	c.tb.Helper()
	message := from.Do("CLUSTER", "GETKEYSINSLOT", slot, "1000")
	keys, err := message.AsStrSlice()
	if err != nil {
		c.tb.Fatal(err)
	}
	for _, key := range keys {
		command := []string{"MIGRATE", to.Host(), to.Port(), key, "0", "10000"}
		if c.options.Password != "" {
			command = append(command, "AUTH", c.options.Password)
		}
		from.Do(command...)
	}
	for _, node := range []*Server{to, from} {
		node.Do("CLUSTER", "SETSLOT", slot, "NODE", to.ID())
	}
}

func (c *Cluster) until(what string, condition func() bool) {
	c.tb.Helper()
	await(c.tb, what, condition)
}

func await(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	deadline := time.Now().Add(agreeTimeout)
	for !condition() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited %v for %s", agreeTimeout, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
