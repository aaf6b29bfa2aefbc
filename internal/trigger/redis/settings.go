package redis

import (
	"errors"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// topology says what the servers at the addresses are.
type topology string

// The topologies that a trigger may have, and what their parts are.
const (
	singleTopology   topology = ""
	clusterTopology  topology = "cluster"
	sentinelTopology topology = "sentinel"
	clusterNode      topology = "node of a cluster"
	sentinelItself   topology = "sentinel itself"
)

// settings is all that makes one connection differ from another. Triggers with equal settings share a connection, so it
// must stay comparable and hold nothing that concerns a single list.
type settings struct {
	topology  topology
	addresses string // separated by commas, in the order in which to try
	username  string
	password  string
	database  int64
	withTLS   bool
	tls       network.TLS // empty without TLS
	// sentinelMaster and what follows are empty without sentinels.
	sentinelMaster   string
	sentinelUsername string
	sentinelPassword string
	// polled tells that the server is the one that this process serves, so that asking it often is cheap.
	polled bool
	// scripts tells that the connection is for scripts that hand out items: large answers do not hold up measurements
	// on it, and it is not told of changes.
	scripts bool
}

// newSettings decides where and how to connect.
func newSettings(f family, values trigger.Values, embedded string) (settings, error) {
	servers, finding := f.addresses(values)
	if finding != nil {
		return settings{}, *finding
	}
	made := settings{topology: f.topology, password: values.String(paramPassword)}
	if f.topology != clusterTopology {
		made.database = values.Int(paramDatabaseIndex)
	}
	if len(servers) == 0 && f.topology != singleTopology {
		return settings{}, errNoAddress
	}
	if len(servers) == 0 {
		if embedded == "" {
			return settings{}, trigger.ParamError{Key: paramAddress, Kind: trigger.ErrNoServer,
				Message: "no source gives an address or a host; " +
					"give address, addressFromEnv, host or hostFromEnv, or address or host in a TriggerAuthentication"}
		}
		servers = []string{embedded}
	}
	made.addresses = strings.Join(servers, ",")
	made.polled = f.topology == singleTopology && len(servers) == 1 && embedded != "" && sameAddress(servers[0], embedded)
	if made.password != "" {
		// As in KEDA, a user without a password is not used: such a manifest means the default user.
		made.username = values.String(paramUsername)
	}
	if f.topology == sentinelTopology {
		made.sentinelMaster = values.String(paramSentinelMaster)
		if made.sentinelMaster == "" {
			return settings{}, errNoMaster
		}
		if made.sentinelPassword = values.String(paramSentinelPassword); made.sentinelPassword != "" {
			made.sentinelUsername = values.String(paramSentinelUsername)
		}
	}
	if enablesTLS(values) {
		made.withTLS, made.tls = true, network.TLS{
			Insecure: values.Bool(paramUnsafeSSL), CA: values.String(paramCA),
			Cert: values.String(paramCert), Key: values.String(paramKey), KeyPassword: values.String(paramKeyPassword),
		}
		_, err := made.tls.Config()
		if wrong := (trigger.ParamError{}); errors.As(err, &wrong) && strings.EqualFold(wrong.Key, paramCert) {
			wrong.Key = paramCert // KEDA writes it with a capital letter here, and nowhere else
			return settings{}, wrong
		}
		if err != nil {
			return settings{}, err
		}
	}
	return made, nil
}

// Errors of what is missing. Only where it is known that no source gives it can a static check tell.
var (
	errNoAddress = trigger.ParamError{Key: paramAddress, Message: "is required, or host with port; " +
		"give addresses, hosts and ports, or the same with FromEnv or in a TriggerAuthentication"}
	errNoMaster = trigger.ParamError{Key: paramSentinelMaster, Message: "is required: the name by which the sentinels " +
		"know the master; give it in metadata, as sentinelMasterFromEnv or in a TriggerAuthentication"}
)

// servers returns the addresses in the order in which to try them.
func (s settings) servers() []string { return strings.Split(s.addresses, ",") }

// user returns the name of the ACL user for messages.
func (s settings) user() string {
	if s.username == "" {
		return "default"
	}
	return s.username
}
