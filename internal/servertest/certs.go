package servertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certs are a certificate authority and what it signed: a certificate for 127.0.0.1 and localhost, and a client's.
type Certs struct {
	// CA, ClientCert and ClientKey are PEM.
	CA, ClientCert, ClientKey string
	// CAFile, ServerCertFile and ServerKeyFile are paths of PEM files.
	CAFile, ServerCertFile, ServerKeyFile string

	client tls.Certificate
}

// NewCerts makes an authority and its certificates in the folder.
func NewCerts(tb testing.TB, folder string) *Certs {
	tb.Helper()
	caTemplate := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := newKey(tb)
	ca := sign(tb, caTemplate, caTemplate, caKey, caKey)
	serverKey, clientKey := newKey(tb), newKey(tb)
	server := sign(tb, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test server"},
		NotBefore: caTemplate.NotBefore, NotAfter: caTemplate.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		// The nodes of a cluster are clients of each other, with this certificate.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, caTemplate, serverKey, caKey)
	client := sign(tb, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "test client"},
		NotBefore: caTemplate.NotBefore, NotAfter: caTemplate.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, caTemplate, clientKey, caKey)
	certs := &Certs{
		CA: certificatePEM(ca), ClientCert: certificatePEM(client), ClientKey: keyPEM(tb, clientKey),
		CAFile:         filepath.Join(folder, "ca.pem"),
		ServerCertFile: filepath.Join(folder, "server.pem"),
		ServerKeyFile:  filepath.Join(folder, "server.key"),
		client:         tls.Certificate{Certificate: [][]byte{client}, PrivateKey: clientKey},
	}
	for path, content := range map[string]string{
		certs.CAFile: certs.CA, certs.ServerCertFile: certificatePEM(server), certs.ServerKeyFile: keyPEM(tb, serverKey),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return certs
}

// ClientConfig trusts the authority and presents the client's certificate.
func (c *Certs) ClientConfig() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(c.CA))
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{c.client}, ServerName: "localhost",
	}
}

// ServerConfig shows the server's certificate and verifies the client's where there is one.
func (c *Certs) ServerConfig(tb testing.TB) *tls.Config {
	tb.Helper()
	certificate, err := tls.LoadX509KeyPair(c.ServerCertFile, c.ServerKeyFile)
	if err != nil {
		tb.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(c.CA))
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate},
		ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven,
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func sign(tb testing.TB, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) []byte {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func keyPEM(tb testing.TB, key *ecdsa.PrivateKey) string {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
