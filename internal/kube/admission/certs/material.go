package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Keys of the Secret, those of kubernetes.io/tls and their usual companions.
const (
	keyAuthorities  = "ca.crt" // all that are trusted, the newest first
	keyAuthorityKey = "ca.key" // of the newest
	keyServing      = "tls.crt"
	keyServingKey   = "tls.key"
)

// material is what the Secret holds.
type material struct {
	authorities  []*x509.Certificate // the newest first; not empty
	authorityKey crypto.Signer       // of the newest
	serving      tls.Certificate     // without a Leaf when there is none that can be used
}

// next returns what the Secret should hold at this time, and why it differs from the data; reason is empty where it
// does not. known tells whether API servers have been told of the authorities in the data.
func (i issuer) next(data map[string][]byte, now time.Time, known bool) (m material, reason string, err error) {
	m, err = parse(data)
	if err == nil && !valid(m.authorities[0], now) {
		err = fmt.Errorf("the authority is valid from %s to %s", m.authorities[0].NotBefore, m.authorities[0].NotAfter)
	}
	if err != nil {
		reason = "made anew: " + err.Error()
		if m, err = i.withAuthority(material{}, now); err != nil {
			return material{}, "", err
		}
		err = i.renewServing(&m, now)
		return m, reason, err
	}
	newest := m.authorities[0]
	expired := func(a *x509.Certificate) bool { return !now.Before(a.NotAfter) }
	if slices.ContainsFunc(m.authorities, expired) {
		m.authorities = slices.DeleteFunc(m.authorities, expired)
		reason = "an old authority has expired"
	}
	unusable := i.check(m, now)
	switch {
	case unusable != nil:
		reason = "serving certificate made anew: " + unusable.Error()
		err = i.renewServing(&m, now)
	case !now.Before(renewAt(newest)):
		reason = "next authority added: two thirds of the life of the last one have passed"
		m, err = i.withAuthority(m, now)
	case m.serving.Leaf.CheckSignatureFrom(newest) != nil:
		// Signed by the authority before, which is trusted for years to come, so there is time to wait.
		if known && !now.Before(newest.NotBefore.Add(backdate+settleTime)) {
			reason = "serving certificate renewed: there is a new authority"
			err = i.renewServing(&m, now)
		}
	case !now.Before(renewAt(m.serving.Leaf)):
		reason = "serving certificate renewed: two thirds of its life have passed"
		err = i.renewServing(&m, now)
	}
	return m, reason, err
}

func (i issuer) withAuthority(m material, now time.Time) (material, error) {
	authority, key, err := i.authority(now)
	if err != nil {
		return material{}, err
	}
	m.authorities = append([]*x509.Certificate{authority}, m.authorities...)
	m.authorityKey = key
	return m, nil
}

func (i issuer) renewServing(m *material, now time.Time) error {
	serving, err := i.serving(m.authorities[0], m.authorityKey, now)
	if err != nil {
		return err
	}
	m.serving = serving
	return nil
}

// check says why the serving certificate cannot be used.
func (i issuer) check(m material, now time.Time) error {
	if m.serving.Leaf == nil {
		return errors.New("there is none that can be read")
	}
	roots := x509.NewCertPool()
	for _, authority := range m.authorities {
		roots.AddCert(authority)
	}
	for _, host := range i.hosts {
		if _, err := m.serving.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now}); err != nil {
			return err
		}
	}
	return nil
}

// parse reads the Secret's data. It fails when there is no authority to go on with; a serving certificate that is
// broken is left out.
func parse(data map[string][]byte) (material, error) {
	var m material
	for rest := bytes.TrimSpace(data[keyAuthorities]); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return material{}, fmt.Errorf("%s holds something else than PEM", keyAuthorities)
		}
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return material{}, fmt.Errorf("%s: %w", keyAuthorities, err)
		}
		m.authorities = append(m.authorities, authority)
	}
	if len(m.authorities) == 0 {
		return material{}, fmt.Errorf("%s holds no certificate", keyAuthorities)
	}
	newest := m.authorities[0]
	block, _ := pem.Decode(data[keyAuthorityKey])
	if block == nil {
		return material{}, fmt.Errorf("%s holds no key", keyAuthorityKey)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return material{}, fmt.Errorf("%s: %w", keyAuthorityKey, err)
	}
	if !key.PublicKey.Equal(newest.PublicKey) {
		return material{}, fmt.Errorf("%s is not the key of the first certificate in %s", keyAuthorityKey, keyAuthorities)
	}
	if !newest.IsCA {
		return material{}, fmt.Errorf("the first certificate in %s is not an authority", keyAuthorities)
	}
	m.authorityKey = key
	if serving, err := tls.X509KeyPair(data[keyServing], data[keyServingKey]); err == nil {
		m.serving = serving
	}
	return m, nil
}

// bundle returns the trusted authorities as PEM.
func (m material) bundle() []byte {
	var bundle []byte
	for _, authority := range m.authorities {
		bundle = append(bundle, encodeCertificate(authority.Raw)...)
	}
	return bundle
}

// data returns the material as the Secret holds it.
func (m material) data() (map[string][]byte, error) {
	authorityKey, err := encodeKey(m.authorityKey)
	if err != nil {
		return nil, err
	}
	servingKey, err := encodeKey(m.serving.PrivateKey)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		keyAuthorities:  m.bundle(),
		keyAuthorityKey: authorityKey,
		keyServing:      encodeCertificate(m.serving.Certificate[0]),
		keyServingKey:   servingKey,
	}, nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("got a key of type %T, want an elliptic curve's", key)
	}
	der, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
