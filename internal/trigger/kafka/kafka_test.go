package kafka_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/kafka"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

// start starts brokers that end with the test.
func start(t testing.TB, options ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

func servers(cluster *kfake.Cluster) string { return strings.Join(cluster.ListenAddrs(), ",") }

// produce writes as many records to partitions of a topic, beginning with partition 0.
func produce(t testing.TB, cluster *kfake.Cluster, topic string, counts []int, options ...kgo.Opt) {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for number, count := range counts {
		for range count {
			record := &kgo.Record{Topic: topic, Partition: int32(number), Value: []byte("item")}
			if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// commit commits offsets of a group, by topic, beginning with partition 0; those below 0 are not.
func commit(t testing.TB, cluster *kfake.Cluster, group string, offsets map[string][]int64) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	all := kadm.Offsets{}
	for topic, partitions := range offsets {
		for number, offset := range partitions {
			if offset >= 0 {
				all.AddOffset(topic, int32(number), offset, -1)
			}
		}
	}
	if err := kadm.NewClient(client).CommitAllOffsets(t.Context(), group, all); err != nil {
		t.Fatal(err)
	}
}

func types(clients *kafka.Clients) map[string]trigger.Type {
	return map[string]trigger.Type{"kafka": kafka.Type(clients), "apache-kafka": kafka.ApacheType(clients)}
}

func build(t testing.TB, declared trigger.Type, metadata, auth config) trigger.Trigger {
	t.Helper()
	made, err := declared.New(t.Context(), trigger.Config{Metadata: metadata, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sync.OnceFunc(made.Close))
	return made
}

func of(cluster *kfake.Cluster, topic string) config {
	return config{"bootstrapServers": servers(cluster), "consumerGroup": "worker", "topic": topic}
}

func TestMeasures(t *testing.T) {
	t.Parallel()
	cluster := start(t, kfake.NumBrokers(3), kfake.SeedTopics(4, "tasks", "fresh", "more", "ahead"))
	produce(t, cluster, "tasks", []int{9, 5, 4, 0})
	produce(t, cluster, "more", []int{7})
	produce(t, cluster, "fresh", []int{3, 2})
	produce(t, cluster, "ahead", []int{1, 6})
	// Lags of 8, 2 and 0, and a partition without an offset.
	commit(t, cluster, "worker", map[string][]int64{"tasks": {1, 3, 4, -1}, "more": {2}, "ahead": {5, 2, 0, 0}})
	base := of(cluster, "tasks")
	for name, declared := range types(kafka.NewClients()) {
		for _, test := range []struct {
			name   string
			more   []string
			value  float64
			target float64
			active bool
		}{
			{"defaults", nil, 11, 10, true}, // latest: 1 for the partition without an offset
			{"latest", []string{"offsetResetPolicy", "latest"}, 11, 10, true},
			{"earliest", []string{"offsetResetPolicy", "earliest"}, 10, 10, true},
			{"invalid offset", []string{"scaleToZeroOnInvalidOffset", "true"}, 10, 10, true},
			{"threshold", []string{"lagThreshold", "5"}, 11, 5, true},
			{"activation", []string{"activationLagThreshold", "11"}, 11, 10, false},
			{"activation below", []string{"activationLagThreshold", "10"}, 11, 10, true},
			{"no more Jobs than partitions", []string{"lagThreshold", "2"}, 8, 2, true},
			{"idle", []string{"lagThreshold", "2", "allowIdleConsumers", "true"}, 11, 2, true},
			{"partitions with lag", []string{"lagThreshold", "2", "limitToPartitionsWithLag", "true"}, 6, 2, true},
			{"even", []string{"lagThreshold", "6", "ensureEvenDistributionOfPartitions", "true"}, 12, 6, true},
			{"even, more", []string{"lagThreshold", "4", "ensureEvenDistributionOfPartitions", "true"}, 16, 4, true},
			{"even wins over idle", []string{"lagThreshold", "1", "ensureEvenDistributionOfPartitions", "true",
				"allowIdleConsumers", "true"}, 4, 1, true},
			{"one partition", []string{"partitionLimitation", "1"}, 2, 10, true},
			{"partitions", []string{"partitionLimitation", "1-2,3"}, 3, 10, true},
			{"fewer Jobs", []string{"partitionLimitation", "0", "lagThreshold", "1"}, 1, 1, true},
			{"all topics", []string{"topic", "", "partitionLimitation", "77", "allowIdleConsumers", "true"}, 11 + (5 + 3) + 4, 10, true},
			{"ahead", []string{"topic", "ahead"}, 4, 10, true},
			{"nothing committed, latest", []string{"topic", "fresh"}, 4, 10, true},
			{"nothing committed, earliest", []string{"topic", "fresh", "offsetResetPolicy", "earliest"}, 5, 10, true},
			{"nothing committed, invalid", []string{"topic", "fresh", "scaleToZeroOnInvalidOffset", "true"}, 0, 10, false},
			{"nothing committed, earliest and invalid", []string{"topic", "fresh", "offsetResetPolicy", "earliest",
				"scaleToZeroOnInvalidOffset", "true"}, 0, 10, false},
			{"even without lag", []string{"topic", "fresh", "scaleToZeroOnInvalidOffset", "true",
				"ensureEvenDistributionOfPartitions", "true"}, 0, 10, false},
		} {
			want := trigger.Measurement{Value: test.value, Target: test.target, Active: test.active}
			made := build(t, declared, triggertest.With(base, test.more...), nil)
			if got := triggertest.Measure(t, made); got != want {
				t.Errorf("%s, %s: %+v, want %+v", name, test.name, got, want)
			}
			made.Close()
		}
	}
	for _, test := range []struct {
		more []string
		want float64
	}{
		{[]string{"version", "1.0.0"}, 11}, {[]string{"version", "0.10.2.0"}, 11}, {[]string{"fullMetadata", "false"}, 11},
		{[]string{"sasl", "none", "tls", "disable", "unsafeSsl", "false"}, 11},
	} {
		if got := triggertest.Measure(t, build(t, kafka.Type(kafka.NewClients()), triggertest.With(base, test.more...), nil)); got.Value != test.want {
			t.Errorf("%q: %+v, want %v", test.more, got, test.want)
		}
	}
	both := build(t, kafka.ApacheType(kafka.NewClients()), triggertest.With(base, "topic", "tasks, more", "partitionLimitation", "0"), nil)
	if got := triggertest.Measure(t, both); got.Value != 8+5 {
		t.Errorf("two topics: %+v, want %d", got, 8+5)
	}
	for _, test := range []struct {
		more []string
		want string
	}{
		{[]string{"topic", "none"}, `topic "none": UNKNOWN_TOPIC_OR_PARTITION`},
		{[]string{"topic", "", "consumerGroup", "nobody"}, `group "nobody" has committed no offset`},
		{[]string{"partitionLimitation", "9"}, `topic "tasks" has no partition that counts`},
		{[]string{"bootstrapServers", deadAddress(t)}, "is not reachable"},
	} {
		if text := triggertest.Refusal(t, build(t, kafka.Type(kafka.NewClients()), triggertest.With(base, test.more...), nil), test.want); !strings.Contains(text, test.want) {
			t.Errorf("error %q, want %q", text, test.want)
		}
	}
}

// deadAddress returns one that nobody listens at.
func deadAddress(t *testing.T) string {
	t.Helper()
	return servertest.FreeAddress(t)
}

func TestPersistentLag(t *testing.T) {
	t.Parallel()
	cluster := start(t, kfake.NumBrokers(1), kfake.SeedTopics(2, "tasks"))
	produce(t, cluster, "tasks", []int{5, 5})
	commit(t, cluster, "worker", map[string][]int64{"tasks": {1, 1}})
	made := build(t, kafka.Type(kafka.NewClients()), triggertest.With(of(cluster, "tasks"), "excludePersistentLag", "true"), nil)
	check := func(what string, value float64) {
		t.Helper()
		if got, want := triggertest.Measure(t, made), (trigger.Measurement{Value: value, Target: 10, Active: true}); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	check("first", 8)
	check("nothing moved", 0) // but still active
	commit(t, cluster, "worker", map[string][]int64{"tasks": {2, 1}})
	check("one moved", 3)
	check("nothing moved again", 0)
}

func TestSecurity(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	pair, err := tls.LoadX509KeyPair(certs.ServerCertFile, certs.ServerKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	base := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	strict := base.Clone()
	strict.ClientAuth, strict.ClientCAs = tls.RequireAndVerifyClientCert, certs.ClientConfig().RootCAs
	common := []kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, "tasks")}
	sasl := append(slices.Clone(common), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("PLAIN", "alice", "hunter2-plain"), kfake.Superuser("SCRAM-SHA-256", "bob", "hunter2-256"),
		kfake.Superuser("SCRAM-SHA-512", "carol", "hunter2-512"), kfake.User("PLAIN", "dave", "hunter2-dave"))
	plain, locked := start(t, common...), start(t, sasl...)
	secured, mutual := start(t, append(slices.Clone(common), kfake.TLS(base))...), start(t, append(slices.Clone(common), kfake.TLS(strict))...)
	both := start(t, append(slices.Clone(sasl), kfake.TLS(base))...)
	client := config{"tls": "enable", "ca": certs.CA, "cert": certs.ClientCert, "key": certs.ClientKey}
	login := func(sasl, user, password string) config {
		return config{"sasl": sasl, "username": user, "password": password}
	}
	for _, test := range []struct {
		name           string
		cluster        *kfake.Cluster
		metadata, auth config
		want           string // of an error; empty means none
	}{
		{"plain", plain, nil, nil, ""},
		{"plain, none", plain, nil, config{"sasl": "none", "tls": "disable"}, ""},
		{"sasl plaintext", locked, nil, login("plaintext", "alice", "hunter2-plain"), ""},
		{"sasl in metadata", locked, config{"sasl": "plaintext"}, config{"username": "alice", "password": "hunter2-plain"}, ""},
		{"scram_sha256", locked, nil, login("scram_sha256", "bob", "hunter2-256"), ""},
		{"scram_sha512", locked, nil, login("scram_sha512", "carol", "hunter2-512"), ""},
		{"wrong password", locked, nil, login("plaintext", "alice", "hunter2"), `not accept user "alice" with this password`},
		{"wrong scram password", locked, nil, login("scram_sha512", "carol", "hunter2"), `not accept user "carol"`},
		{"unknown user", locked, nil, login("scram_sha256", "eve", "hunter2"), `not accept user "eve"`},
		{"no permission", locked, nil, login("plaintext", "dave", "hunter2-dave"), `denies user "dave" the topic or group "worker"`},
		{"no login", locked, nil, nil, "it may require sasl"},
		{"tls", secured, nil, config{"tls": "enable", "ca": certs.CA}, ""},
		{"tls in metadata", secured, config{"tls": "enable"}, config{"ca": certs.CA}, ""},
		{"tls and sasl", both, nil, triggertest.With(login("scram_sha256", "bob", "hunter2-256"), "tls", "enable", "ca", certs.CA), ""},
		{"unknown authority", secured, config{"tls": "enable"}, nil, "certificate of an unknown authority; give ca"},
		{"no tls", secured, nil, nil, "closed the connection"},
		{"needless tls", plain, config{"tls": "enable"}, nil, "kafka at "},
		{"client certificate", mutual, nil, client, ""},
		{"no client certificate", mutual, nil, config{"tls": "enable", "ca": certs.CA}, "client certificate"},
	} {
		for name, declared := range types(kafka.NewClients()) {
			t.Run(test.name+", "+name, func(t *testing.T) {
				t.Parallel()
				made := build(t, declared, triggertest.With(of(test.cluster, "tasks"), pairs(test.metadata)...), test.auth)
				if test.want == "" {
					if got := triggertest.Measure(t, made); got.Value != 1 {
						t.Errorf("measured %+v, want 1", got)
					}
					return
				}
				if text := triggertest.Refusal(t, made, test.want); !strings.Contains(text, test.want) {
					t.Errorf("error %q, want %q", text, test.want)
				}
			})
		}
	}
	t.Run("unsafeSsl", func(t *testing.T) {
		t.Parallel()
		made := build(t, kafka.Type(kafka.NewClients()), triggertest.With(of(secured, "tasks"), "tls", "enable", "unsafeSsl", "true"), nil)
		if got := triggertest.Measure(t, made); got.Value != 1 {
			t.Errorf("measured %+v, want 1", got)
		}
	})
}

func pairs(values config) []string {
	var all []string
	for key, value := range values {
		all = append(all, key, value)
	}
	return all
}

// TestToken lets brokers take a token that an endpoint gives, since the ones at hand know no oauthbearer themselves.
func TestToken(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if user, password, _ := r.BasicAuth(); user != "app" || password != "hunter2" || r.PostFormValue("scope") != "read write" {
			http.Error(w, `{"error": "invalid_client", "error_description": "hunter2"}`, http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "t0ken", "token_type": "bearer", "expires_in": 3600})
	}))
	t.Cleanup(endpoint.Close)
	cluster := start(t, kfake.NumBrokers(1), kfake.SeedTopics(1, "tasks"))
	cluster.ControlKey(int16(kmsg.SASLHandshake), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return request.ResponseKind(), nil, true
	})
	var shown atomic.Value
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		shown.Store(string(request.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes))
		return request.ResponseKind(), nil, true
	})
	auth := config{
		"sasl": "oauthbearer", "username": "app", "password": "hunter2", "oauthTokenEndpointUri": endpoint.URL,
		"scopes": "read, write", "oauthExtensions": "logicalCluster=lkc-1,pool=p",
	}
	made := build(t, kafka.Type(kafka.NewClients()), triggertest.With(of(cluster, "tasks"), "saslTokenProvider", "bearer"), auth)
	for range 2 {
		if got := triggertest.Measure(t, made); got.Value != 1 {
			t.Errorf("measured %+v, want 1", got)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("%d tokens asked for, want 1", asked.Load())
	}
	if got := fmt.Sprint(shown.Load()); !strings.Contains(got, "Bearer t0ken\x01") || !strings.Contains(got, "logicalCluster=lkc-1\x01pool=p") {
		t.Errorf("the broker was shown %q", got)
	}
	for _, wrong := range []config{triggertest.With(auth, "password", "hunter2-old"), triggertest.With(auth, "oauthTokenEndpointUri", "http://"+deadAddress(t))} {
		made := build(t, kafka.Type(kafka.NewClients()), of(cluster, "tasks"), wrong)
		if text := triggertest.Refusal(t, made, "no token to log in with"); !strings.Contains(text, "no token to log in with") {
			t.Errorf("error %q", text)
		}
	}
}

