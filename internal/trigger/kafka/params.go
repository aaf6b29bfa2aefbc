package kafka

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// The trigger types in manifests.
const (
	kafkaType  = "kafka"
	apacheType = "apache-kafka"
)

// Parameter names.
const (
	paramServers       = "bootstrapServers"
	paramGroup         = "consumerGroup"
	paramTopic         = "topic"
	paramPartitions    = "partitionLimitation"
	paramLagThreshold  = "lagThreshold"
	paramActivation    = "activationLagThreshold"
	paramReset         = "offsetResetPolicy"
	paramIdle          = "allowIdleConsumers"
	paramPersistent    = "excludePersistentLag"
	paramInvalid       = "scaleToZeroOnInvalidOffset"
	paramLimit         = "limitToPartitionsWithLag"
	paramEven          = "ensureEvenDistributionOfPartitions"
	paramFullMetadata  = "fullMetadata"
	paramVersion       = "version"
	paramTLS           = "tls"
	paramUnsafeSSL     = "unsafeSsl"
	paramSASL          = "sasl"
	paramUsername      = "username"
	paramPassword      = "password"
	paramTokenProvider = "saslTokenProvider"
	paramScopes        = "scopes"
	paramTokenURI      = "oauthTokenEndpointUri"
	paramExtensions    = "oauthExtensions"
	paramAWSRegion     = "awsRegion"
)

// Values of parameters.
const (
	resetEarliest = "earliest"
	resetLatest   = "latest"
	tlsEnable     = "enable"
	tlsDisable    = "disable"
	saslNone      = "none"
	saslPlain     = "plaintext"
	saslSCRAM256  = "scram_sha256"
	saslSCRAM512  = "scram_sha512"
	saslOAuth     = "oauthbearer"
	saslGSSAPI    = "gssapi"
	saslAWS       = "aws_msk_iam"
	tokenBearer   = "bearer"
)

// versionForm is how versions of Kafka are written: 0.10.2.0 or 1.0.0.
var versionForm = regexp.MustCompile(`^(0\.\d+\.\d+\.\d+|[1-9]\d*\.\d+\.\d+)$`)

