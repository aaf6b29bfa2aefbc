package kube

import (
	"slices"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// TestEndpoints reads those of a Service from a real API server, with and without the right to it.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	plane := shared.Cluster(t)
	c := installed(t, plane.Config())
	namespace := plane.Namespace(t)
	for name, of := range map[string]struct {
		service   string
		endpoints []discoveryv1.Endpoint
	}{
		"stats-1": {"stats", []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.2"}},
			{Addresses: []string{"10.0.0.3"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
		}},
		"stats-2": {"stats", []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}},
			{Addresses: []string{"10.0.0.2"}},
		}},
		"other-1": {"other", []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.4"}}}},
	} {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: of.service},
			},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: of.endpoints,
		}
		if err := c.Create(t.Context(), slice); err != nil {
			t.Fatal(err)
		}
	}
	// With the rights of an operator that looks after one namespace.
	may := endpoints{aClient(t, user(t, plane, c, "endpoints-"+namespace, []string{namespace}, clusterRules, rules("")))}
	for service, want := range map[string][]string{"stats": {"10.0.0.1", "10.0.0.2"}, "other": {"10.0.0.4"}, "none": nil} {
		if got, err := may.Endpoints(t.Context(), namespace, service); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", service, got, err, want)
		}
	}
	_, err := may.Endpoints(t.Context(), "default", "stats")
	if err == nil || !strings.Contains(err.Error(), "list the EndpointSlices of Service default/stats") ||
		!strings.Contains(err.Error(), "forbidden") {
		t.Errorf("elsewhere: got %v", err)
	}
}