func TestOutages(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	options := []kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, "tasks"), kfake.Ports(port)}
	cluster := start(t, options...)
	made := build(t, kafka.Type(kafka.NewClients()), of(cluster, "tasks"), nil)
	counts := func() bool {
		measured, err := made.Measure(t.Context())
		if err == nil && measured.Value != 1 {
			t.Errorf("measured %v, want 1 or an error", measured.Value)
		}
		return err == nil
	}
	triggertest.WaitFor(t, "the first count", counts)
	silent := make(chan struct{})
	cluster.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
		<-silent
		return nil, nil, false
	})
	if text := triggertest.Refusal(t, made); !strings.Contains(text, "does not answer in time") {
		t.Errorf("error %q", text)
	}
	close(silent)
	triggertest.WaitFor(t, "a count after the silence", counts)
	cluster.Close()
	if text := triggertest.Refusal(t, made, "is not reachable"); !strings.Contains(text, "is not reachable") {
		t.Errorf("error %q", text)
	}
	var again *kfake.Cluster
	triggertest.WaitFor(t, "the port", func() bool {
		again, err = kfake.NewCluster(options...)
		return err == nil
	})
	t.Cleanup(again.Close)
	triggertest.WaitFor(t, "a count after a restart", counts)
}

// countingListener counts the connections that it accepts.
type countingListener struct {
	net.Listener
	accepted *atomic.Int32
}

