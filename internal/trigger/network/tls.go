package network

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/youmark/pkcs8"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// The names of the parameters of TLS that triggers share, by which the errors of Config name what is wrong.
const (
	ParamCA          = "ca"
	ParamCert        = "cert"
	ParamKey         = "key"
	ParamKeyPassword = "keyPassword"
)

// CAParam returns the parameter ca of types that have it in a TriggerAuthentication only.
func CAParam() trigger.Param {
	return trigger.Param{
		Name: ParamCA, Kind: trigger.String, Optional: true, Sources: []trigger.Source{trigger.FromAuth},
		Doc: "Certificates, PEM, of authorities that are trusted besides the system's.",
	}
}

// CertParams returns the parameters of a client certificate of the same types: cert, key and keyPassword.
func CertParams() []trigger.Param {
	sources := []trigger.Source{trigger.FromAuth}
	return []trigger.Param{
		{
			Name: ParamCert, Kind: trigger.String, Optional: true, Sources: sources,
			Doc: "The client's certificate, PEM; given together with key.",
		},
		{
			Name: ParamKey, Kind: trigger.String, Optional: true, Secret: true, Sources: sources,
			Doc: "The client certificate's private key, PEM.",
		},
		{
			Name: ParamKeyPassword, Kind: trigger.String, Optional: true, Secret: true, Sources: sources,
			Doc: "The password that the private key is encrypted with.",
		},
	}
}

// TLSOf returns what the parameters of CAParam and CertParams say.
func TLSOf(values trigger.Values) TLS {
	return TLS{
		CA: values.String(ParamCA), Cert: values.String(ParamCert), Key: values.String(ParamKey),
		KeyPassword: values.String(ParamKeyPassword),
	}
}

// TLS is what parameters say about TLS. The zero value trusts the system's authorities and presents no certificate.
type TLS struct {
	// Insecure accepts any certificate of the server.
	Insecure bool
	// CA holds certificates, PEM, of authorities that are trusted besides the system's.
	CA string
	// Cert is the client's certificate, PEM; Key its private key, PEM, which KeyPassword decrypts. As in KEDA, one of
	// them alone is ignored.
	Cert, Key, KeyPassword string
}

// Config returns the TLS configuration without a server name. Its errors are trigger.ParamErrors that hold none of the
// material.
func (t TLS) Config() (*tls.Config, error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		//nolint:gosec // the user asks for it
		InsecureSkipVerify: t.Insecure,
	}
	if t.CA != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool() // a machine without certificates of its own
		}
		if !roots.AppendCertsFromPEM([]byte(t.CA)) {
			return nil, trigger.ParamError{Key: ParamCA, Message: "holds no certificate; give PEM blocks of type CERTIFICATE"}
		}
		config.RootCAs = roots
	}
	if t.Cert == "" || t.Key == "" {
		return config, nil
	}
	key, err := decryptKey([]byte(t.Key), t.KeyPassword)
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair([]byte(t.Cert), key)
	if err != nil {
		return nil, trigger.ParamError{
			Key: ParamCert, Message: fmt.Sprintf("does not make a client certificate with key: %v", err),
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
		return nil, trigger.ParamError{Key: ParamKey, Message: "is not PEM; give a block of type PRIVATE KEY"}
	}
	legacy := x509.IsEncryptedPEMBlock(block) //nolint:staticcheck // keys of this form exist and must be read
	if !legacy && block.Type != "ENCRYPTED PRIVATE KEY" {
		return key, nil
	}
	if password == "" {
		return nil, trigger.ParamError{Key: ParamKeyPassword, Message: "is required, because key is encrypted"}
	}
	wrong := trigger.ParamError{Key: ParamKeyPassword, Message: "does not decrypt key"}
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
