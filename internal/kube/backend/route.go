package backend

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/offboard-dev/offboard/internal/control"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// The parameters by which triggers of Redis name their server, and the port when they name none. They are KEDA's.
const (
	redisType       = "redis"
	clusterType     = "redis-cluster"
	sentinelType    = "redis-sentinel"
	redisPort       = "6379"
	paramAddress    = "address"
	paramHost       = "host"
	paramPort       = "port"
	paramDatabase   = "databaseIndex"
	paramMaster     = "sentinelMaster"
	paramTLS        = "tls"
	paramEnableTLS  = "enableTLS"
	paramUnsafeSSL  = "unsafeSsl"
	lookUpTimeout   = 3 * time.Second
	envSuffix       = "FromEnv"
	pluralSuffix    = "s"
	serviceDomain   = "svc"
	tlsOn           = "enable"
	loopbackAddress = "127.0.0.1"
)

// resolver tells whether this machine knows the address of a host.
type resolver func(ctx context.Context, host string) bool

func lookUp(with *net.Resolver) resolver {
	return func(ctx context.Context, host string) bool {
		ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
		defer cancel()
		addresses, err := with.LookupHost(ctx, host)
		return err == nil && len(addresses) > 0
	}
}

// routed returns the type with servers that only the cluster reaches made reachable from here, which is not possible
// where servers name others: the nodes of a Redis Cluster, and what sentinels name. server is set to what tells the
// server of the last trigger from others.
func (b *Backend) routed(t trigger.Type, namespace string, server *string) trigger.Type {
	inner := t
	switch t.Name {
	case redisType:
	case clusterType, sentinelType:
		t.Build = func(ctx context.Context, config trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			*server = fmt.Sprint(inner.Name, qualified(serversOf(values), namespace), values.String(paramMaster),
				values.Int(paramDatabase))
			return inner.Build(ctx, config, values)
		}
		return t
	default:
		// Only the type knows its servers: the queues of two ScaledJobs may be on different ones.
		t.Build = func(ctx context.Context, config trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			*server = fmt.Sprint(inner.Name, config.Namespace, "/", config.Name)
			return inner.Build(ctx, config, values)
		}
		return t
	}
	t.Build = func(ctx context.Context, config trigger.Config, values trigger.Values) (trigger.Trigger, error) {
		servers := serversOf(values)
		*server = fmt.Sprint(qualified(servers, namespace), values.Int(paramDatabase))
		reached := make([]string, len(servers))
		forwarded := false
		for i, address := range servers {
			var err error
			var through bool
			if reached[i], through, err = b.reach(ctx, namespace, address); err != nil {
				return nil, err
			}
			forwarded = forwarded || through
		}
		if strings.Join(reached, ",") == strings.Join(servers, ",") {
			return inner.New(ctx, config)
		}
		if tls := values.Bool(paramEnableTLS) || values.String(paramTLS) == tlsOn; forwarded && tls &&
			!values.Bool(paramUnsafeSSL) {
			return nil, fmt.Errorf("redis at %s is reached through a port-forward, by which its TLS certificate cannot be "+
				"checked; push from a Pod of the cluster", strings.Join(servers, ","))
		}
		return inner.New(ctx, withAddress(config, strings.Join(reached, ",")))
	}
	return t
}

// qualified returns addresses of which a Service's short name means the same in every namespace.
func qualified(servers []string, namespace string) []string {
	all := make([]string, len(servers))
	for i, address := range servers {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			host, port = address, redisPort
		}
		all[i] = address
		if _, _, ok := serviceOf(host, namespace); ok && !strings.Contains(host, ".") {
			all[i] = net.JoinHostPort(host+"."+namespace, port)
		}
	}
	return all
}

// serversOf returns the addresses in the order in which the trigger tries them.
func serversOf(values trigger.Values) []string {
	servers := values.List(paramAddress)
	ports := values.List(paramPort)
	for i, host := range values.List(paramHost) {
		if i < len(ports) {
			host = net.JoinHostPort(strings.Trim(host, "[]"), ports[i])
		}
		servers = append(servers, host)
	}
	return servers
}

// withAddress returns the configuration with another address, and without all that said so before.
func withAddress(config trigger.Config, address string) trigger.Config {
	config.Metadata, config.Auth = maps.Clone(config.Metadata), maps.Clone(config.Auth)
	for _, name := range []string{paramAddress, paramHost, paramPort} {
		for _, key := range []string{name, name + pluralSuffix} {
			delete(config.Metadata, key)
			delete(config.Metadata, key+envSuffix)
			delete(config.Auth, key)
		}
	}
	config.Metadata[paramAddress] = address
	return config
}

// reach returns by which address this machine reaches a server of the namespace's Pods, and whether through a
// port-forward. What is not a Service's name, and what this machine resolves, is reached as it is.
func (b *Backend) reach(ctx context.Context, namespace, address string) (reached string, forwarded bool, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = address, redisPort
	}
	service, serviceNamespace, ok := serviceOf(host, namespace)
	if !ok {
		return address, false, nil
	}
	name := host
	if !strings.Contains(host, ".") {
		// On this machine the short name may mean another server, or in a Pod, that of the Pod's own namespace.
		name = service + "." + serviceNamespace + "." + serviceDomain
	}
	if b.resolves(ctx, name) {
		return net.JoinHostPort(name, port), false, nil
	}
	target, err := b.serviceTarget(ctx, serviceNamespace, service, port)
	if err != nil {
		return "", false, fmt.Errorf("reach Service %s/%s from this machine: %w", serviceNamespace, service, b.explain(err))
	}
	switch {
	case target == nil:
		return address, false, nil // there is no such Service: whoever connects says what is wrong with the name
	case target.external != "":
		return net.JoinHostPort(target.external, port), false, nil
	}
	through, err := b.forward(ctx, target)
	if err != nil {
		return "", false, control.Errorf(control.Unavailable, "reach Service %s/%s through a port-forward to Pod %s: %w",
			serviceNamespace, service, target.pod, b.explain(err))
	}
	return net.JoinHostPort(loopbackAddress, through), true, nil
}

// serviceOf returns which Service a host may name, as Pods of the namespace resolve it: SERVICE, SERVICE.NAMESPACE,
// SERVICE.NAMESPACE.svc, or that with the cluster's domain.
func serviceOf(host, namespace string) (service, serviceNamespace string, ok bool) {
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || host == "" || strings.Contains(host, "/") ||
		strings.EqualFold(host, "localhost") {
		return "", "", false
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	switch {
	case len(labels) == 1:
		return labels[0], namespace, true
	case len(labels) == 2, labels[2] == serviceDomain:
		return labels[0], labels[1], true
	}
	return "", "", false
}
