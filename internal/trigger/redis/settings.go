package redis

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/youmark/pkcs8"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// settings is all that makes one connection differ from another. Triggers with equal settings share a connection, so it
// must stay comparable and hold nothing that concerns a single list.
type settings struct {
	addresses string // separated by commas, in the order in which to try
	username  string
	password  string
	database  int64
	tls       tlsSettings
	// polled tells that the server is the one that this process serves, so that asking it often is cheap.
	polled bool
}

// tlsSettings is empty without TLS.
type tlsSettings struct {
	enabled     bool
	insecure    bool
	ca          string
	cert        string
	key         string
	keyPassword string
}

// newSettings decides where and how to connect.
func newSettings(values trigger.Values, embedded string) (settings, error) {
	servers, finding := addresses(values)
	if finding != nil {
		return settings{}, *finding
	}
	made := settings{
		password: values.String(paramPassword),
		database: values.Int(paramDatabaseIndex),
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
	made.polled = len(servers) == 1 && embedded != "" && sameAddress(servers[0], embedded)
	if made.password != "" {
		// As in KEDA, a user without a password is not used: such a manifest means the default user.
		made.username = values.String(paramUsername)
	}
	if enablesTLS(values) {
		made.tls = tlsSettings{
			enabled:     true,
			insecure:    values.Bool(paramUnsafeSSL),
			ca:          values.String(paramCA),
			cert:        values.String(paramCert),
			key:         values.String(paramKey),
			keyPassword: values.String(paramKeyPassword),
		}
		if _, err := made.tls.config(); err != nil {
			return settings{}, err
		}
	}
	return made, nil
}

// servers returns the addresses in the order in which to try them.
func (s settings) servers() []string { return strings.Split(s.addresses, ",") }

// user returns the name of the ACL user for messages.
func (s settings) user() string {
	if s.username == "" {
		return "default"
	}
	return s.username
}

// config returns the TLS configuration without a server name; nil without TLS. Its errors hold none of the material.
func (t tlsSettings) config() (*tls.Config, error) {
	if !t.enabled {
		return nil, nil //nolint:nilnil // no TLS is an answer, not a failure
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		//nolint:gosec // the user asks for it by unsafeSsl
		InsecureSkipVerify: t.insecure,
	}
	if t.ca != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool() // a machine without certificates of its own
		}
		if !roots.AppendCertsFromPEM([]byte(t.ca)) {
			return nil, trigger.ParamError{Key: paramCA, Message: "holds no certificate; give PEM blocks of type CERTIFICATE"}
		}
		config.RootCAs = roots
	}
	if t.cert == "" || t.key == "" {
		return config, nil
	}
	key, err := decryptKey([]byte(t.key), t.keyPassword)
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair([]byte(t.cert), key)
	if err != nil {
		return nil, trigger.ParamError{
			Key: paramCert, Message: fmt.Sprintf("does not make a client certificate with key: %v", err),
		}
	}
	config.Certificates = []tls.Certificate{certificate}
	return config, nil
}

// decryptKey returns the private key as unencrypted PEM. It takes PKCS #8 (RFC 5958) and the older encryption of
// RFC 1421, which tools still write. A password for a key that is not encrypted is ignored.
func decryptKey(key []byte, password string) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil {
		return nil, trigger.ParamError{Key: paramKey, Message: "is not PEM; give a block of type PRIVATE KEY"}
	}
	legacy := x509.IsEncryptedPEMBlock(block) //nolint:staticcheck // keys of this form exist and must be read
	if !legacy && block.Type != "ENCRYPTED PRIVATE KEY" {
		return key, nil
	}
	if password == "" {
		return nil, trigger.ParamError{Key: paramKeyPassword, Message: "is required, because key is encrypted"}
	}
	wrong := trigger.ParamError{Key: paramKeyPassword, Message: "does not decrypt key"}
	if legacy {
		der, err := x509.DecryptPEMBlock(block, []byte(password)) //nolint:staticcheck // as above
		if err != nil {
			return nil, wrong
		}
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: der}), nil
	}
	parsed, err := pkcs8.ParsePKCS8PrivateKey(block.Bytes, []byte(password))
	if err != nil {
		return nil, wrong
	}
	der, err := x509.MarshalPKCS8PrivateKey(parsed)
	if err != nil {
		return nil, errors.Join(wrong, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
