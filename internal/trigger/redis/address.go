package redis

import (
	"net"
	"strconv"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// defaultPorts are the ports that Redis and its sentinels listen on unless told otherwise.
var defaultPorts = map[topology]string{
	singleTopology: "6379", clusterTopology: "6379", sentinelTopology: "26379",
}

// addresses returns where the server may be reached, in the order in which to try: what address says, then hosts with
// their ports. None and no error means that nothing was said. As in KEDA, a port without a host says nothing.
func (f family) addresses(values trigger.Values) ([]string, *trigger.ParamError) {
	var found []string
	for _, text := range values.List(paramAddress) {
		address, problem := parseAddress(text, defaultPorts[f.topology])
		if problem == "" && f.topology != singleTopology && strings.HasPrefix(address, "/") {
			problem = "is the path of a unix socket; give host:port"
		}
		if problem != "" {
			return nil, paramError(values, paramAddress, text, problem)
		}
		found = append(found, address)
	}
	hosts, ports := values.List(paramHost), values.List(paramPort)
	if len(hosts) == 0 || !values.Known(paramPort) {
		return found, nil
	}
	if len(ports) > 0 && len(ports) != len(hosts) {
		return nil, paramError(values, paramPort, values.String(paramPort),
			"must give one port for each host; host gives "+strconv.Itoa(len(hosts))+" and port "+strconv.Itoa(len(ports)))
	}
	for i, host := range hosts {
		port := defaultPorts[f.topology]
		if len(ports) > 0 {
			port = ports[i]
		}
		if !validPort(port) {
			return nil, paramError(values, paramPort, port, "is not a port; give a number from 1 to 65535")
		}
		// A host that names a port itself is a common slip; without a port of its own, it is clear what is meant.
		address, problem := net.JoinHostPort(strings.Trim(host, "[]"), port), ""
		if len(ports) == 0 {
			address, problem = parseAddress(host, defaultPorts[f.topology])
		} else if !validHost(strings.Trim(host, "[]")) {
			problem = "is not a host; give a name or an address without a port"
		}
		if problem != "" {
			return nil, paramError(values, paramHost, host, problem)
		}
		found = append(found, address)
	}
	return found, nil
}

// paramError names the value only where it stands in the manifest and holds no credentials.
func paramError(values trigger.Values, name, text, problem string) *trigger.ParamError {
	finding := &trigger.ParamError{Key: values.Key(name), Message: problem}
	if values.Source(name) == trigger.FromMetadata && !strings.Contains(text, "@") {
		finding.Value = text
	}
	return finding
}

// parseAddress returns host:port of a server, with the default port where none is written, or the path of a unix
// socket.
func parseAddress(text, defaultPort string) (address, problem string) {
	if strings.HasPrefix(text, "/") {
		return text, ""
	}
	if strings.Contains(text, "://") {
		return "", "is a URL; give host:port, and user and password as parameters of their own"
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		// No port: a name, an IPv4 address, or an IPv6 address with or without brackets.
		host, port = text, defaultPort
		if inner, bracketed := strings.CutPrefix(text, "["); bracketed && strings.HasSuffix(inner, "]") {
			host = strings.TrimSuffix(inner, "]")
		}
	}
	switch {
	case !validHost(host):
		return "", "is not an address; give host:port, for example redis.example:6379"
	case !validPort(port):
		return "", "does not end in a port; give host:port with a port from 1 to 65535"
	}
	return net.JoinHostPort(host, port), ""
}

// validHost tells whether the text may be a host name or an IP address; the resolver has the last word.
func validHost(host string) bool {
	if strings.Contains(host, ":") && net.ParseIP(strings.SplitN(host, "%", 2)[0]) == nil {
		return false
	}
	return host != "" && !strings.ContainsAny(host, "/@[] \t\r\n\x00\"'\\,")
}

func validPort(port string) bool {
	number, err := strconv.ParseUint(port, 10, 16)
	return err == nil && number > 0
}

// sameAddress tells whether two addresses are the same server, as far as can be told without a resolver: localhost is
// the IPv4 loopback address, on which the embedded Redis listens.
func sameAddress(a, b string) bool {
	return normalLoopback(a) == normalLoopback(b)
}

func normalLoopback(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err == nil && strings.EqualFold(host, "localhost") {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}
