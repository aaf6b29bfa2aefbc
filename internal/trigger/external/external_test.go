package external_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/external"
	"github.com/offboard-dev/offboard/internal/trigger/external/externalscaler"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

// patience is how long a condition may take that is expected to come true at once.
const patience = 2 * time.Minute

// scaler is an external scaler with one queue.
type scaler struct {
	externalscaler.UnimplementedExternalScalerServer

	mu      sync.Mutex
	specs   []*externalscaler.MetricSpec
	values  map[string][]*externalscaler.MetricValue
	active  bool
	failure error
	ref     *externalscaler.ScaledObjectRef
	streams map[chan bool]bool
}

func newScaler() *scaler {
	return &scaler{
		specs:   []*externalscaler.MetricSpec{{MetricName: "backlog", TargetSize: 5}},
		values:  map[string][]*externalscaler.MetricValue{"backlog": {{MetricName: "backlog", MetricValue: 12}}},
		active:  true,
		streams: map[chan bool]bool{},
	}
}

func (s *scaler) see(ref *externalscaler.ScaledObjectRef) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ref = ref
	return s.failure
}

func (s *scaler) IsActive(_ context.Context, r *externalscaler.ScaledObjectRef) (*externalscaler.IsActiveResponse, error) {
	if err := s.see(r); err != nil {
		return nil, err
	}
	return &externalscaler.IsActiveResponse{Result: s.active}, nil
}

func (s *scaler) GetMetricSpec(
	_ context.Context, r *externalscaler.ScaledObjectRef,
) (*externalscaler.GetMetricSpecResponse, error) {
	if err := s.see(r); err != nil {
		return nil, err
	}
	return &externalscaler.GetMetricSpecResponse{MetricSpecs: s.specs}, nil
}

func (s *scaler) GetMetrics(
	_ context.Context, r *externalscaler.GetMetricsRequest,
) (*externalscaler.GetMetricsResponse, error) {
	if err := s.see(r.ScaledObjectRef); err != nil {
		return nil, err
	}
	return &externalscaler.GetMetricsResponse{MetricValues: s.values[r.MetricName]}, nil
}

func (s *scaler) StreamIsActive(
	r *externalscaler.ScaledObjectRef, stream grpc.ServerStreamingServer[externalscaler.IsActiveResponse],
) error {
	if err := s.see(r); err != nil {
		return err
	}
	told := make(chan bool)
	s.mu.Lock()
	s.streams[told] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.streams, told)
	}()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case active, open := <-told:
			if !open {
				return status.Error(codes.Aborted, "over")
			}
			if err := stream.Send(&externalscaler.IsActiveResponse{Result: active}); err != nil {
				return err
			}
		}
	}
}

// opened returns the streams that are open.
func (s *scaler) opened() []chan bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.streams))
}

