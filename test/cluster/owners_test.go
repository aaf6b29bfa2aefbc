package cluster

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/kube/shard"
)

// leaseHistory is every state of every Lease, in order.
type leaseHistory struct {
	mu     sync.Mutex
	events []leaseEvent
}

// leaseEvent is a change of a Lease. Versions are those of the whole cluster, so they tell what came before what.
type leaseEvent struct {
	version  string
	lease    shard.Lease
	identity string
	gone     bool
}

// recordLeases watches the Leases of the test's namespace until the test ends.
func (c *cluster) recordLeases() *leaseHistory {
	c.t.Helper()
	h := &leaseHistory{}
	leases := c.Client().CoordinationV1().Leases(c.namespace)
	existing, err := leases.List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range existing.Items {
		h.add(watch.Added, &existing.Items[i])
	}
	// Where a watch ends, the next one begins with what came after it.
	watcher, err := toolswatch.NewRetryWatcherWithContext(c.t.Context(), existing.ResourceVersion, &toolscache.ListWatch{
		WatchFuncWithContext: leases.Watch,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for event := range watcher.ResultChan() {
			if lease, ok := event.Object.(*coordinationv1.Lease); ok {
				h.add(event.Type, lease)
			}
		}
	})
	c.t.Cleanup(func() { watcher.Stop(); watching.Wait() })
	return h
}

func (h *leaseHistory) add(event watch.EventType, lease *coordinationv1.Lease) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, leaseEvent{
		version: lease.ResourceVersion, identity: ptr.Deref(lease.Spec.HolderIdentity, ""), gone: event == watch.Deleted,
		lease: shard.Lease{Name: lease.Name, View: shard.ParseView(lease.Annotations["offboard.dev/view"])},
	})
}

