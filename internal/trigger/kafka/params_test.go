package kafka_test

import (
	"context"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/kafka"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestNewRefusesParameters(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	base := config{"bootstrapServers": "a:9092, b:9092", "consumerGroup": "g", "topic": "t"}
	oauth := config{"sasl": "oauthbearer", "username": "u", "password": "hunter2", "oauthTokenEndpointUri": "https://h/token"}
	for _, test := range []struct {
		only           string // a type; empty means both
		metadata, auth config
		want           string
	}{
		{"", triggertest.With(base, "bootstrapServers", ""), nil, "bootstrapServers: is required"},
		{"kafka", triggertest.With(base, "bootstrapServers", "a:9092,b"), nil, "bootstrapServers: holds what is not a broker's address"},
		{"", triggertest.With(base, "bootstrapServers", "a:9092,b:"), nil, "bootstrapServers: holds what is not a broker's address"},
		{"", triggertest.With(base, "bootstrapServers", "a b"), nil, "bootstrapServers: holds what is not a broker's address"},
		{"", triggertest.With(base, "bootstrapServers", "kafka://a:9092"), nil, "bootstrapServers: holds what is not a broker's address"},
		{"", triggertest.With(base, "consumerGroup", ""), nil, "consumerGroup: is required"},
		{"", triggertest.With(base, "lagThreshold", "0"), nil, `lagThreshold "0": is too small; give at least 1`},
		{"", triggertest.With(base, "activationLagThreshold", "-1"), nil, `activationLagThreshold "-1": is too small; give at least 0`},
		{"", triggertest.With(base, "offsetResetPolicy", "none"), nil, `offsetResetPolicy "none": is not allowed`},
		{"", triggertest.With(base, "allowIdleConsumers", "yes"), nil, `allowIdleConsumers "yes": is not a boolean`},
		{"", triggertest.With(base, "partitionLimitation", "1,x"), nil, `partitionLimitation "1,x": is not`},
		{"", triggertest.With(base, "partitionLimitation", "3-1"), nil, `partitionLimitation "3-1": holds a range that ends before it begins`},
		{"", triggertest.With(base, "allowIdleConsumers", "true", "limitToPartitionsWithLag", "true"), nil, "allowIdleConsumers: contradicts"},
		{"", triggertest.With(base, "topic", "", "limitToPartitionsWithLag", "true"), nil, "limitToPartitionsWithLag: needs topic"},
		{"kafka", triggertest.With(base, "topic", "", "ensureEvenDistributionOfPartitions", "true"), nil, "ensureEvenDistributionOfPartitions: needs topic"},
		{"kafka", triggertest.With(base, "ensureEvenDistributionOfPartitions", "true", "limitToPartitionsWithLag", "true"), nil,
			"ensureEvenDistributionOfPartitions: contradicts"},
		{"kafka", triggertest.With(base, "topic", "", "fullMetadata", "false"), nil, "fullMetadata: needs topic"},
		{"kafka", triggertest.With(base, "version", "one"), nil, "version: is not a version of Kafka"},
		{"", base, config{"tls": "hunter2"}, "tls: is not allowed; give enable or disable"},
		{"", base, config{"tls": "enable", "cert": certs.ClientCert}, "cert: and key must be given together"},
		{"", base, config{"tls": "enable", "ca": "hunter2"}, "ca: holds no certificate"},
		{"", base, config{"sasl": "hunter2"}, "sasl: is not allowed"},
		{"", base, config{"sasl": "plaintext", "password": "hunter2"}, "username: is required with sasl plaintext"},
		{"", base, config{"sasl": "scram_sha256", "username": "u"}, "password: is required with sasl scram_sha256"},
		{"", base, config{"sasl": "gssapi", "username": "u"}, "sasl: is gssapi, but Kerberos is not supported"},
		{"apache-kafka", triggertest.With(base, "awsRegion", "r", "sasl", "aws_msk_iam", "tls", "enable"), nil, "sasl: is aws_msk_iam, which is not supported"},
		{"apache-kafka", triggertest.With(base, "sasl", "none"), config{"sasl": "none"}, "sasl: is given in metadata and in a TriggerAuthentication"},
		{"apache-kafka", triggertest.With(base, "tls", "disable"), config{"tls": "disable"}, "tls: is given in metadata and in a TriggerAuthentication"},
		{"kafka", triggertest.With(base, "saslTokenProvider", "aws_msk_iam"), oauth, "saslTokenProvider: is aws_msk_iam, which is not supported"},
		{"kafka", base, triggertest.With(oauth, "oauthTokenEndpointUri", ""), "oauthTokenEndpointUri: is required with sasl oauthbearer"},
		{"kafka", base, triggertest.With(oauth, "oauthTokenEndpointUri", "hunter2"), "oauthTokenEndpointUri: is not a URL"},
		{"kafka", base, triggertest.With(oauth, "oauthExtensions", "a"), "oauthExtensions: is not a list of key=value"},
		{"kafka", base, triggertest.With(oauth, "oauthExtensions", "a=b=c"), "oauthExtensions: is not a list of key=value"},
		{"kafka", base, triggertest.With(oauth, "username", ""), "username: is required with sasl oauthbearer"},
	} {
		for name, declared := range types(kafka.NewClients()) {
			if test.only != "" && test.only != name {
				continue
			}
			made, err := declared.New(t.Context(), trigger.Config{Metadata: test.metadata, Auth: test.auth})
			if err == nil {
				made.Close()
				t.Errorf("%s: no error, want %q", name, test.want)
				continue
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: error %q, want %q and no secret", name, err, test.want)
			}
		}
	}
}