// serve serves the scaler at the address until the test ends or stop is called.
func (s *scaler) serve(tb testing.TB, address string, transport credentials.TransportCredentials) (at string, stop func()) {
	tb.Helper()
	var listener net.Listener
	eventually(tb, "to listen at "+address, func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	server := grpc.NewServer(grpc.Creds(transport))
	externalscaler.RegisterExternalScalerServer(server, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	stop = sync.OnceFunc(func() {
		server.Stop()
		serving.Wait()
	})
	tb.Cleanup(stop)
	return listener.Addr().String(), stop
}

func start(tb testing.TB, s *scaler) string {
	tb.Helper()
	address, _ := s.serve(tb, "127.0.0.1:0", insecure.NewCredentials())
	return address
}

func build(tb testing.TB, declared trigger.Type, cfg trigger.Config) trigger.Trigger {
	tb.Helper()
	made, err := declared.New(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(made.Close)
	return made
}

func at(tb testing.TB, address string) trigger.Trigger {
	tb.Helper()
	return build(tb, external.Type(external.NewClients()), trigger.Config{Metadata: config{"scalerAddress": address}})
}

// eventually waits until there is no error.
func eventually(tb testing.TB, what string, condition func() error) {
	tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

func TestMeasures(t *testing.T) {
	t.Parallel()
	value := func(integer int64, float float64) *externalscaler.MetricValue {
		return &externalscaler.MetricValue{MetricName: "a", MetricValue: integer, MetricValueFloat: float}
	}
	spec := func(name string, integer int64, float float64) *externalscaler.MetricSpec {
		return &externalscaler.MetricSpec{MetricName: name, TargetSize: integer, TargetSizeFloat: float}
	}
	type values = []*externalscaler.MetricValue
	type specs = []*externalscaler.MetricSpec
	for _, test := range []struct {
		name   string
		specs  specs
		values values
		active bool
		want   trigger.Measurement
		wrong  string
	}{
		{"integers", specs{spec("a", 5, 0)}, values{value(12, 0)}, true, trigger.Measurement{Value: 12, Target: 5, Active: true}, ""},
		{"floats", specs{spec("a", 0, 2.5)}, values{value(0, 7.5)}, true, trigger.Measurement{Value: 7.5, Target: 2.5, Active: true}, ""},
		{"float before integer", specs{spec("a", 1, 2.5)}, values{value(1, 7.5)}, false, trigger.Measurement{Value: 7.5, Target: 2.5}, ""},
		{"inactive with work", specs{spec("a", 5, 0)}, values{value(12, 0)}, false, trigger.Measurement{Value: 12, Target: 5}, ""},
		{"active without work", specs{spec("a", 5, 0)}, values{value(0, 0)}, true, trigger.Measurement{Target: 5, Active: true}, ""},
		{"several values", specs{spec("a", 5, 0)}, values{value(1, 0), value(0, 2.5)}, true,
			trigger.Measurement{Value: 3.5, Target: 5, Active: true}, ""},
		{"no value", specs{spec("a", 5, 0)}, nil, true, trigger.Measurement{Target: 5, Active: true}, ""},
		{"several metrics", specs{spec("a", 1, 0), spec("b", 0, 4.5)}, values{value(12, 0)}, true,
			trigger.Measurement{Value: 12, Target: 2.75, Active: true}, ""},
		{"no metric", nil, nil, true, trigger.Measurement{}, "has no metric for this trigger"},
		{"no target", specs{spec("a", 0, 0)}, values{value(1, 0)}, true, trigger.Measurement{}, "gives a target of 0"},
		{"a negative target", specs{spec("a", -1, 0)}, values{value(1, 0)}, true, trigger.Measurement{}, "gives a target of -1"},
		{"no finite target", specs{spec("a", 0, math.Inf(1))}, values{value(1, 0)}, true, trigger.Measurement{}, "gives a target of +Inf"},
		{"no number", specs{spec("a", 1, 0)}, values{value(1, math.Inf(1))}, true, trigger.Measurement{}, "no amount of work"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newScaler()
			s.specs, s.active, s.values = test.specs, test.active, map[string]values{"a": test.values}
			address := start(t, s)
			got, err := at(t, address).Measure(t.Context())
			if test.wrong == "" && (err != nil || got != test.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
			if test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong) ||
				!strings.Contains(err.Error(), "external scaler at "+address)) {
				t.Errorf("got %+v, error %v; want %q", got, err, test.wrong)
			}
		})
	}
}

func TestServerIsToldOfTheTrigger(t *testing.T) {
	t.Parallel()
	s := newScaler()
	address := start(t, s)
	metadata := config{"scalerAddress": address, "queue": " as written ", "tokenFromEnv": "TOKEN", "noneFromEnv": "NONE"}
	for _, declared := range []trigger.Type{external.Type(external.NewClients()), external.PushType(external.NewClients())} {
		if findings := declared.Validate(metadata, false); len(findings) != 0 {
			t.Errorf("findings %v, want none", findings)
		}
		made := build(t, declared, trigger.Config{
			Namespace: "team", Name: "worker", Metadata: metadata, Env: config{"TOKEN": "canary"},
		})
		if _, err := made.Measure(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := config{"scalerAddress": address, "queue": " as written ", "tokenFromEnv": "canary"}
		if s.ref.Namespace != "team" || s.ref.Name != "worker" || !maps.Equal(s.ref.ScalerMetadata, want) {
			t.Errorf("told %v, want %v of team/worker", s.ref, want)
		}
		s.mu.Lock()
		s.failure = status.Error(codes.InvalidArgument, "token canary is not known\n"+strings.Repeat("x", 9999))
		s.mu.Unlock()
		_, err := made.Measure(t.Context())
		if err == nil || !strings.Contains(err.Error(), "InvalidArgument: token … is not known x") || len(err.Error()) > 400 ||
			strings.Contains(err.Error(), "canary") {
			t.Errorf("error %v", err)
		}
		s.mu.Lock()
		s.failure = nil
		s.mu.Unlock()
	}
}

// TestProtocol holds what goes over the wire to what KEDA has published.
func TestProtocol(t *testing.T) {
	t.Parallel()
	want := []string{
		"ScaledObjectRef.name=1", "ScaledObjectRef.namespace=2", "ScaledObjectRef.scalerMetadata=3", "IsActiveResponse.result=1",
		"GetMetricSpecResponse.metricSpecs=1", "MetricSpec.metricName=1", "MetricSpec.targetSize=2",
		"MetricSpec.targetSizeFloat=3", "GetMetricsRequest.scaledObjectRef=1", "GetMetricsRequest.metricName=2",
		"GetMetricsResponse.metricValues=1", "MetricValue.metricName=1", "MetricValue.metricValue=2",
		"MetricValue.metricValueFloat=3",
	}
	var got []string
	messages := externalscaler.File_externalscaler_proto.Messages()
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for j := range fields.Len() {
			got = append(got, fmt.Sprintf("%s.%s=%d", messages.Get(i).Name(), fields.Get(j).Name(), fields.Get(j).Number()))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	methods := []string{
		externalscaler.ExternalScaler_IsActive_FullMethodName, externalscaler.ExternalScaler_StreamIsActive_FullMethodName,
		externalscaler.ExternalScaler_GetMetricSpec_FullMethodName, externalscaler.ExternalScaler_GetMetrics_FullMethodName,
	}
	for i, name := range []string{"IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics"} {
		if want := "/externalscaler.ExternalScaler/" + name; methods[i] != want {
			t.Errorf("method %s, want %s", methods[i], want)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	address, _ := newScaler().serve(t, "127.0.0.1:0", credentials.NewTLS(certs.ServerConfig(t)))
	strict := certs.ServerConfig(t)
	strict.ClientAuth++ // to require it
	needsClient, _ := newScaler().serve(t, "127.0.0.1:0", credentials.NewTLS(strict))
	plain := start(t, newScaler())
	client := config{"caCert": certs.CA, "tlsClientCert": certs.ClientCert, "tlsClientKey": certs.ClientKey}
	for _, test := range []struct {
		name, address  string
		metadata, auth config
		wrong          string
	}{
		{"authority", address, nil, config{"caCert": certs.CA}, ""},
		{"any certificate", address, config{"enableTLS": "true", "unsafeSsl": "true"}, nil, ""},
		{"client's certificate", needsClient, nil, client, ""},
		{"unknown authority", address, config{"enableTLS": "true"}, nil, "is not reachable with TLS"},
		{"no certificate", needsClient, config{"enableTLS": "true"}, config{"caCert": certs.CA}, "is not reachable with TLS"},
		{"no TLS", address, nil, nil, `where it expects TLS, give enableTLS "true"`},
		{"TLS to none", plain, config{"enableTLS": "true"}, nil, "is not reachable with TLS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := config{"scalerAddress": test.address}
			maps.Copy(metadata, test.metadata)
			made := build(t, external.Type(external.NewClients()), trigger.Config{Metadata: metadata, Auth: test.auth})
			got, err := made.Measure(t.Context())
			if test.wrong == "" && (err != nil || got.Value != 12) {
				t.Errorf("got %+v, %v", got, err)
			}
			if test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
				t.Errorf("error %v, want %q", err, test.wrong)
			}
		})
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	s := newScaler()
	address, stop := s.serve(t, servertest.FreeAddress(t), insecure.NewCredentials())
	proxy := servertest.StartProxy(t, address)
	clients := external.NewClients()
	var triggers []trigger.Trigger
	for range 50 {
		triggers = append(triggers, build(t, external.Type(clients), trigger.Config{
			Metadata: config{"scalerAddress": proxy.Addr(), "queue": fmt.Sprint(len(triggers))},
		}))
	}
	works := func(made trigger.Trigger) error {
		got, err := made.Measure(t.Context())
		if err == nil && got.Value != 12 {
			err = fmt.Errorf("got %+v", got)
		}
		return err
	}
	for _, made := range triggers {
		if err := works(made); err != nil {
			t.Error(err)
		}
	}
	if proxy.Opened() != 1 {
		t.Errorf("50 triggers made %d connections, want 1", proxy.Opened())
	}
	made := triggers[0]
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	proxy.Hold()
	if _, err := made.Measure(ctx); !errors.Is(err, context.DeadlineExceeded) ||
		!strings.Contains(err.Error(), "does not answer in time") {
		t.Errorf("a dead network: error %v", err)
	}
	proxy.Forward()
	eventually(t, "a measurement after the network is back", func() error { return works(made) })
	stop()
	eventually(t, "an error of a dead server", func() error {
		if _, err := made.Measure(t.Context()); err == nil || !strings.Contains(err.Error(), "is not reachable") {
			return fmt.Errorf("error %w", err)
		}
		return nil
	})
	s.serve(t, address, insecure.NewCredentials())
	eventually(t, "a measurement after the server is back", func() error { return works(made) })

	other := grpc.NewServer()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = other.Serve(listener) })
	defer serving.Wait()
	defer other.Stop()
	if _, err := at(t, listener.Addr().String()).Measure(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "does not serve the protocol of external scalers") {
		t.Errorf("another server: error %v", err)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	s := newScaler()
	address, stop := s.serve(t, servertest.FreeAddress(t), insecure.NewCredentials())
	var log lines
	made := build(t, external.PushType(external.NewClients()), trigger.Config{
		Metadata: config{"scalerAddress": address}, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	called := make(chan struct{}, 1)
	end := made.(trigger.Watcher).Watch(func() {
		select {
		case called <- struct{}{}:
		default:
		}
	})
	t.Cleanup(end)
	wait := func(what string) {
		t.Helper()
		select {
		case <-called:
		case <-time.After(patience):
			t.Fatalf("%s: not told within %v", what, patience)
		}
	}
	stream := func() (open chan bool) {
		eventually(t, "a stream", func() error {
			if all := s.opened(); len(all) == 1 {
				open = all[0]
				return nil
			}
			return errors.New("no stream")
		})
		return open
	}
	wait("the stream is open")
	for _, active := range []bool{true, false, true} {
		stream() <- active
		wait("the server tells")
	}
	if log.String() != "" {
		t.Errorf("logged without an outage: %s", log.String())
	}
	close(stream()) // the server ends the stream
	wait("the stream is open again")
	stream() <- true
	wait("the server tells on the new stream")
	stop()
	again, _ := s.serve(t, address, insecure.NewCredentials())
	if again != address {
		t.Fatalf("serves at %s, want %s", again, address)
	}
	wait("the server is back")
	if got := strings.Count(log.String(), "does not tell of changes"); got != 2 {
		t.Errorf("logged %d outages, want 2:\n%s", got, log.String())
	}
	open := stream()
	end()
	end() // twice does no harm
	for range len(called) {
		<-called
	}
	select {
	case open <- true:
	case <-time.After(50 * time.Millisecond): // the stream has ended already
	}
	eventually(t, "the end of the stream", func() error {
		if left := len(s.opened()); left != 0 {
			return fmt.Errorf("%d streams are open", left)
		}
		return nil
	})
	if len(called) != 0 {
		t.Error("told after the end")
	}
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	for _, test := range []struct {
		metadata, auth config
		want           string
	}{
		{nil, nil, "scalerAddress: is required"},
		{config{"scalerAddress": "http://h:1"}, nil, "scalerAddress: is a URL; give host:port"},
		{config{"scalerAddress": "h:1", "enableTLS": "x"}, nil, "enableTLS \"x\": is not a boolean"},
		{config{"scalerAddress": "h:1", "unsafeSsl": "x"}, nil, "unsafeSsl \"x\": is not a boolean"},
		{config{"scalerAddress": "h:1"}, config{"caCert": "canary"}, "caCert: holds no certificate"},
		{config{"scalerAddress": "h:1"}, config{"tlsClientCert": "canary", "tlsClientKey": certs.ClientKey},
			"tlsClientCert: does not make a client certificate"},
		{config{"scalerAddress": "h:1"}, config{"tlsClientCert": certs.ClientCert, "tlsClientKey": "canary"},
			"tlsClientKey: is not PEM"},
		{config{"scalerAddress": "h:1"}, config{"tlsClientCert": certs.ClientCert,
			"tlsClientKey": strings.ReplaceAll(certs.ClientKey, "PRIVATE", "ENCRYPTED PRIVATE")}, "tlsClientKey: is encrypted"},
	} {
		_, err := external.Type(external.NewClients()).New(t.Context(), trigger.Config{Metadata: test.metadata, Auth: test.auth})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
	made := build(t, external.Type(external.NewClients()), trigger.Config{
		Metadata: config{"scalerAddress": "h:1"}, Auth: config{"tlsClientCert": "alone"},
	})
	if made == nil {
		t.Error("a certificate without a key is refused; KEDA ignores it")
	}
	for _, declared := range []trigger.Type{external.Type(nil), external.PushType(nil)} {
		if name := declared.ExternalMetricName(0, trigger.Config{}); name != "s0-"+declared.Name {
			t.Errorf("metric name %s", name)
		}
	}
}

// BenchmarkMeasure compares a measurement with the bare calls that KEDA makes for it.
func BenchmarkMeasure(b *testing.B) {
	address := start(b, newScaler())
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	client := externalscaler.NewExternalScalerClient(connection)
	ref := &externalscaler.ScaledObjectRef{Name: "n", Namespace: "ns", ScalerMetadata: config{"scalerAddress": address}}
	triggertest.Compare(b, at(b, address), func() error {
		_, err := client.GetMetricSpec(b.Context(), ref)
		_, err2 := client.GetMetrics(b.Context(), &externalscaler.GetMetricsRequest{ScaledObjectRef: ref, MetricName: "backlog"})
		_, err3 := client.IsActive(b.Context(), ref)
		return errors.Join(err, err2, err3)
	})
}
