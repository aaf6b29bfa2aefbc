package rabbitmq_test

import (
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/rabbitmq"
)

func TestNewRefusesParameters(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	const byAMQP, byHTTP = "amqp://u:hunter2@h", "http://u:hunter2@h/"
	for _, test := range []struct {
		name           string
		metadata, auth config
		want           string
	}{
		{"no queue", config{"queueName": "", "host": byAMQP}, nil, "queueName: is required"},
		{"no host", nil, nil, "host: is required"},
		{"no scheme", config{"host": "h:5672"}, nil, "host: is no URL that begins with amqp://"},
		{"another scheme", config{"host": "redis://u:hunter2@h"}, nil, "host: is no URL that begins with amqp://"},
		{"password with a slash", config{"host": "amqp://u:hunter2/x@h"}, nil, "host: is no URL that begins with"},
		{"amqp with http", config{"host": byHTTP, "protocol": "amqp"}, nil, "host: is not a URL for AMQP"},
		{"http with amqp", config{"host": byAMQP, "protocol": "http"}, nil, "host: is not a URL for HTTP"},
		{"http without a host", config{"host": "http:///"}, nil, "host: is not a URL for HTTP"},
		{"file", config{"host": byAMQP + "?cacertfile=/etc/passwd"}, nil, "host: names a file in cacertfile"},
		{"port", config{"host": "amqp://h:70000000000"}, nil, "host: is"},
		{"protocol", config{"host": byAMQP, "protocol": "mqtt"}, nil, `protocol "mqtt": is not allowed; give amqp or http or auto`},
		{"mode", config{"host": byAMQP, "mode": "Length", "value": "1"}, nil, `mode "Length": is not allowed; give Unknown or QueueLength`},
		{"mode without value", config{"host": byAMQP, "mode": "QueueLength"}, nil, "value: must be given with mode"},
		{"value without mode", config{"host": byAMQP, "value": "1"}, nil, "mode: must be given with value"},
		{"value", config{"host": byAMQP, "mode": "QueueLength", "value": "-1"}, nil, `value "-1": is too small`},
		{"value no number", config{"host": byAMQP, "mode": "QueueLength", "value": "x"}, nil, `value "x": is not a number`},
		{"queueLength and mode", config{"host": byAMQP, "queueLength": "1", "mode": "QueueLength", "value": "1"}, nil,
			`queueLength "1": is an older form`},
		{"queueLength and value", config{"host": byAMQP, "queueLength": "1", "value": "1"}, nil, `queueLength "1": is an older form`},
		{"activationValue", config{"host": byAMQP, "activationValue": "x"}, nil, `activationValue "x": is not a number`},
		{"rate by amqp", config{"host": byAMQP, "mode": "MessageRate", "value": "1"}, nil, `mode "MessageRate": needs the protocol http`},
		{"regex by amqp", config{"host": byAMQP, "useRegex": "true"}, nil, `useRegex "true": needs the protocol http`},
		{"unacknowledged by amqp", config{"host": byAMQP, "excludeUnacknowledged": "true"}, nil, "excludeUnacknowledged"},
		{"pageSize", config{"host": byHTTP, "pageSize": "0"}, nil, `pageSize "0": is too small`},
		{"pageSize too large", config{"host": byHTTP, "useRegex": "true", "pageSize": "501"}, nil, `pageSize "501": is too large; give at most 500`},
		{"operation", config{"host": byHTTP, "useRegex": "true", "operation": "min"}, nil, `operation "min": is not allowed; give sum or max or avg`},
		{"timeout", config{"host": byHTTP, "timeout": "soon"}, nil, `timeout "soon": is no`},
		{"negative timeout", config{"host": byHTTP, "timeout": "-1s"}, nil, `timeout "-1s": is`},
		{"tls", config{"host": byAMQP}, config{"tls": "hunter2"}, "tls: is not allowed; give enable or disable"},
		{"username alone", config{"host": byAMQP}, config{"username": "u"}, "username: and password must be given together"},
		{"password alone", config{"host": byAMQP}, config{"password": "hunter2"}, "username: and password must be given together"},
		{"cert alone", config{"host": byAMQP}, config{"cert": certs.ClientCert}, "cert: and key must be given together"},
		{"ca", config{"host": byAMQP}, config{"ca": "hunter2"}, "ca: holds no certificate"},
		{"workload identity", config{"host": byHTTP}, config{"workloadIdentityResource": "x"},
			"workloadIdentityResource: is given, but Azure AD Workload Identity is not supported"},
		{"OAuth", config{"host": byHTTP}, config{"oauthTokenURI": "https://h/token", "clientID": "c", "clientSecret": "hunter2"},
			"oauthTokenURI: is given, but OAuth 2.0 is not supported"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := config{"queueName": "q"}
			for key, value := range test.metadata {
				metadata[key] = value
			}
			made, err := rabbitmq.Type(rabbitmq.NewClients()).New(t.Context(), trigger.Config{Metadata: metadata, Auth: test.auth})
			if err == nil {
				made.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q shows a secret", err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	declared := rabbitmq.Type(rabbitmq.NewClients())
	for _, test := range []struct {
		name     string
		metadata config
		hasAuth  bool
		want     []string
	}{
		{"the usual", config{"hostFromEnv": "H", "mode": "QueueLength", "value": "20"}, false, nil},
		{"from auth", config{"mode": "MessageRate", "value": "20", "useRegex": "true", "protocol": "http"}, true, nil},
		{"unknown protocol", config{"mode": "MessageRate", "value": "20"}, true, nil},
		{"rate by amqp", config{"mode": "MessageRate", "value": "20", "protocol": "amqp"}, true, []string{"mode \"MessageRate\": needs"}},
		{"timeout by amqp", config{"host": "amqp://h", "timeout": "1000"}, false, []string{"warning: timeout: has no effect"}},
		{"what needs useRegex", config{"host": "http://h", "pageSize": "1000", "operation": "min"}, false, nil},
		{"password in metadata", config{"host": "amqp://h", "password": "x"}, false, []string{"password: cannot be given in metadata"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := config{"queueName": "q"}
			for key, value := range test.metadata {
				metadata[key] = value
			}
			findings := declared.Validate(metadata, test.hasAuth)
			if len(findings) != len(test.want) {
				t.Fatalf("findings %v, want %q", findings, test.want)
			}
			for i, finding := range findings {
				text := finding.Error()
				if finding.Warning {
					text = "warning: " + text
				}
				if !strings.Contains(text, test.want[i]) {
					t.Errorf("finding %q, want %q", text, test.want[i])
				}
			}
		})
	}
}

func TestMetricNameIsKEDAs(t *testing.T) {
	t.Parallel()
	declared := rabbitmq.Type(rabbitmq.NewClients())
	got := declared.ExternalMetricName(2, trigger.Config{Metadata: config{"queueName": "a/b c.d", "host": "amqp://h"}})
	if want := "s2-rabbitmq-a-2Fb+c-d"; got != want {
		t.Errorf("metric name %q, want %q", got, want)
	}
}

func FuzzHost(f *testing.F) {
	for _, host := range []string{
		"amqp://u:p@h:5672/v", "amqps://h/%2F?heartbeat=x", "http://u:p@h/a/b%2Fc", "https://[::1]:1", "amqp:", "http://h?%zz", "\x00",
	} {
		f.Add(host, "auto", "v/h", "user")
	}
	f.Fuzz(func(t *testing.T, host, protocol, vhost, user string) {
		made, err := rabbitmq.Type(rabbitmq.NewClients()).New(t.Context(), trigger.Config{
			Metadata: config{"queueName": "q", "host": host, "protocol": protocol, "vhostName": vhost},
			Auth:     config{"username": user, "password": "hunter2"},
		})
		if err == nil {
			made.Close()
		}
	})
}