func TestDefaultPort(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"nobody.test": "nobody.test:9092", "a:1, nobody.test": "a:1,nobody.test:9092", "::1": "[::1]:9092", "[::1]:1": "[::1]:1",
	} {
		made := build(t, kafka.ApacheType(kafka.NewClients()),
			config{"bootstrapServers": server, "consumerGroup": "g", "topic": "t"}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := made.Measure(ctx); err == nil || !strings.Contains(err.Error(), "kafka at "+want+":") {
			t.Errorf("%q: %v, want the address %s", server, err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, declared := range types(kafka.NewClients()) {
		for _, test := range []struct {
			metadata config
			hasAuth  bool
			want     string
		}{
			{config{"bootstrapServersFromEnv": "S", "consumerGroupFromEnv": "G", "topicFromEnv": "T", "limitToPartitionsWithLag": "true"}, false, ""},
			{config{"bootstrapServers": "a:1", "consumerGroup": "g", "sasl": "plaintext"}, true, ""},
			{config{"bootstrapServers": "a:1", "consumerGroup": "g", "password": "x"}, false, "password: cannot be given in metadata"},
			{config{"bootstrapServers": "a:1", "consumerGroup": "g", "lagTreshold": "1"}, false, "did you mean lagThreshold?"},
		} {
			findings := declared.Validate(test.metadata, test.hasAuth)
			switch {
			case test.want == "" && len(findings) > 0:
				t.Errorf("%s: %v, want nothing", name, findings)
			case test.want != "" && (len(findings) != 1 || !strings.Contains(findings[0].Error(), test.want)):
				t.Errorf("%s: %v, want %q", name, findings, test.want)
			}
		}
		for want, metadata := range map[string]config{
			"s1-kafka-a-b": {"topic": "a.b"}, "s1-kafka-g-topics": {"consumerGroup": "g"},
		} {
			if got := declared.ExternalMetricName(1, trigger.Config{Metadata: metadata}); got != want {
				t.Errorf("%s: metric name %q, want %q", name, got, want)
			}
		}
	}
}

func FuzzParameters(f *testing.F) {
	f.Add("a:9092,[::1]:1", "1-3,7", "a=b,c=d", "https://h/token")
	f.Add("a:b:c,,", "3-1", "=,==", "://")
	f.Fuzz(func(t *testing.T, servers, partitions, extensions, uri string) {
		made, err := kafka.Type(kafka.NewClients()).New(t.Context(), trigger.Config{
			Metadata: config{"bootstrapServers": servers, "consumerGroup": "g", "topic": "t", "partitionLimitation": partitions},
			Auth: config{
				"sasl": "oauthbearer", "username": "u", "password": "hunter2", "oauthExtensions": extensions,
				"oauthTokenEndpointUri": uri,
			},
		})
		if err == nil {
			made.Close()
		}
	})
}
