package controlplane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity is how long certificates are valid, before and after now: longer than a control plane is ever kept.
const validity = 365 * 24 * time.Hour

// authority is a certificate authority. A control plane has several, as one of kubeadm has: who may call the API server
// as a user may not therefore call etcd or a kubelet.
type authority struct {
	name        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// pair is a certificate and its key, both as PEM.
type pair struct{ certificate, key []byte }

func newAuthority(name string) (*authority, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := newTemplate(pkix.Name{CommonName: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	a := &authority{name: name, certificate: template, key: key}
	der, err := a.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make the certificate of the authority %s: %w", name, err)
	}
	return a, nil
}

// pem returns the authority's certificate.
func (a *authority) pem() []byte { return certificatePEM(a.certificate.Raw) }

// server returns a certificate for 127.0.0.1 and the names, which a server that is a client of its peers can use too.
func (a *authority) server(name string, names ...string) (pair, error) {
	template := newTemplate(pkix.Name{CommonName: name})
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), firstServiceIP}
	template.DNSNames = append([]string{"localhost"}, names...)
	return a.issue(template)
}

// client returns a certificate for a user of that name in these groups.
func (a *authority) client(user string, groups ...string) (pair, error) {
	template := newTemplate(pkix.Name{CommonName: user, Organization: groups})
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(template)
}

func (a *authority) issue(template *x509.Certificate) (pair, error) {
	key, err := newKey()
	if err != nil {
		return pair{}, err
	}
	der, err := a.sign(template, key.Public())
	if err != nil {
		return pair{}, err
	}
	encoded, err := keyPEM(key)
	if err != nil {
		return pair{}, err
	}
	return pair{certificate: certificatePEM(der), key: encoded}, nil
}

func (a *authority) sign(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a certificate's serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate for %q with the authority %s: %w", template.Subject, a.name, err)
	}
	return der, nil
}

func newTemplate(subject pkix.Name) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{Subject: subject, NotBefore: now.Add(-validity), NotAfter: now.Add(validity)}
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// files are the paths of a pair that has been written.
type files struct{ certificate, key string }

// write writes the pair to NAME.crt and NAME.key in the folder.
func (p pair) write(dir, name string) (files, error) {
	f := files{certificate: filepath.Join(dir, name+".crt"), key: filepath.Join(dir, name+".key")}
	if err := os.WriteFile(f.certificate, p.certificate, 0o600); err != nil {
		return files{}, fmt.Errorf("write a certificate: %w", err)
	}
	if err := os.WriteFile(f.key, p.key, 0o600); err != nil {
		return files{}, fmt.Errorf("write a private key: %w", err)
	}
	return f, nil
}