// Params declares the parameters of a type in the order of KEDA's schema; sources and their order are those of KEDA's
// pkg/scalers/kafka_scaler.go and apache_kafka_scaler.go.
func params(name string) []trigger.Param {
	metadataOnly := []trigger.Source{trigger.FromMetadata}
	authOnly := []trigger.Source{trigger.FromAuth}
	metadataAndEnv := []trigger.Source{trigger.FromMetadata, trigger.FromEnv}
	metadataAndAuth := []trigger.Source{trigger.FromMetadata, trigger.FromAuth}
	zero, one := int64(0), int64(1)
	flag := func(name, doc string) trigger.Param {
		return trigger.Param{Name: name, Kind: trigger.Bool, Default: "false", Sources: metadataOnly, Doc: doc}
	}
	secret := func(name, doc string) trigger.Param {
		return trigger.Param{Name: name, Kind: trigger.String, Optional: true, Secret: true, Sources: authOnly, Doc: doc}
	}
	text := func(name, doc string) trigger.Param {
		return trigger.Param{Name: name, Kind: trigger.String, Optional: true, Sources: authOnly, Doc: doc}
	}
	const krb = " SASL mechanism gssapi, which is not supported."
	list := []trigger.Param{
		{
			Name: paramServers, Kind: trigger.List, Sources: metadataAndEnv,
			Doc: "Brokers as host:port, separated by commas, from which the others are learned.",
		},
		{
			Name: paramGroup, Kind: trigger.String, Sources: metadataAndEnv,
			Doc: "The consumer group that the Jobs are in.",
		},
		{
			Name: paramTopic, Kind: trigger.String, Optional: true, Sources: metadataAndEnv,
			Doc: "The topic; all topics of which the group has committed an offset unless given.",
		},
		{
			Name: paramPartitions, Kind: trigger.Numbers, Optional: true, Sources: metadataOnly,
			Doc: "The partitions that count; all unless given. It has no effect without topic.",
		},
		{
			Name: paramLagThreshold, Kind: trigger.Int, Default: "10", Min: &one, Sources: metadataOnly,
			Doc: "How many messages one Job takes.",
		},
		{
			Name: paramActivation, Kind: trigger.Int, Default: "0", Min: &zero, Sources: metadataOnly,
			Doc: "The number of messages above which the trigger is active.",
		},
		{
			Name: paramReset, Kind: trigger.String, Default: resetLatest, Allowed: []string{resetLatest, resetEarliest},
			Sources: metadataOnly,
			Doc: "Where a consumer begins in a partition of which the group has committed no offset: with earliest all " +
				"messages wait, with latest one, so that there is a consumer.",
		},
		flag(paramIdle, "Whether there may be more Jobs than partitions."),
		flag(paramPersistent, "Whether partitions do not count whose committed offset has not moved since the last poll: "+
			"the message there may be one that nobody can process."),
		flag(paramInvalid, "Whether no message waits in a partition of which the group has committed no offset."),
		flag(paramLimit, "Whether there may be no more Jobs than partitions in which messages wait. It needs topic."),
		flag(paramEven, "Whether the number of Jobs is to be a factor of that of the partitions. It needs topic."),
	}
	tls := []trigger.Param{
		{
			Name: paramTLS, Kind: trigger.String, Default: tlsDisable, Allowed: []string{tlsEnable, tlsDisable},
			Sources: metadataAndAuth, Doc: "Whether to connect with TLS.",
		},
		flag(paramUnsafeSSL, "Whether to accept any certificate of a broker."),
		network.CAParam(),
	}
	tls = append(tls, network.CertParams()...)
	login := []trigger.Param{
		{
			Name: paramSASL, Kind: trigger.String, Optional: true, Sources: metadataAndAuth,
			Allowed: []string{saslNone, saslPlain, saslSCRAM256, saslSCRAM512, saslOAuth, saslGSSAPI},
			Doc:     "How to log in; none unless given. Kerberos (gssapi) is not supported.",
		},
		text(paramUsername, "The user, or with oauthbearer the client's id."),
		secret(paramPassword, "The password of the user, or with oauthbearer the client's secret."),
	}
	region := trigger.Param{
		Name: paramAWSRegion, Kind: trigger.String, Optional: true, Sources: metadataOnly,
		Doc: "The region of an AWS MSK cluster, whose way to log in is not supported.",
	}
	if name == apacheType {
		for i := range list {
			switch list[i].Name {
			case paramServers:
				list[i].Doc = "Brokers as host:port, separated by commas, from which the others are learned; " +
					"port 9092 unless given."
			case paramTopic:
				list[i].Kind = trigger.List
				list[i].Doc = "The topics, separated by commas; all of which the group has committed an offset unless given."
			case paramReset:
				list[i].Allowed = []string{resetEarliest, resetLatest}
			}
			if list[i].Kind == trigger.Bool {
				list[i].Default, list[i].Optional = "", true
				list[i].Doc = strings.Replace(list[i].Doc, ".", "; false unless given.", 1)
			}
		}
		login[0].Optional, login[0].Default = false, saslNone
		login[0].Allowed = []string{saslNone, saslPlain, saslSCRAM256, saslSCRAM512, saslGSSAPI, saslAWS}
		login[0].Doc = "How to log in. Kerberos (gssapi) and AWS (aws_msk_iam) are not supported."
		login[1].Doc, login[2].Doc = "The user.", "The password of the user."
		tls = slices.DeleteFunc(tls, func(p trigger.Param) bool { return p.Name == paramUnsafeSSL })
		return slices.Concat(list, login, []trigger.Param{region}, tls)
	}
	return slices.Concat(list, []trigger.Param{
		{
			Name: paramFullMetadata, Kind: trigger.Bool, Default: "true", Sources: metadataOnly,
			Doc: "Whether topic may be left out. What is asked of the brokers concerns the topics that count only, " +
				"whatever it is.",
		},
		{
			Name: paramVersion, Kind: trigger.String, Optional: true, Sources: metadataOnly,
			Doc: "The brokers' version, for example 1.0.0. It has no effect: versions are agreed on with the brokers.",
		},
	}, tls, login, []trigger.Param{
		{
			Name: paramTokenProvider, Kind: trigger.String, Optional: true, Allowed: []string{tokenBearer, saslAWS},
			Sources: metadataAndAuth,
			Doc:     "Where tokens for oauthbearer come from; bearer unless given. AWS (aws_msk_iam) is not supported.",
		},
		text(paramScopes, "The scopes of a token for oauthbearer, separated by commas."),
		text(paramTokenURI, "The URL that gives tokens for oauthbearer, by the client credentials grant of OAuth 2.0."),
		text(paramExtensions, "SASL extensions for oauthbearer (KIP-342) as key=value, separated by commas."),
		secret("keytab", "The keytab for"+krb),
		text("realm", "The realm for"+krb),
		text("kerberosConfig", "The configuration of Kerberos for"+krb),
		text("kerberosServiceName", "The brokers' service name for"+krb),
		{
			Name: "kerberosDisableFAST", Kind: trigger.Bool, Default: "false", Sources: authOnly,
			Doc: "Whether to do without FAST with" + krb,
		},
		region,
	})
}

