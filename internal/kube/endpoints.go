package kube

import (
	"context"
	"fmt"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// endpoints implements trigger.Endpoints on a cluster. It asks the server each time: few triggers need it, and the Pods
// of a Service change often.
type endpoints struct{ reader client.Reader }

var _ trigger.Endpoints = endpoints{}

// Endpoints implements trigger.Endpoints.
func (e endpoints) Endpoints(ctx context.Context, namespace, service string) ([]string, error) {
	var slicesOf discoveryv1.EndpointSliceList
	err := e.reader.List(ctx, &slicesOf, client.InNamespace(namespace),
		client.MatchingLabels{discoveryv1.LabelServiceName: service})
	if err != nil {
		return nil, fmt.Errorf("list the EndpointSlices of Service %s/%s: %w", namespace, service, err)
	}
	var addresses []string
	for _, slice := range slicesOf.Items {
		for _, endpoint := range slice.Endpoints {
			// As the API says, nil means ready, and all addresses of one endpoint are the same Pod's.
			if ready := endpoint.Conditions.Ready; (ready == nil || *ready) && len(endpoint.Addresses) > 0 {
				addresses = append(addresses, endpoint.Addresses[0])
			}
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses), nil
}
