package metricsapi_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
	"github.com/offboard-dev/offboard/internal/trigger/metricsapi"
)

// pods are the IP addresses of the Pods of Service shop/stats.
type pods struct {
	addresses []string
	err       error
}

func (p *pods) Endpoints(_ context.Context, namespace, service string) ([]string, error) {
	if namespace != "shop" || service != "stats" {
		return nil, fmt.Errorf("asked for %s/%s", namespace, service)
	}
	return p.addresses, p.err
}

// TestAsksEachPod has Pods at several addresses of the loopback interface, which listen on one port.
func TestAsksEachPod(t *testing.T) {
	t.Parallel()
	_, port, _ := net.SplitHostPort(servertest.FreeAddress(t))
	for ip, value := range map[string]string{"127.0.0.1": "1", "127.0.0.2": "2", "127.0.0.3": "6", "127.0.0.4": "null"} {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(ip, port))
		if err != nil {
			t.Fatal(err)
		}
		server := &httptest.Server{Listener: listener, Config: &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprintf(w, `{"%s": %s}`, r.URL.Query().Get("of"), value)
			}),
		}}
		server.Start()
		t.Cleanup(server.Close)
	}
	build := func(known trigger.Endpoints, aggregation string) (trigger.Trigger, error) {
		return metricsapi.Type(httpget.NewClients()).New(t.Context(), trigger.Config{
			Endpoints: known,
			Metadata: config{
				"url": "http://stats.shop.svc.cluster.local:" + port + "/d?of=waiting", "valueLocation": "waiting",
				"targetValue": "1", "timeout": "1m", "aggregateFromKubeServiceEndpoints": "true", "aggregationType": aggregation,
			},
		})
	}
	three := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}
	for _, test := range []struct {
		aggregation string
		pods        []string
		err         error
		want        float64
		wrong       string
	}{
		{"", three, nil, 3, ""},
		{"average", three[:1], nil, 1, ""},
		{"sum", three, nil, 9, ""},
		{"max", three, nil, 6, ""},
		{"min", three, nil, 1, ""},
		// One has no such value, and at one address nobody listens.
		{"sum", append(three, "127.0.0.4", "127.0.0.5"), nil, 9, ""},
		{"sum", []string{"127.0.0.4"}, nil, 0, `none of 1 Pods can be read: 127.0.0.4:` + port + `/d: what is at valueLocation`},
		{"sum", []string{"127.0.0.5"}, nil, 0, "is not reachable"},
		{"sum", nil, nil, 0, "the Service shop/stats does not exist, or none of its Pods is ready"},
		{"sum", nil, errors.New("forbidden"), 0, "look for the Pods of the Service: forbidden"},
	} {
		made, err := build(&pods{test.pods, test.err}, test.aggregation)
		if err != nil {
			t.Fatal(err)
		}
		got, err := made.Measure(t.Context())
		made.Close()
		if test.wrong == "" && (err != nil || got.Value != test.want) ||
			test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%s of %v: got %+v, %v; want %v %s", test.aggregation, test.pods, got, err, test.want, test.wrong)
		}
	}
	if _, err := build(nil, ""); err == nil || !strings.Contains(err.Error(), "needs a Kubernetes cluster") {
		t.Errorf("without Services: got %v", err)
	}
}