// check returns what finds contradictions among the parameters of a type, by KEDA's rules.
func check(name string) func(values trigger.Values) []trigger.ParamError {
	return func(values trigger.Values) []trigger.ParamError {
		var findings []trigger.ParamError
		fail := func(name, message string) {
			findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message})
		}
		for _, server := range servers(name, values) {
			if problem := serverProblem(server); problem != "" {
				fail(paramServers, problem)
			}
		}
		if values.Known(paramTopic) && !values.Has(paramTopic) {
			needing := []string{paramLimit}
			if name == kafkaType {
				needing = append(needing, paramEven)
				if !values.Bool(paramFullMetadata) {
					fail(paramFullMetadata, "needs topic when it is false; give topic")
				}
			}
			for _, needs := range needing {
				if values.Bool(needs) {
					fail(needs, "needs topic; give topic")
				}
			}
		}
		if values.Bool(paramIdle) && values.Bool(paramLimit) {
			fail(paramIdle, "contradicts limitToPartitionsWithLag; give only one of them")
		}
		if name == kafkaType && values.Bool(paramEven) && values.Bool(paramLimit) {
			fail(paramEven, "contradicts limitToPartitionsWithLag; give only one of them")
		}
		if name == kafkaType && values.Has(paramVersion) && !versionForm.MatchString(values.String(paramVersion)) {
			fail(paramVersion, "is not a version of Kafka; give one such as 1.0.0 or 0.10.2.0")
		}
		if values.String(paramTLS) == tlsEnable && values.Known(network.ParamCert) && values.Known(network.ParamKey) &&
			values.Has(network.ParamCert) != values.Has(network.ParamKey) {
			fail(network.ParamCert, "and key must be given together; one of them is missing")
		}
		if values.Known(paramSASL) {
			findings = append(findings, checkLogin(name, values)...)
		}
		return findings
	}
}

// checkLogin finds what is missing to log in.
func checkLogin(name string, values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	fail := func(name, message string) {
		findings = append(findings, trigger.ParamError{Key: values.Key(name), Message: message})
	}
	need := func(names ...string) {
		for _, name := range names {
			if values.Known(name) && !values.Has(name) {
				fail(name, fmt.Sprintf("is required with sasl %s; give %s in a TriggerAuthentication",
					values.String(paramSASL), name))
			}
		}
	}
	switch values.String(paramSASL) {
	case saslPlain, saslSCRAM256, saslSCRAM512:
		need(paramUsername, paramPassword)
	case saslGSSAPI:
		fail(paramSASL, "is gssapi, but Kerberos is not supported; give plaintext, scram_sha256 or scram_sha512")
	case saslAWS:
		fail(paramSASL, "is aws_msk_iam, which is not supported; give scram_sha512, which AWS MSK has too")
	case saslOAuth:
		if values.String(paramTokenProvider) == saslAWS {
			fail(paramTokenProvider, "is aws_msk_iam, which is not supported; give sasl scram_sha512, which AWS MSK has too")
			return findings
		}
		need(paramUsername, paramPassword, paramTokenURI)
		if uri := values.String(paramTokenURI); uri != "" {
			if parsed, err := url.Parse(uri); err != nil || parsed.Hostname() == "" ||
				parsed.Scheme != "https" && parsed.Scheme != "http" {
				fail(paramTokenURI, "is not a URL; give https://…")
			}
		}
		if _, valid := extensions(values.String(paramExtensions)); !valid {
			fail(paramExtensions, "is not a list of key=value, separated by commas")
		}
	}
	if name == kafkaType && values.String(paramSASL) != saslOAuth && values.Has(paramTokenURI) {
		findings = append(findings, trigger.ParamError{
			Key: paramTokenURI, Message: "has no effect without sasl oauthbearer", Warning: true,
		})
	}
	return findings
}

// defaultPort is that of brokers which are given without one.
const defaultPort = "9092"

// servers returns the addresses of the brokers. As in KEDA, it is apache-kafka that has a port for those without one.
func servers(name string, values trigger.Values) []string {
	found := slices.Clone(values.List(paramServers))
	for i, server := range found {
		if name == apacheType && (!strings.Contains(server, ":") || net.ParseIP(server) != nil) {
			found[i] = net.JoinHostPort(server, defaultPort)
		}
	}
	return found
}

// serverProblem says what is wrong with a broker's address; "" when nothing is.
func serverProblem(server string) string {
	host, port, err := net.SplitHostPort(server)
	number, wrong := strconv.ParseUint(port, 10, 16)
	if err != nil || host == "" || wrong != nil || number == 0 || strings.ContainsAny(host, "/@ ") {
		return "holds what is not a broker's address; give host:port, for example kafka.example:9092"
	}
	return ""
}

// extensions returns the SASL extensions of a list of key=value.
func extensions(text string) (found map[string]string, valid bool) {
	if text == "" {
		return nil, true
	}
	found = map[string]string{}
	for element := range strings.SplitSeq(text, ",") {
		key, value, pair := strings.Cut(element, "=")
		if !pair || key == "" || strings.Contains(value, "=") {
			return nil, false
		}
		found[strings.TrimSpace(key)] = value
	}
	return found, true
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{
		Target: float64(values.Int(paramLagThreshold)), Activation: float64(values.Int(paramActivation)),
	}
}

// metricName is KEDA's name for the trigger's value, which is the same for both types.
func metricName(values trigger.Values) string {
	if topics := values.List(paramTopic); len(topics) > 0 {
		return fmt.Sprintf("%s-%s", kafkaType, strings.Join(topics, ","))
	}
	return fmt.Sprintf("%s-%s-topics", kafkaType, values.String(paramGroup))
}
