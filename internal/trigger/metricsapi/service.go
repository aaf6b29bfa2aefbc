package metricsapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Ways to make one value of those of several Pods.
const (
	average = "average"
	sum     = "sum"
	highest = "max"
	lowest  = "min"
)

// atOnce is how many Pods are asked at the same time.
const atOnce = 16

// service is a Kubernetes Service each Pod of which has a document of its own.
type service struct {
	endpoints       trigger.Endpoints
	namespace, name string
	// address is that of the Service; the Pods listen on its port.
	address   *url.URL
	aggregate string
	log       *slog.Logger
}

// serviceOf returns the Service that an address names as SERVICE.NAMESPACE, with or without what follows in a cluster.
func serviceOf(address *url.URL, cfg trigger.Config, aggregate string) (*service, error) {
	name, namespace, finding := serviceName(address)
	if finding != nil {
		return nil, *finding
	}
	if cfg.Endpoints == nil {
		return nil, trigger.ParamError{Key: paramEndpoints,
			Message: "needs a Kubernetes cluster, whose Services have Pods; give false and the URL of one document"}
	}
	return &service{
		endpoints: cfg.Endpoints, namespace: namespace, name: name, address: address, aggregate: aggregate, log: cfg.Log,
	}, nil
}

// serviceName returns the Service that the address names.
func serviceName(address *url.URL) (name, namespace string, finding *trigger.ParamError) {
	parts := strings.Split(address.Hostname(), ".")
	if len(parts) < 2 || net.ParseIP(address.Hostname()) != nil {
		return "", "", &trigger.ParamError{Key: paramURL, Value: address.Host,
			Message: "names no Service, which " + paramEndpoints + " needs; give http://SERVICE.NAMESPACE:PORT/PATH"}
	}
	return parts[0], parts[1], nil
}

// value reads the document of each Pod that is ready. Those that cannot be read are left out, as in KEDA, as long as
// one can: a Pod may just be ending.
func (s *service) value(
	ctx context.Context, read func(context.Context, *url.URL) (float64, error),
) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, trigger.MeasureTimeout)
	defer cancel()
	addresses, err := s.endpoints.Endpoints(ctx, s.namespace, s.name)
	if err != nil {
		return 0, fmt.Errorf("%s: look for the Pods of the Service: %w", s.address.Host, err)
	}
	if len(addresses) == 0 {
		return 0, fmt.Errorf("%s: the Service %s/%s does not exist, or none of its Pods is ready", s.address.Host,
			s.namespace, s.name)
	}
	values, failures := make([]float64, len(addresses)), make([]error, len(addresses))
	free := make(chan struct{}, atOnce)
	var asking sync.WaitGroup
	for i, ip := range addresses {
		free <- struct{}{}
		asking.Go(func() {
			defer func() { <-free }()
			values[i], failures[i] = read(ctx, s.at(ip))
		})
	}
	asking.Wait()
	var answers []float64
	for i, failure := range failures {
		if failure == nil {
			answers = append(answers, values[i])
		}
	}
	if len(answers) == 0 {
		return 0, fmt.Errorf("%s: none of %d Pods can be read: %w", s.address.Host, len(addresses), failures[0])
	}
	if left := len(addresses) - len(answers); left > 0 {
		s.log.Debug("Pods of a Service are left out", "service", s.name, "pods", left, "error", errors.Join(failures...))
	}
	return s.combine(answers), nil
}

// at returns the address of the document of the Pod with that IP address.
func (s *service) at(ip string) *url.URL {
	port := s.address.Port()
	switch {
	case port != "":
	case s.address.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	address := *s.address
	address.Host = net.JoinHostPort(ip, port)
	return &address
}

// combine makes one value of several, at least one.
func (s *service) combine(values []float64) float64 {
	total := 0.0
	for _, value := range values {
		total += value
	}
	switch s.aggregate {
	case sum:
		return total
	case highest:
		return slices.Max(values)
	case lowest:
		return slices.Min(values)
	default:
		return total / float64(len(values))
	}
}
