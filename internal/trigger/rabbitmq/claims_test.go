package rabbitmq_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/rabbitmqtest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/rabbitmq"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

// claiming is a trigger of delivery by claim.
type claiming interface {
	trigger.Trigger
	trigger.Claimer
	trigger.Pusher
}

func buildClaiming(t *testing.T, clients *rabbitmq.Clients, metadata, auth config) claiming {
	t.Helper()
	made, err := rabbitmq.Type(clients).New(t.Context(), trigger.Config{Metadata: metadata, Auth: auth, Claims: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sync.OnceFunc(made.Close))
	return made.(claiming)
}

func claim(t *testing.T, made trigger.Claimer, most int) []queue.Claim {
	t.Helper()
	result, err := made.Items("").Claim(t.Context(), queue.ClaimOptions{Owner: "shop/work", Most: most})
	if err != nil {
		t.Fatal(err)
	}
	return result.Claims
}

// testClaims wants what is claimed not to be measured, and what was given back to be.
func testClaims(t *testing.T, server *rabbitmqtest.Server) {
	server.Queue(t, server.Channel(t, "/"), "claims", 0)
	clients := rabbitmq.NewClients()
	metadata := config{"queueName": "claims", "host": server.AMQP(), "queueLength": "1"}
	made, other := buildClaiming(t, clients, metadata, nil), buildClaiming(t, clients, metadata, nil)
	pop := build(t, clients, metadata, nil)
	if made.Queue() != "claims" || made.Items("").Name() != "claims" || made.Items("former").Name() != "former" {
		t.Errorf("the queues are %q, %q and %q", made.Queue(), made.Items("").Name(), made.Items("former").Name())
	}
	if made.Items("") != other.Items("") {
		t.Error("two triggers of one queue do not share it")
	}
	if n, err := made.Push(t.Context(), []byte("1"), []byte("2"), []byte("3")); err != nil || n != 3 {
		t.Errorf("pushed: %d, %v", n, err)
	}
	counts := func(what string, measured, claimed, popped float64) {
		t.Helper()
		if got := triggertest.Measure(t, made); got.Value != measured || got.Target != 1 || got.Active != (measured > 0) {
			t.Errorf("%s: measured %+v, want %v", what, got, measured)
		}
		if got, err := made.Claimed(t.Context()); err != nil || float64(got) != claimed {
			t.Errorf("%s: %d claimed, %v, want %v", what, got, err, claimed)
		}
		if got := triggertest.Measure(t, pop); got.Value != popped {
			t.Errorf("%s: with delivery by pop it is %v, want %v", what, got.Value, popped)
		}
	}
	counts("pushed", 3, 0, 3)
	claims := claim(t, made, 2)
	counts("claimed", 1, 2, 1)
	settlement := queue.Settlement{ID: claims[0].ID, Attempt: claims[0].Attempt, Verb: queue.GiveBack}
	if _, err := other.Items("").Settle(t.Context(), []queue.Settlement{settlement}); err != nil {
		t.Fatal(err)
	}
	counts("given back", 2, 1, 1)
	made.Close()
	if claims, err := other.Items("").Claims(t.Context(), ""); err != nil || len(claims) != 1 {
		t.Errorf("after the end of another trigger: %+v, %v", claims, err)
	}
	// A ScaledJob that does not claim any more still settles what it has claimed.
	settlement = queue.Settlement{ID: claims[1].ID, Attempt: 1, Verb: queue.Ack}
	held, err := pop.(trigger.Claimer).Items("").Settle(t.Context(), []queue.Settlement{settlement})
	if err != nil || !held[0] {
		t.Errorf("got %v, %v", held, err)
	}
	if n, err := pop.(trigger.Claimer).Claimed(t.Context()); err != nil || n != 0 {
		t.Errorf("got %d, %v", n, err)
	}
}

// testPopMakesNothing wants delivery by pop to leave no trace on the server.
func testPopMakesNothing(t *testing.T, server *rabbitmqtest.Server) {
	channel := server.Channel(t, "/")
	server.Queue(t, channel, "popped", 1)
	proxy := servertest.StartProxy(t, server.Addr(rabbitmqtest.PortAMQP))
	host := fmt.Sprintf("amqp://%s:%s@%s/", rabbitmqtest.Admin, rabbitmqtest.Password, proxy.Addr())
	pop := build(t, rabbitmq.NewClients(), config{"queueName": "popped", "host": host}, nil)
	triggertest.Measure(t, pop)
	if _, pushes := pop.(trigger.Pusher); pushes {
		t.Error("commands may look into a queue that runners take from, and would take its messages away")
	}
	if swept, err := pop.(trigger.Claimer).Items("").Sweep(t.Context()); err != nil || swept.Next >= 0 {
		t.Errorf("got %+v, %v", swept, err)
	}
	if n := proxy.Opened(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	if _, err := channel.QueueDeclarePassive("popped.offboard", true, false, false, false, nil); err == nil {
		t.Error("there is a journal")
	}
}

// testClaimRights has users who may not do all that delivery by claim needs.
func testClaimRights(t *testing.T, server *rabbitmqtest.Server) {
	server.Queue(t, server.Channel(t, "/"), "rights", 1)
	const password = "p@ss/w#rd%2F +hunter2"
	for name, test := range map[string]struct {
		configure, write, read string
		refused                bool
	}{
		"rights-none":  {"", "", "", true},
		"rights-read":  {"", "", "rights", true},
		"rights-all":   {`rights\.offboard.*`, `amq\.default|rights\.offboard.*`, `rights(\.offboard.*)?`, false},
		"rights-write": {`rights\.offboard.*`, "", `rights(\.offboard.*)?`, true},
	} {
		server.User(name, password, "none")
		server.Put("permissions/%2F/"+name, map[string]string{
			"configure": "^(" + test.configure + ")$", "write": "^(" + test.write + ")$", "read": "^(" + test.read + ")$",
		})
		made := buildClaiming(t, rabbitmq.NewClients(),
			config{"queueName": "rights", "host": "amqp://" + server.Addr(rabbitmqtest.PortAMQP) + "/"},
			config{"username": name, "password": password})
		_, err := made.Items("").Claim(t.Context(), queue.ClaimOptions{Owner: "shop/work", Most: 1})
		if !test.refused {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if text := err.Error(); !strings.Contains(text, `streams whose names begin with "rights.offboard"`) ||
			!strings.Contains(text, name) || strings.Contains(text, "hunter2") {
			t.Errorf("%s: error %q", name, text)
		}
		made.Close()
	}
}

func testClaimErrors(t *testing.T, server *rabbitmqtest.Server) {
	const password = "p@ss/w#rd%2F +hunter2"
	auth := config{"username": rabbitmqtest.Admin, "password": password}
	host := "amqp://" + server.Addr(rabbitmqtest.PortAMQP) + "/"
	wrong := buildClaiming(t, rabbitmq.NewClients(), config{"queueName": "claim-errors", "host": host}, auth)
	missing := buildClaiming(t, rabbitmq.NewClients(), config{"queueName": "claim-errors", "host": server.AMQP()}, nil)
	for _, test := range []struct {
		made claiming
		want string
	}{
		{wrong, "with this password"}, {missing, `has no queue "claim-errors"`},
	} {
		for i, ask := range []func() error{
			func() error {
				_, err := test.made.Items("").Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
				return err
			},
			func() error { _, err := test.made.Claimed(t.Context()); return err },
			func() error { _, err := test.made.Push(t.Context(), []byte("1")); return err },
			func() error { _, err := test.made.Measure(t.Context()); return err },
		} {
			err := triggertest.Again(ask)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%d: error %v, want one with %q", i, err, test.want)
			}
		}
	}
}

func testClaimTLS(t *testing.T, server *rabbitmqtest.Server) {
	server.Queue(t, server.Channel(t, "/"), "claim-tls", 1)
	made := buildClaiming(t, rabbitmq.NewClients(), config{
		"queueName": "claim-tls", "host": "amqps://" + server.Addr(rabbitmqtest.PortAMQPS) + "/",
	}, config{"username": rabbitmqtest.Admin, "password": rabbitmqtest.Password, "ca": server.Certs.CA})
	if claims := claim(t, made, 2); len(claims) != 1 {
		t.Errorf("got %+v", claims)
	}
}

// testClaimRestart has the server killed and started again while items are claimed.
func testClaimRestart(t *testing.T, server *rabbitmqtest.Server) {
	channel := server.Channel(t, "/")
	server.Queue(t, channel, "claim-restart", 0)
	rabbitmqtest.Publish(t, channel, "claim-restart", "1", "2")
	made := buildClaiming(t, rabbitmq.NewClients(), config{"queueName": "claim-restart", "host": server.AMQP()}, nil)
	claims := claim(t, made, 1)
	server.Kill()
	triggertest.WaitFor(t, "the outage", func() bool {
		_, err := made.Measure(t.Context())
		return err != nil && strings.Contains(err.Error(), "is not reachable")
	})
	server.Restart()
	last := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last answer was %s", last)
		}
	})
	triggertest.WaitFor(t, "the return", func() bool {
		measured, err := made.Measure(t.Context())
		last = fmt.Sprintf("%+v, %v", measured, err)
		return err == nil && measured.Value >= 1 // the server may have forgotten that the first was acknowledged
	})
	settlement := queue.Settlement{ID: claims[0].ID, Attempt: 1, Verb: queue.Ack}
	unknown := false
	triggertest.WaitFor(t, "a settlement", func() bool {
		held, err := made.Items("").Settle(t.Context(), []queue.Settlement{settlement})
		if err == nil && !held[0] && !unknown {
			t.Fatal("the claim is lost")
		}
		unknown = err != nil // it may have been settled all the same
		return err == nil
	})
	if again := claim(t, made, 2); len(again) != 1 || string(again[0].Parts[0]) != "2" {
		t.Errorf("got %+v", again)
	}
	if got := triggertest.Measure(t, made); got.Value != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestClaimsNeedAMQP(t *testing.T) {
	t.Parallel()
	declared := rabbitmq.Type(rabbitmq.NewClients())
	for host, want := range map[string]string{"http://u:hunter2@h/": "host: is for the protocol http", "amqp://h": ""} {
		made, err := declared.New(t.Context(), trigger.Config{
			Metadata: config{"queueName": "q", "host": host}, Claims: true,
		})
		switch {
		case err == nil && want == "":
			made.Close()
		case err == nil || want == "" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: error %v, want %q", host, err, want)
		}
	}
	_, err := declared.New(t.Context(), trigger.Config{Claims: true, Metadata: config{
		"queueName": "q", "protocol": "http", "host": "http://h/",
	}})
	if err == nil || !strings.Contains(err.Error(), "protocol: is for the protocol http") {
		t.Errorf("error %v", err)
	}
}
