package jetstream_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/servertest/natstest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/jetstream"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// claiming is what a trigger can do with delivery by claim.
type claiming interface {
	trigger.Trigger
	trigger.Claimer
	trigger.Pusher
	trigger.Watcher
}

func claims(t testing.TB, clients *jetstream.Clients, metadata, auth config) claiming {
	t.Helper()
	made, err := jetstream.Type(clients).New(t.Context(), trigger.Config{Metadata: metadata, Auth: auth, Claims: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made.(claiming)
}

// workQueue makes a stream of one subject, with a consumer named worker.
func workQueue(t testing.TB, js natsjs.JetStream, name string) {
	t.Helper()
	_, err := js.CreateStream(t.Context(), natsjs.StreamConfig{
		Name: name, Subjects: []string{name}, Retention: natsjs.WorkQueuePolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateConsumer(t.Context(), name, natsjs.ConsumerConfig{
		Durable: "worker", AckPolicy: natsjs.AckExplicitPolicy,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func claim(t testing.TB, q queue.Queue, most int) []queue.Claim {
	t.Helper()
	result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "shop/work", Most: most})
	if err != nil {
		t.Fatal(err)
	}
	return result.Claims
}

func settle(t testing.TB, q queue.Queue, claim queue.Claim, verb queue.Verb) {
	t.Helper()
	held, err := q.Settle(t.Context(), []queue.Settlement{{ID: claim.ID, Attempt: claim.Attempt, Verb: verb}})
	if err != nil || !held[0] {
		t.Fatalf("settled: %v, %v", held, err)
	}
}

func wantClaimed(t testing.TB, c trigger.Claimer, want int64) {
	t.Helper()
	if got, err := c.Claimed(t.Context()); err != nil || got != want {
		t.Errorf("%d are claimed, %v, want %d", got, err, want)
	}
}

func TestClaimedAndReady(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, `authorization { users: [{user: app, password: "hunter2"}] }`)
	_, js := natstest.Connect(t, "nats://app:hunter2@"+server.Addr(natstest.PortClient))
	workQueue(t, js, "tasks")
	workQueue(t, js, "other")
	clients := jetstream.NewClients()
	auth := config{"natsServer": "nats://app:hunter2@" + server.Addr(natstest.PortClient)}
	metadata := triggertest.With(of(server.Addr(natstest.PortMonitor), "tasks"), "lagThreshold", "2")
	made := claims(t, clients, metadata, auth)
	ready := func(want float64) {
		t.Helper()
		if got := triggertest.Measure(t, made); got != (trigger.Measurement{Value: want, Target: 2, Active: want > 0}) {
			t.Errorf("measured %+v, want %v", got, want)
		}
	}
	ready(0)
	wantClaimed(t, made, 0)
	if length, err := made.Push(t.Context(), []byte("1"), []byte("2"), []byte("3")); err != nil || length != 3 {
		t.Errorf("pushed: %d, %v", length, err)
	}
	if length, err := made.Push(t.Context()); err != nil || length != 0 {
		t.Errorf("pushed nothing: %d, %v", length, err)
	}
	ready(3)
	if made.Queue() != "tasks/worker" || made.Items("").Name() != made.Queue() {
		t.Errorf("it is called %q, and its items %q", made.Queue(), made.Items("").Name())
	}
	got := claim(t, made.Items(""), 2)
	ready(1)
	wantClaimed(t, made, 2)
	settle(t, made.Items(made.Queue()), got[0], queue.GiveBack)
	ready(2)
	wantClaimed(t, made, 1)

	// A ScaledJob that had another queue before settles what it claimed there.
	publish(t, js, "other", 1)
	former := claims(t, clients, of(server.Addr(natstest.PortMonitor), "other"), auth)
	old := claim(t, former.Items(""), 1)
	elsewhere := made.Items("other/worker")
	if record, err := elsewhere.Get(t.Context(), old[0].ID); err != nil || record.State != queue.Claimed {
		t.Errorf("got %+v, %v", record, err)
	}
	settle(t, elsewhere, old[0], queue.Ack)
	if elsewhere.Name() != "other/worker" {
		t.Errorf("it is called %q", elsewhere.Name())
	}
	for _, name := range []string{"usertask", "gone/worker", "tasks/gone"} {
		if _, err := made.Items(name).Get(t.Context(), old[0].ID); !errors.Is(err, queue.ErrNotFound) {
			t.Errorf("an item of %s: %v", name, err)
		}
	}
}

func TestClaimsAreRefused(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, `authorization { users: [
		{user: app, password: "hunter2"},
		{user: none, password: "hunter2", permissions: { publish: ["$JS.API.STREAM.INFO.tasks", "$JS.API.CONSUMER.INFO.>"] }}
	] }`)
	_, js := natstest.Connect(t, "nats://app:hunter2@"+server.Addr(natstest.PortClient))
	workQueue(t, js, "tasks")
	metadata, at := of(server.Addr(natstest.PortMonitor), "tasks"), server.Addr(natstest.PortClient)
	for _, test := range []struct {
		metadata config
		server   string
		want     string
	}{
		{metadata, "nats://none:hunter2@" + at, "permissions violation"},
		{metadata, "nats://app:hunter2-old@" + at, "authorization violation"},
		{metadata, "nats://hunter2@" + deadAddress(t), "is not reachable"},
		{triggertest.With(metadata, "stream", "gone"), "nats://app:hunter2@" + at, `stream "gone": `},
		{triggertest.With(metadata, "consumer", "gone"), "nats://app:hunter2@" + at, `consumer "gone" of stream "tasks": `},
	} {
		made := claims(t, jetstream.NewClients(), test.metadata, config{"natsServer": test.server})
		triggertest.WaitFor(t, test.want, func() bool {
			_, err := made.Items("").Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("error %v, want %q and no secret", err, test.want)
			}
			return strings.Contains(strings.ToLower(err.Error()), test.want)
		})
		if text := triggertest.Refusal(t, made); strings.Contains(text, "hunter2") {
			t.Errorf("error %q", text)
		}
	}
}

func TestClaimsInOutages(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, "")
	_, js := natstest.Connect(t, "nats://"+server.Addr(natstest.PortClient))
	workQueue(t, js, "tasks")
	publish(t, js, "tasks", 4)
	proxy := servertest.StartProxy(t, server.Addr(natstest.PortClient))
	made := claims(t, jetstream.NewClients(), of(server.Addr(natstest.PortMonitor), "tasks"),
		config{"natsServer": "nats://" + proxy.Addr()})
	q := made.Items("")
	if got := claim(t, q, 1); len(got) != 1 {
		t.Fatalf("got %+v", got)
	}
	claimed := 1
	works := func(what string) {
		t.Helper()
		triggertest.WaitFor(t, what, func() bool {
			result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
			claimed += len(result.Claims)
			return err == nil && len(result.Claims) == 1
		})
		if claims, err := q.Claims(t.Context(), ""); err != nil || len(claims) != claimed {
			t.Errorf("%s: %d claims, %v, want %d", what, len(claims), err, claimed)
		}
	}
	proxy.Cut()
	works("a claim after a cut")
	proxy.Hold()
	if text := triggertest.Refusal(t, made); !strings.Contains(text, "does not answer in time") {
		t.Errorf("error %q", text)
	}
	proxy.Forward()
	works("a claim after a silence")
	server.Kill()
	triggertest.Refusal(t, made)
	server.Restart()
	works("a claim after a restart")
}

func TestClaimsAreWatched(t *testing.T) {
	t.Parallel()
	server := natstest.Alone(t, "")
	url := "nats://" + server.Addr(natstest.PortClient)
	_, js := natstest.Connect(t, url)
	workQueue(t, js, "tasks")
	metadata := of(server.Addr(natstest.PortMonitor), "tasks")
	made := claims(t, jetstream.NewClients(), metadata, config{"natsServer": url})
	changes := watch(t, made)
	changes.until(t, "the beginning", func() bool { return triggertest.Measure(t, made).Value == 0 })
	publish(t, js, "tasks", 1)
	changes.until(t, "a message", func() bool { return triggertest.Measure(t, made).Value == 1 })
	if _, err := made.Push(t.Context(), []byte("pushed")); err != nil {
		t.Fatal(err)
	}
	changes.until(t, "a push", func() bool { return triggertest.Measure(t, made).Value == 2 })
	got := claim(t, made.Items(""), 2)
	// Another process gives one back.
	other := claims(t, jetstream.NewClients(), metadata, config{"natsServer": url})
	settle(t, other.Items(""), got[0], queue.GiveBack)
	changes.until(t, "an item that comes back", func() bool { return triggertest.Measure(t, made).Value == 1 })
	server.Kill()
	server.Restart()
	publish(t, js, "tasks", 1)
	changes.until(t, "a change after a restart", func() bool { return true })
	triggertest.WaitFor(t, "a message after a restart", func() bool {
		measured, err := made.Measure(t.Context())
		return err == nil && measured.Value == 2
	})
}

func TestClaimsNeedAServer(t *testing.T) {
	t.Parallel()
	declared := jetstream.Type(jetstream.NewClients())
	metadata := of("h:8222", "tasks")
	if findings := declared.ValidateClaims(metadata, false); len(findings) != 1 || findings[0].Key != "natsServer" {
		t.Errorf("found %v", findings)
	}
	for _, given := range []config{
		triggertest.With(metadata, "natsServer", "nats://h"), triggertest.With(metadata, "natsServerFromEnv", "N"),
	} {
		if findings := declared.ValidateClaims(given, false); len(findings) > 0 {
			t.Errorf("found %v", findings)
		}
	}
	if findings := declared.ValidateClaims(metadata, true); len(findings) > 0 {
		t.Errorf("found %v where a TriggerAuthentication may give it", findings)
	}
	if _, err := declared.New(t.Context(), trigger.Config{Metadata: metadata, Claims: true}); err == nil {
		t.Error("made without natsServer")
	}
	made := build(t, jetstream.NewClients(), triggertest.With(metadata, "natsServer", nats.DefaultURL), nil)
	if _, hands := made.(trigger.Claimer); hands {
		t.Error("it hands out items although delivery is by pop")
	}
}
