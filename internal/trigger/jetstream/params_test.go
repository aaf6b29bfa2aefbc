package jetstream_test

import (
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/jetstream"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestNewRefusesParameters(t *testing.T) {
	t.Parallel()
	base := of("h:8222", "tasks")
	for _, test := range []struct {
		name           string
		metadata, auth config
		want           string
	}{
		{"no stream", triggertest.With(base, "stream", ""), nil, "stream: is required"},
		{"no consumer", triggertest.With(base, "consumer", ""), nil, "consumer: is required"},
		{"no endpoint", triggertest.With(base, "natsServerMonitoringEndpoint", ""), nil, "natsServerMonitoringEndpoint: is required"},
		{"no account", triggertest.With(base, "account", ""), nil, `account: is not given, nor is accountID; give account "$G"`},
		{"URL", triggertest.With(base, "natsServerMonitoringEndpoint", "http://u:hunter2@h:8222"), nil, "natsServerMonitoringEndpoint: is a URL"},
		{"path", triggertest.With(base, "natsServerMonitoringEndpoint", "h:8222/jsz"), nil, "natsServerMonitoringEndpoint: is not an address"},
		{"port", triggertest.With(base, "natsServerMonitoringEndpoint", "h:x"), nil, "natsServerMonitoringEndpoint: is not an address"},
		{"lagThreshold", triggertest.With(base, "lagThreshold", "0"), nil, `lagThreshold "0": is too small; give at least 1`},
		{"activation", triggertest.With(base, "activationLagThreshold", "x"), nil, `activationLagThreshold "x": is not a whole number`},
		{"useHttps", triggertest.With(base, "useHttps", "yes"), nil, `useHttps "yes": is not a boolean`},
		{"natsServer", base, config{"natsServer": "hunter2:4222"}, "natsServer: is not a URL of a NATS server"},
		{"one of several", base, config{"natsServer": "nats://a,http://u:hunter2@b"}, "natsServer: is not a URL of a NATS server"},
	} {
		made, err := jetstream.Type(jetstream.NewClients()).New(t.Context(), trigger.Config{Metadata: test.metadata, Auth: test.auth})
		if err == nil {
			made.Close()
			t.Errorf("%s: no error, want %q", test.name, test.want)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %q, want %q and no secret", test.name, err, test.want)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	declared := jetstream.Type(jetstream.NewClients())
	base := of("h:8222", "tasks")
	for _, test := range []struct {
		name     string
		metadata config
		hasAuth  bool
		want     string
	}{
		{"the usual", base, false, ""},
		{"from auth", config{"stream": "s", "consumer": "c"}, true, ""},
		{"watch", triggertest.With(base, "natsServerFromEnv", "NATS"), false, ""},
		{"no account", triggertest.With(base, "account", ""), false, "account: is not given"},
		{"credentials", triggertest.With(base, "natsCredentials", "x"), false, "natsCredentials: cannot be given in metadata"},
	} {
		findings := declared.Validate(test.metadata, test.hasAuth)
		switch {
		case test.want == "" && len(findings) > 0:
			t.Errorf("%s: %v, want nothing", test.name, findings)
		case test.want != "" && (len(findings) != 1 || !strings.Contains(findings[0].Error(), test.want)):
			t.Errorf("%s: %v, want %q", test.name, findings, test.want)
		}
	}
}

func TestWithoutAServerNothingIsWatched(t *testing.T) {
	t.Parallel()
	if _, watches := build(t, jetstream.NewClients(), of("h:8222", "tasks"), nil).(trigger.Watcher); watches {
		t.Error("a trigger without natsServer says that it can watch")
	}
	if got, want := jetstream.Type(jetstream.NewClients()).ExternalMetricName(0, trigger.Config{Metadata: of("h:8222", "a.b")}),
		"s0-nats-jetstream-a-b"; got != want {
		t.Errorf("metric name %q, want %q", got, want)
	}
}
