package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
)

// fakeAPI is an API server with one namespace, `shop`, that forwards ports of its Pods to a server. The kubelet of the
// control plane's tests cannot forward ports, and what is tested here is this side of the wire.
type fakeAPI struct {
	objects map[string]any
	backend string // address that ports lead to
	// websockets tells whether the server takes them; else only SPDY.
	websockets bool

	mu       sync.Mutex
	forwards []string
}

func (f *fakeAPI) start(t *testing.T) *rest.Config {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/portforward") {
		f.forward(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	object, found := f.objects[r.URL.Path]
	if !found {
		w.WriteHeader(http.StatusNotFound)
		object = map[string]any{"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404, "message": "not found"}
	}
	_ = json.NewEncoder(w).Encode(object)
}

func (f *fakeAPI) forward(w http.ResponseWriter, r *http.Request) {
	how := "spdy "
	streams := make(chan httpstream.Stream, 16)
	accept := func(stream httpstream.Stream, _ <-chan struct{}) error { streams <- stream; return nil }
	var conn httpstream.Connection
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		if !f.websockets {
			http.Error(w, "no websockets here", http.StatusBadRequest)
			return
		}
		how = "websocket "
		upgrader := websocket.Upgrader{Subprotocols: []string{"SPDY/3.1+portforward.k8s.io"}}
		socket, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		if conn, err = spdy.NewServerConnection(portforward.NewTunnelingConnection("test", socket), accept); err != nil {
			return
		}
	} else {
		if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
			return
		}
		if conn = spdy.NewResponseUpgrader().UpgradeResponse(w, r, accept); conn == nil {
			return
		}
	}
	defer func() { _ = conn.Close() }()
	var copying sync.WaitGroup
	defer copying.Wait()
	for {
		select {
		case <-conn.CloseChan():
			return
		case stream := <-streams:
			if stream.Headers().Get("streamType") != "data" {
				_ = stream.Close() // no error
				continue
			}
			f.mu.Lock()
			f.forwards = append(f.forwards, how+r.URL.Path+":"+stream.Headers().Get("port"))
			f.mu.Unlock()
			copying.Go(func() { f.connect(stream) })
		}
	}
}

func (f *fakeAPI) connect(stream httpstream.Stream) {
	defer func() { _ = stream.Reset() }()
	server, err := net.Dial("tcp", f.backend)
	if err != nil {
		return
	}
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(server, stream)
		_ = server.Close()
	})
	_, _ = io.Copy(stream, server)
	_ = stream.Reset()
	_ = server.Close()
	up.Wait()
}

// only resolves one name.
func only(name string) resolver {
	return func(_ context.Context, host string) bool { return host == name }
}

func object(kind, name string, more map[string]any) map[string]any {
	made := map[string]any{
		"apiVersion": "v1", "kind": kind,
		"metadata": map[string]any{"name": name, "namespace": "shop", "uid": name},
	}
	for key, value := range more {
		made[key] = value
	}
	return made
}

func list(kind string, items ...any) map[string]any {
	return map[string]any{"kind": kind, "apiVersion": "v1", "metadata": map[string]any{}, "items": items}
}

func aPod(name string, ready string) map[string]any {
	return object("Pod", name, map[string]any{
		"spec": map[string]any{"containers": []any{map[string]any{"name": "redis", "ports": []any{map[string]any{"name": "db", "containerPort": 7777}}}}},
		"status": map[string]any{
			"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": ready}},
		},
	})
}

// TestServersThatNameOthersAreToldApart makes triggers on clusters and sentinels, which are reached as they are.
func TestServersThatNameOthersAreToldApart(t *testing.T) {
	t.Parallel()
	types := redis.Types(redis.NewClients())
	seen := map[string]string{}
	for name, metadata := range map[string]map[string]string{
		"redis-cluster":    {"addresses": "a:1,b:1"},
		"redis-cluster 2":  {"addresses": "c:1"},
		"redis-sentinel":   {"hosts": "a,b", "ports": "1,1", "sentinelMaster": "one"},
		"redis-sentinel 2": {"hosts": "a,b", "ports": "1,1", "sentinelMaster": "two"},
		"redis-sentinel 3": {"hosts": "a,b", "ports": "1,1", "sentinelMaster": "two", "databaseIndex": "1"},
	} {
		metadata["listName"] = "list"
		kind, _, _ := strings.Cut(name, " ")
		found, _ := trigger.Find(types, kind)
		server := ""
		made, err := new(Backend).routed(found, "shop", &server).New(t.Context(), trigger.Config{Metadata: metadata})
		if err != nil {
			t.Fatal(err)
		}
		made.Close()
		if other, twice := seen[server]; twice || server == "" {
			t.Errorf("%s is told by %q, as is %q", name, server, other)
		}
		seen[server] = name
	}
}

func aService(name string, spec map[string]any) map[string]any {
	return object("Service", name, map[string]any{"spec": spec})
}

