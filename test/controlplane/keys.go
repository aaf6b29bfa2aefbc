package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// keys are the authorities of a control plane, and the paths of what they have signed.
type keys struct {
	// cluster signs the certificates of the API server and of its users.
	cluster   *authority
	clusterCA string
	apiServer files
	// serviceAccounts sign the tokens of service accounts. Its certificate is a public key.
	serviceAccounts files

	// internal signs those of etcd, of kubelets, and of the API server as their client.
	internal         *authority
	internalCA       string
	etcd, etcdClient files
	kubeletServer    pair
	kubeletClient    files
}

// kubeletClientName is what the API server calls itself to a kubelet.
const kubeletClientName = "kube-apiserver-kubelet-client"

func newKeys(dir string) (*keys, error) {
	k := &keys{clusterCA: filepath.Join(dir, "ca.crt"), internalCA: filepath.Join(dir, "internal-ca.crt")}
	var err error
	if k.cluster, err = newAuthority("kubernetes"); err != nil {
		return nil, err
	}
	if k.internal, err = newAuthority("internal"); err != nil {
		return nil, err
	}
	err = errors.Join(
		os.WriteFile(k.clusterCA, k.cluster.pem(), 0o600),
		os.WriteFile(k.internalCA, k.internal.pem(), 0o600),
	)
	if err != nil {
		return nil, fmt.Errorf("write the certificates of the authorities: %w", err)
	}
	for _, made := range []struct {
		target *files
		name   string
		make   func() (pair, error)
	}{
		{&k.apiServer, "apiserver", func() (pair, error) {
			return k.cluster.server("kube-apiserver", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local")
		}},
		{&k.serviceAccounts, "service-accounts", newServiceAccountPair},
		{&k.etcd, "etcd", func() (pair, error) { return k.internal.server("etcd") }},
		{&k.etcdClient, "etcd-client", func() (pair, error) { return k.internal.client("kube-apiserver-etcd-client") }},
		{&k.kubeletClient, "kubelet-client", func() (pair, error) { return k.internal.client(kubeletClientName) }},
	} {
		p, err := made.make()
		if err != nil {
			return nil, err
		}
		if *made.target, err = p.write(dir, made.name); err != nil {
			return nil, err
		}
	}
	k.kubeletServer, err = k.internal.server("kubelet")
	return k, err
}

// newServiceAccountPair returns a public key and its private one.
func newServiceAccountPair() (pair, error) {
	key, err := newKey()
	if err != nil {
		return pair{}, err
	}
	private, err := keyPEM(key)
	if err != nil {
		return pair{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return pair{}, fmt.Errorf("encode a public key: %w", err)
	}
	return pair{certificate: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), key: private}, nil
}

// kubeletTLS returns what a kubelet serves with: a certificate that the API server trusts, and the demand for one by
// which the API server is recognised.
func (k *keys) kubeletTLS() (*tls.Config, error) {
	certificate, err := tls.X509KeyPair(k.kubeletServer.certificate, k.kubeletServer.key)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the kubelet: %w", err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(k.internal.certificate)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	}, nil
}
