package redis

import (
	"strconv"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Parameter names that are used in more than one place.
const (
	paramAddress          = "address"
	paramHost             = "host"
	paramPort             = "port"
	paramUsername         = "username"
	paramPassword         = "password"
	paramSentinelUsername = "sentinelUsername"
	paramSentinelPassword = "sentinelPassword"
	paramSentinelMaster   = "sentinelMaster"
	paramListName         = "listName"
	paramListLength       = "listLength"
	paramListActivation   = "activationListLength"
	paramStream           = "stream"
	paramGroup            = "consumerGroup"
	paramPending          = "pendingEntriesCount"
	paramStreamLength     = "streamLength"
	paramLag              = "lagCount"
	paramStreamActivation = "activationLagCount"
	paramItemField        = "itemField"
	paramDatabaseIndex    = "databaseIndex"
	paramEnableTLS        = "enableTLS"
	paramTLS              = "tls"
	paramUnsafeSSL        = "unsafeSsl"
	paramCA               = "ca"
	paramCert             = "Cert"
	paramKey              = "key"
	paramKeyPassword      = "keyPassword"
)

// tlsEnable is the value of parameter tls that turns TLS on; tlsDisable leaves it off.
const (
	tlsEnable  = "enable"
	tlsDisable = "disable"
)

// connectionGroup holds the parameters of which none is required by itself: the embedded Redis needs none.
const connectionGroup = "connection"

// The sources of a parameter, in the order in which KEDA's pkg/scalers/redis_scaler.go looks for it.
var (
	metadataOnly  = []trigger.Source{trigger.FromMetadata}
	authOnly      = []trigger.Source{trigger.FromAuth}
	envBeforeAuth = []trigger.Source{trigger.FromMetadata, trigger.FromEnv, trigger.FromAuth}
	authBeforeEnv = []trigger.Source{trigger.FromMetadata, trigger.FromAuth, trigger.FromEnv}
)

// Bounds of numbers.
var zero, one = new(int64), func() *int64 { one := int64(1); return &one }()

// listParams declares what the types for lists have of their own.
func listParams() []trigger.Param {
	return []trigger.Param{
		{
			Name: paramListLength, Kind: trigger.Int, Default: "5", Min: one, Sources: metadataOnly,
			Doc: "How many items one Job takes; the target for the length of the list.",
		},
		{
			Name: paramListActivation, Kind: trigger.Int, Optional: true, Sources: metadataOnly,
			Doc: "The length above which the trigger is active; 0 unless given.",
		},
		{
			Name: paramListName, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The key of the list; a set, a sorted set or a hash is measured by its size as well.",
		},
	}
}

// streamParams declares what the types for streams have of their own.
func streamParams() []trigger.Param {
	return []trigger.Param{
		{
			Name: paramPending, Kind: trigger.Int, Default: "5", Sources: metadataOnly,
			Doc: "How many entries one Job takes; the target for the number of entries that the consumer group has read and " +
				"not acknowledged (XPENDING). Used with consumerGroup and without lagCount, where it is at least 1. What groups " +
				"do is noticed at the next poll only. With delivery by claim what can be claimed is measured instead: entries " +
				"that the group has not read, and those that are ready again.",
		},
		{
			Name: paramStreamLength, Kind: trigger.Int, Default: "5", Sources: metadataOnly,
			Doc: "How many entries one Job takes; the target for the length of the stream (XLEN). Used without consumerGroup, " +
				"where it is at least 1.",
		},
		{
			Name: paramLag, Kind: trigger.Int, Optional: true, Sources: metadataOnly,
			Doc: "How many entries one Job takes; the target for the number of entries that the consumer group has not read " +
				"yet (the lag of XINFO GROUPS, Redis 7 and later). Used with consumerGroup; 0 is as if it were not given. A " +
				"stream that does not exist has none; while the group does not exist all entries count. Where the server does " +
				"not know the number, they are counted, up to 100. With delivery by claim it is the target for what can be " +
				"claimed, as pendingEntriesCount is, and Redis 6.2 is enough.",
		},
		{
			Name: paramStream, Kind: trigger.String, Sources: metadataOnly,
			Doc: "The key of the stream.",
		},
		{
			Name: paramGroup, Kind: trigger.String, Optional: true, Sources: metadataOnly,
			Doc: "The consumer group of which pending or unread entries are measured; without it the length of the stream is. " +
				"Delivery by claim needs it, reads as its consumer offboard, and makes a group that does not exist from the " +
				"first entry on.",
		},
		{
			Name: paramStreamActivation, Kind: trigger.Int, Default: "0", Sources: metadataOnly,
			Doc: "The number, of whichever entries are measured, above which the trigger is active.",
		},
		{
			Name: paramItemField, Kind: trigger.String, Optional: true, Extension: true, Sources: metadataOnly,
			Doc: "The field of an entry whose value is the item, with delivery by claim and where items are pushed. An entry " +
				"without it, or any unless it is given, is the value of its only field, or a JSON object of its fields; what " +
				"is pushed then has the field item. KEDA does not have this parameter.",
		},
	}
}

// connectionParams declares what all types have.
func (f family) connectionParams() []trigger.Param {
	database := "The number of the database; 0 unless given."
	servers := "The server as host:port (port 6379 unless given) or as the path of a unix socket; of several, " +
		"separated by commas, the first that answers is used."
	host := "The server's host; of several, separated by commas, the first that answers is used."
	port := "The server's port, one for each host; 6379 unless given."
	switch f.topology {
	case clusterTopology:
		database = "Of no use: a Redis Cluster has database 0 only."
		servers = "Nodes of the cluster as host:port (port 6379 unless given), separated by commas; the others are learnt " +
			"from the first that answers."
		host = "Hosts of nodes of the cluster, separated by commas, in place of addresses."
		port = "The ports of the nodes, one for each host; 6379 unless given."
	case sentinelTopology:
		servers = "The sentinels as host:port (port 26379 unless given), separated by commas; the first that answers says " +
			"where the master is."
		host = "The hosts of the sentinels, separated by commas, in place of addresses."
		port = "The ports of the sentinels, one for each host; 26379 unless given."
	}
	sentinel := func(text string) string {
		if f.topology != sentinelTopology {
			text += "; of use to the trigger types redis-sentinel and redis-sentinel-streams only"
		}
		return text + "."
	}
	single := []trigger.Param{
		{
			Name: paramDatabaseIndex, Kind: trigger.Int, Optional: true, Min: zero, Sources: metadataOnly,
			Doc: database,
		},
		{
			Name: paramEnableTLS, Kind: trigger.Bool, Optional: true, Sources: metadataOnly,
			Doc: "Whether to connect with TLS, to sentinels as well; false unless given.",
		},
		{
			Name: paramTLS, Kind: trigger.String, Optional: true, Allowed: []string{tlsEnable, tlsDisable}, Sources: authOnly,
			Doc: "Whether to connect with TLS, as enableTLS, of which only one may be given.",
		},
	}
	connection := []trigger.Param{
		{
			Name: paramAddress, Aliases: []string{"addresses"}, Kind: trigger.List, Sources: authBeforeEnv,
			Doc: servers,
		},
		{
			Name: paramUsername, Kind: trigger.String, Sources: envBeforeAuth,
			Doc: "The ACL user; the default user unless given. Used together with a password only.",
		},
		{
			Name: paramPassword, Kind: trigger.String, Secret: true, Sources: envBeforeAuth,
			Doc: "The password of the user.",
		},
		{
			Name: paramSentinelUsername, Kind: trigger.String, Sources: authBeforeEnv,
			Doc: sentinel("The ACL user at the sentinels, used together with a password only"),
		},
		{
			Name: paramSentinelPassword, Kind: trigger.String, Secret: true, Sources: authBeforeEnv,
			Doc: sentinel("The password at the sentinels"),
		},
		{
			Name: paramSentinelMaster, Kind: trigger.String, Sources: authBeforeEnv,
			Doc: sentinel("The name by which the sentinels know the master"),
		},
		{
			Name: paramHost, Aliases: []string{"hosts"}, Kind: trigger.List, Sources: envBeforeAuth,
			Doc: host,
		},
		{
			Name: paramPort, Aliases: []string{"ports"}, Kind: trigger.List, Sources: envBeforeAuth,
			Doc: port,
		},
		{
			Name: paramUnsafeSSL, Kind: trigger.Bool, Default: "false", Sources: metadataOnly,
			Doc: "Whether to accept any certificate of the server.",
		},
		{
			Name: paramCert, Aliases: []string{"cert"}, Kind: trigger.String, Sources: authOnly,
			Doc: "The client's certificate, PEM.",
		},
		{
			Name: paramKey, Kind: trigger.String, Secret: true, Sources: authOnly,
			Doc: "The client certificate's private key, PEM.",
		},
		{
			Name: paramKeyPassword, Kind: trigger.String, Secret: true, Sources: authOnly,
			Doc: "The password that the private key is encrypted with.",
		},
		{
			Name: paramCA, Kind: trigger.String, Sources: authOnly,
			Doc: "Certificates, PEM, of authorities that are trusted besides the system's.",
		},
	}
	for i := range connection {
		connection[i].Group = connectionGroup
	}
	return append(single, connection...)
}

// findings collects what is wrong.
type findings struct {
	values trigger.Values
	all    []trigger.ParamError
}

func (f *findings) fail(name, message string) {
	f.all = append(f.all, trigger.ParamError{Key: f.values.Key(name), Message: message})
}

func (f *findings) warn(name, message string) {
	f.all = append(f.all, trigger.ParamError{Key: f.values.Key(name), Message: message, Warning: true})
}

// lacks tells whether it is certain that none of the parameters is given.
func (f *findings) lacks(names ...string) bool {
	for _, name := range names {
		if !f.values.Known(name) || f.values.Has(name) {
			return false
		}
	}
	return true
}

// check finds what contradicts among the parameters. Where KEDA tolerates it, it is a warning.
func (f family) check(values trigger.Values) []trigger.ParamError {
	found := &findings{values: values}
	if _, err := f.addresses(values); err != nil {
		found.all = append(found.all, *err)
	}
	f.checkServer(found)
	checkConnection(found)
	if f.stream {
		checkStream(found)
	}
	return found.all
}

// checkServer looks at where the server is.
func (f family) checkServer(found *findings) {
	values := found.values
	if found.lacks(paramAddress, paramHost) {
		switch {
		case f.topology != singleTopology:
			found.all = append(found.all, errNoAddress)
		case values.Has(paramPort):
			found.warn(paramAddress, "is not given, nor is host, and port has no effect without; "+
				"only the embedded Redis of `offboard up` can be used")
		default:
			found.warn(paramAddress, "is not given, nor is host, so that only the embedded Redis of `offboard up` can be used")
		}
	}
	if f.topology == clusterTopology && values.Int(paramDatabaseIndex) != 0 {
		found.warn(paramDatabaseIndex, "has no effect: a Redis Cluster has database 0 only; leave it out")
	}
	if f.topology != sentinelTopology {
		for _, name := range []string{paramSentinelUsername, paramSentinelPassword, paramSentinelMaster} {
			if values.Has(name) {
				found.warn(name, "has no effect on trigger type "+f.name+"; use type "+f.beside(sentinelTopology))
			}
		}
		return
	}
	if found.lacks(paramSentinelMaster) {
		found.all = append(found.all, errNoMaster)
	}
	if values.Has(paramSentinelUsername) && found.lacks(paramSentinelPassword) {
		found.warn(paramSentinelUsername, "has no effect without sentinelPassword; give sentinelPasswordFromEnv or a "+
			"TriggerAuthentication")
	}
}

// beside returns the name of the type for the same at servers of another topology.
func (f family) beside(other topology) string {
	name := "redis-" + string(other)
	if f.stream {
		name += "-streams"
	}
	return name
}

// checkStream looks at which of the targets count.
func checkStream(found *findings) {
	values := found.values
	idle := func(name, why string) {
		if values.Has(name) {
			found.warn(name, "has no effect "+why)
		}
	}
	chosen := factorOf(values)
	checkTarget(found, targetOf(chosen))
	switch chosen {
	case byLength:
		idle(paramPending, "without consumerGroup; the length of the stream is measured")
		idle(paramLag, "without consumerGroup; the length of the stream is measured")
	case byPending:
		idle(paramStreamLength, "with consumerGroup; the entries that are pending are measured")
	case byLag:
		idle(paramStreamLength, "with consumerGroup; the entries that are not read yet are measured")
		idle(paramPending, "with lagCount; the entries that are not read yet are measured")
	}
}

// checkTarget refuses a target that no number of Jobs meets. The others have no effect, whatever they are, as in KEDA.
func checkTarget(found *findings, name string) {
	text := found.values.String(name)
	if number, err := strconv.ParseInt(text, 10, 64); err == nil && number < 1 {
		found.all = append(found.all, trigger.ParamError{
			Key: found.values.Key(name), Value: text, Message: "is too small; give at least 1",
		})
	}
}

// checkGroup looks for what delivery by claim needs.
func checkGroup(values trigger.Values) []trigger.ParamError {
	found := &findings{values: values}
	if values.String(paramGroup) == "" {
		found.fail(paramGroup, "is required where delivery.mode is claim: the consumer group that reads the stream for the "+
			"Jobs")
	}
	return found.all
}

// checkConnection looks at credentials and TLS.
func checkConnection(found *findings) {
	values := found.values
	if values.Has(paramEnableTLS) && values.Has(paramTLS) {
		found.fail(paramTLS, "is given in the TriggerAuthentication and enableTLS in metadata; give only one of them")
	}
	if values.Has(paramUsername) && found.lacks(paramPassword) {
		found.warn(paramUsername, "has no effect without a password; give passwordFromEnv or a TriggerAuthentication")
	}
	if values.Known(paramCert) && values.Known(paramKey) && values.Has(paramCert) != values.Has(paramKey) {
		found.warn(paramCert, "makes a client certificate together with key only; one of them is missing, so none is "+
			"presented")
	}
	if values.Known(paramTLS) && !enablesTLS(values) {
		if values.Bool(paramUnsafeSSL) {
			found.warn(paramUnsafeSSL, `has no effect without TLS; give enableTLS "true"`)
		}
		if values.Has(paramCA) {
			found.warn(paramCA, `has no effect without TLS; give enableTLS "true" or tls "enable"`)
		}
	}
}

// enablesTLS tells whether the connection is to use TLS.
func enablesTLS(values trigger.Values) bool {
	return values.Bool(paramEnableTLS) || values.String(paramTLS) == tlsEnable
}