// Accept implements net.Listener.
func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

func TestSharing(t *testing.T) {
	t.Parallel()
	var accepted atomic.Int32
	cluster := start(t, kfake.NumBrokers(1), kfake.SeedTopics(1, "tasks"),
		kfake.ListenFn(func(kind, address string) (net.Listener, error) {
			listener, err := new(net.ListenConfig).Listen(context.Background(), kind, address)
			return countingListener{listener, &accepted}, err
		}))
	clients := kafka.NewClients()
	var all []trigger.Trigger
	for i := range 30 {
		declared := kafka.Type(clients)
		if i%2 == 1 {
			declared = kafka.ApacheType(clients)
		}
		all = append(all, build(t, declared, triggertest.With(of(cluster, "tasks"), "consumerGroup", fmt.Sprint("group", i)), nil))
	}
	var running sync.WaitGroup
	for _, made := range all {
		running.Go(func() {
			for range 5 {
				if measured, err := made.Measure(t.Context()); err != nil || measured.Value != 1 {
					t.Errorf("measured %+v, %v", measured, err)
				}
			}
		})
	}
	running.Wait()
	// The library has some for each broker, and one to begin with.
	if got := accepted.Load(); got > 6 {
		t.Errorf("%d connections for %d triggers, want at most 6", got, len(all))
	}
	for _, made := range all[1:] {
		made.Close()
	}
	triggertest.Measure(t, all[0])
}

// BenchmarkMeasure compares a measurement with the client's own lag.
func BenchmarkMeasure(b *testing.B) {
	cluster := start(b, kfake.NumBrokers(1), kfake.SeedTopics(4, "tasks"))
	commit(b, cluster, "worker", map[string][]int64{"tasks": {0, 0, 0, 0}})
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	made := build(b, kafka.Type(kafka.NewClients()), of(cluster, "tasks"), nil)
	triggertest.Compare(b, made, func() error {
		_, err := admin.Lag(b.Context(), "worker")
		return err
	})
}
