package external

import (
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// Parameter names.
const (
	paramAddress   = "scalerAddress"
	paramEnableTLS = "enableTLS"
	paramUnsafeSSL = "unsafeSsl"
	paramCA        = "caCert"
	paramCert      = "tlsClientCert"
	paramKey       = "tlsClientKey"
)

// exampleCA is the certificate of an authority that nobody has.
const exampleCA = `-----BEGIN CERTIFICATE-----
MIIBOjCB7aADAgECAhQlaCHa9T9xOP6bYRIK+E1/EAnL6TAFBgMrZXAwEjEQMA4G
A1UEAwwHZXhhbXBsZTAgFw0yNjExMjYyMjM2NTFaGA8yMTI2MTEwMjIyMzY1MVow
EjEQMA4GA1UEAwwHZXhhbXBsZTAqMAUGAytlcAMhAA7grD6dpSyVuCkmWqce5pU4
aF5A5NOsO1Uayur5CO9No1MwUTAdBgNVHQ4EFgQUG7mOuhcORKYzCsYs+yym11a5
WscwHwYDVR0jBBgwFoAUG7mOuhcORKYzCsYs+yym11a5WscwDwYDVR0TAQH/BAUw
AwEB/zAFBgMrZXADQQDh62HHZYpxWRZq/kSRtTxmHHE7scp5wbwAJTXu2sQmRuBO
mvy08KPCOE3TbhRu7Ifl/f1OQXEQajb+9jf+fN8A
-----END CERTIFICATE-----
`

// declare returns what both types have in common.
func declare(name string) trigger.Type {
	metadataOnly, authOnly := []trigger.Source{trigger.FromMetadata}, []trigger.Source{trigger.FromAuth}
	return trigger.Type{
		Name: name,
		Params: []trigger.Param{
			{
				Name: paramAddress, Kind: trigger.String, Sources: metadataOnly,
				Doc: "The server as host:port. It is also told all other keys of the metadata, whose meaning is its own; " +
					"of a key that ends in FromEnv it is told the value of the environment variable.",
			},
			{
				Name: paramEnableTLS, Kind: trigger.Bool, Optional: true, Sources: metadataOnly,
				Doc: "Whether to connect with TLS; false unless given. A caCert or a client's certificate turns it on too.",
			},
			{
				Name: paramUnsafeSSL, Kind: trigger.Bool, Optional: true, Sources: metadataOnly,
				Doc: "Whether to accept any certificate of the server; false unless given.",
			},
			{
				Name: paramCA, Kind: trigger.String, Optional: true, Sources: authOnly,
				Doc: "Certificates, PEM, of authorities that are trusted besides the system's.",
			},
			{
				Name: paramCert, Kind: trigger.String, Optional: true, Sources: authOnly,
				Doc: "The client's certificate, PEM.",
			},
			{
				Name: paramKey, Kind: trigger.String, Optional: true, Secret: true, Sources: authOnly,
				Doc: "The private key of the client's certificate, PEM.",
			},
		},
		OtherKeys: true,
		Example: trigger.Example{
			Metadata: map[string]string{paramAddress: "backlog.shop:6000", paramEnableTLS: "true", "queue": "thumbnails"},
			Auth:     map[string]string{paramCA: exampleCA},
		},
		// KEDA's is what the server calls its metric, which is not known before it has been asked.
		MetricName: func(trigger.Values) string { return name },
		Check:      check,
	}
}

// check finds what contradicts among the parameters.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	address := values.String(paramAddress)
	if strings.HasPrefix(address, "http:") || strings.HasPrefix(address, "https:") {
		findings = append(findings, trigger.ParamError{
			Key: paramAddress, Message: "is a URL; give host:port, and enableTLS \"true\" for TLS",
		})
	}
	if values.Known(paramCert) && values.Known(paramKey) && values.Has(paramCert) != values.Has(paramKey) {
		findings = append(findings, trigger.ParamError{Key: paramCert, Warning: true, Message: "makes a client certificate " +
			"together with " + paramKey + " only; one of them is missing, so none is presented"})
	}
	return findings
}

// settings is all that makes one connection differ from another.
type settings struct {
	address string
	secure  bool
	tls     network.TLS
}

func newSettings(values trigger.Values) settings {
	made := settings{address: values.String(paramAddress)}
	ca, cert, key := values.String(paramCA), values.String(paramCert), values.String(paramKey)
	made.secure = values.Bool(paramEnableTLS) || ca != "" || (cert != "" && key != "")
	if made.secure {
		made.tls = network.TLS{Insecure: values.Bool(paramUnsafeSSL), CA: ca, Cert: cert, Key: key}
	}
	return made
}