// shop is the API server of a namespace with a Redis, and a ScaledJob for each way to write where that is.
func shop(backend string, hosts ...string) *fakeAPI {
	var scaledJobs []any
	for i, host := range hosts {
		sj := object("ScaledJob", fmt.Sprint("work", i), map[string]any{"spec": map[string]any{
			"jobTargetRef": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{
				map[string]any{"name": "main", "env": []any{map[string]any{"name": "REDIS_HOST", "value": host}}},
			}}}},
			"triggers": []any{map[string]any{"type": "redis", "metadata": map[string]any{
				"listName": fmt.Sprint("list", i), "hostFromEnv": "REDIS_HOST", "port": "6379",
			}}},
		}})
		sj["apiVersion"] = "keda.sh/v1alpha1"
		scaledJobs = append(scaledJobs, sj)
	}
	all := list("ScaledJobList", scaledJobs...)
	all["apiVersion"] = "keda.sh/v1alpha1"
	ports := []any{map[string]any{"port": 6379, "targetPort": "db"}}
	return &fakeAPI{backend: backend, objects: map[string]any{
		"/apis/keda.sh/v1alpha1/namespaces/shop/scaledjobs": all,
		"/api/v1/namespaces/shop/services/redis": aService("redis", map[string]any{
			"selector": map[string]any{"app": "redis"}, "ports": ports,
		}),
		"/api/v1/namespaces/shop/services/other-port": aService("other-port", map[string]any{
			"selector": map[string]any{"app": "redis"}, "ports": []any{map[string]any{"port": 1}},
		}),
		"/api/v1/namespaces/shop/services/elsewhere": aService("elsewhere", map[string]any{"ports": ports}),
		"/api/v1/namespaces/shop/services/external": aService("external", map[string]any{
			"type": "ExternalName", "externalName": "redis.invalid",
		}),
		"/api/v1/namespaces/shop/pods": list("PodList", aPod("starting", "False"), aPod("redis-0", "True")),
	}}
}

func TestPushThroughAPortForward(t *testing.T) {
	t.Parallel()
	for name, websockets := range map[string]bool{"websocket": true, "spdy": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.Options{})
			hosts := []string{"redis", "redis.shop", "redis.shop.svc", "redis.shop.svc.cluster.local"}
			api := shop(server.Addr(), hosts...)
			api.websockets = websockets
			b := ask(t, api.start(t), Need{})
			for i, host := range hosts {
				queue := control.Queue{Name: fmt.Sprint("list", i), Namespace: "shop"}
				for n := range int64(2) {
					if got, err := push(t, b, queue, "item"); err != nil || got != n+1 {
						t.Fatalf("%s: got %d, %v", host, got, err)
					}
				}
			}
			api.mu.Lock()
			defer api.mu.Unlock()
			if len(api.forwards) != len(hosts) || api.forwards[0] != name+" /api/v1/namespaces/shop/pods/redis-0/portforward:7777" {
				t.Errorf("forwarded %q", api.forwards)
			}
		})
	}
}

// TestReach decides how a server is reached, without connecting to it.
func TestReach(t *testing.T) {
	t.Parallel()
	api := shop("127.0.0.1:1")
	b := ask(t, api.start(t), Need{})
	for _, test := range []struct {
		address, resolved, want, err string
	}{
		{"10.0.0.1:6379", "", "10.0.0.1:6379", ""},
		{"[::1]:6379", "", "[::1]:6379", ""},
		{"localhost:6379", "", "localhost:6379", ""},
		{"/run/redis.sock", "", "/run/redis.sock", ""},
		{"redis.example.com:6379", "", "redis.example.com:6379", ""},
		{"example.com:6379", "example.com", "example.com:6379", ""},
		{"unknown.com:6379", "", "unknown.com:6379", ""}, // no Service
		{"redis:6379", "redis.shop.svc", "redis.shop.svc:6379", ""},
		{"redis", "redis.shop.svc", "redis.shop.svc:6379", ""},
		{"redis.shop.svc:6379", "redis.shop.svc", "redis.shop.svc:6379", ""},
		{"external:6379", "", "redis.invalid:6379", ""},
		{"other-port:6379", "", "", "reach Service shop/other-port from this machine: it has no port 6379"},
		{"elsewhere:6379", "", "", "it selects no Pods"},
		{"redis:6379", "redis", "forwarded", ""}, // the short name means something else on this machine
	} {
		b.resolves = only(test.resolved)
		got, forwarded, err := b.reach(t.Context(), "shop", test.address)
		if forwarded {
			got = "forwarded"
		}
		if got != test.want || (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %q, %v, want %q, %s", test.address, got, err, test.want, test.err)
		}
	}
	api.objects["/api/v1/namespaces/shop/pods"] = list("PodList", aPod("starting", "False"))
	b.resolves = only("")
	if _, _, err := b.reach(t.Context(), "shop", "redis:6379"); err == nil || !strings.Contains(err.Error(), "none of its Pods is ready") {
		t.Errorf("got %v", err)
	}
}

// TestNoTLSThroughAPortForward has a server whose certificate cannot be checked from here.
func TestNoTLSThroughAPortForward(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{TLS: true})
	api := shop(server.Addr(), "redis")
	items := api.objects["/apis/keda.sh/v1alpha1/namespaces/shop/scaledjobs"].(map[string]any)["items"].([]any)
	spec := items[0].(map[string]any)["spec"].(map[string]any)
	metadata := spec["triggers"].([]any)[0].(map[string]any)["metadata"].(map[string]any)
	metadata["enableTLS"] = "true"
	queue := control.Queue{Name: "list0", Namespace: "shop"}
	config := api.start(t)
	_, err := push(t, ask(t, config, Need{}), queue, "item")
	wantError(t, err, control.NotFound, "reached through a port-forward, by which its TLS certificate cannot be checked")
	metadata["unsafeSsl"] = "true"
	if n, err := push(t, ask(t, config, Need{}), queue, "item"); err != nil || n != 1 {
		t.Errorf("where it need not be checked: got %d, %v", n, err)
	}
}