// all returns the history, which ends when no Lease is left.
func (h *leaseHistory) all(t *testing.T) []leaseEvent {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		h.mu.Lock()
		there := map[string]bool{}
		for _, event := range h.events {
			there[event.lease.Name] = !event.gone
		}
		maps.DeleteFunc(there, func(_ string, is bool) bool { return !is })
		if len(there) == 0 && len(h.events) > 0 {
			defer h.mu.Unlock()
			return slices.Clone(h.events)
		}
		h.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("of the replicas, Leases are left: %v", slices.Sorted(maps.Keys(there)))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// audit is the API server's record of what was written about ScaledJobs and Jobs.
type audit struct{ policy, log string }

func newAudit(t *testing.T) audit {
	t.Helper()
	dir := t.TempDir()
	a := audit{policy: filepath.Join(dir, "policy.yaml"), log: filepath.Join(dir, "audit.log")}
	policy := `apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
  - level: RequestResponse
    verbs: [create, update, patch]
    resources:
      - {group: batch, resources: [jobs]}
      - {group: keda.sh, resources: [scaledjobs, scaledjobs/status]}
    omitStages: [RequestReceived]
  - level: None
`
	if err := os.WriteFile(a.policy, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// written is one write of a replica that has changed something.
type written struct {
	what      string
	scaledJob types.NamespacedName
	identity  string
	version   string
}

var agent = regexp.MustCompile(`^offboard-operator/\S* \((.+)\)$`)

// writes returns what replicas have written.
func (a audit) writes(t *testing.T) []written {
	t.Helper()
	file, err := os.Open(a.log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []written
	versions := map[string]bool{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var line struct {
			Verb, UserAgent string
			ObjectRef       struct{ Resource, Subresource string }
			ResponseStatus  struct{ Code int }
			ResponseObject  struct{ Metadata metav1.ObjectMeta }
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		by := agent.FindStringSubmatch(line.UserAgent)
		object := line.ResponseObject.Metadata
		id := string(object.UID) + "/" + object.ResourceVersion
		// What has changed nothing returns the version that there was already.
		if by == nil || line.ResponseStatus.Code >= 300 || versions[id] {
			continue
		}
		versions[id] = true
		name := object.Name
		if line.ObjectRef.Resource == "jobs" {
			name = object.Labels[v1alpha1.LabelScaledJob]
		}
		all = append(all, written{
			what:      strings.TrimSuffix(line.Verb+" "+line.ObjectRef.Resource+"/"+line.ObjectRef.Subresource, "/"),
			scaledJob: types.NamespacedName{Namespace: object.Namespace, Name: name}, identity: by[1],
			version: object.ResourceVersion,
		})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(all, func(a, b written) int { return inOrder(t, a.version, b.version) })
	return all
}

// inOrder compares two versions.
func inOrder(t *testing.T, a, b string) int {
	t.Helper()
	order, err := resourceversion.CompareResourceVersion(a, b)
	if err != nil {
		t.Fatalf("versions %q and %q: %v", a, b, err)
	}
	return order
}

// goesOn wants other replicas to have created Jobs while the Lease of one that was lost was waited for: from its last
// renewal until it was deleted.
func goesOn(t *testing.T, writes []written, history []leaseEvent, lease string) {
	t.Helper()
	var last, gone, before leaseEvent
	for _, event := range history {
		if event.lease.Name != lease {
			continue
		}
		if event.gone {
			last, gone = before, event
		}
		before = event
	}
	if !gone.gone {
		t.Fatalf("the Lease %s was never deleted", lease)
	}
	created := 0
	for _, w := range writes {
		if w.what == "create jobs" && w.identity != gone.identity &&
			inOrder(t, last.version, w.version) < 0 && inOrder(t, w.version, gone.version) < 0 {
			created++
		}
	}
	t.Logf("while the Lease %s was waited for, other replicas created %d Jobs", lease, created)
	if created == 0 {
		t.Errorf("while the Lease %s was waited for, other replicas created no Jobs", lease)
	}
}

// verifyOwners wants each write to have come from the owner of its ScaledJob. Whoever claims a ScaledJob by the view in its Lease
// comes to own it at the moment when nobody else does, and owns it for as long as it claims it: so there is one owner at
// the most at any time, whatever replicas think.
func verifyOwners(t *testing.T, writes []written, history []leaseEvent) {
	t.Helper()
	leases, identities := map[string]shard.Lease{}, map[string]string{}
	owners := map[types.NamespacedName]string{}
	for _, w := range writes {
		owners[w.scaledJob] = ""
	}
	claims := func(name string, key types.NamespacedName) bool {
		lease, exists := leases[name]
		return exists && lease.View.Owner(key.String()) == name
	}
	moves := 0
	happens := func(event leaseEvent) {
		identities[event.identity] = event.lease.Name
		leases[event.lease.Name] = event.lease
		if event.gone {
			delete(leases, event.lease.Name)
		}
		for key, owner := range owners {
			if owner != "" && claims(owner, key) {
				continue
			}
			var claiming []string
			for name := range leases {
				if claims(name, key) {
					claiming = append(claiming, name)
				}
			}
			owners[key] = ""
			if len(claiming) == 1 {
				owners[key] = claiming[0]
				moves++
			}
		}
	}
	by := map[string]int{}
	for _, w := range writes {
		for len(history) > 0 && inOrder(t, history[0].version, w.version) < 0 {
			happens(history[0])
			history = history[1:]
		}
		by[identities[w.identity]]++
		if author := identities[w.identity]; author == "" || owners[w.scaledJob] != author {
			t.Errorf("version %s: %s of %s by %s (%s), while %q owns it under %v", w.version, w.what, w.scaledJob, w.identity,
				author, owners[w.scaledJob], leases)
		}
	}
	if len(writes) < 3*replicaQueues || moves < 4*replicaQueues || len(by) < 4 {
		t.Errorf("%d writes by %d replicas, and ScaledJobs changed hands %d times: too little to prove anything",
			len(writes), len(by), moves)
	}
	t.Logf("%d writes by %d replicas, ScaledJobs changed hands %d times", len(writes), len(by), moves)
}
