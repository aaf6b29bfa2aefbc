package network_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/youmark/pkcs8"
	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve returns the address of a server that greets, and closes the connection after a byte 'q'.
func serve(t *testing.T, listen func() (net.Listener, error)) string {
	t.Helper()
	listener, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = conn.Write([]byte("welcome\n"))
				got := make([]byte, 1)
				for err == nil && got[0] != 'q' {
					_, err = conn.Read(got)
				}
			})
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return listener.Addr().String()
}

// talk connects to a server with TLS and waits for its byte.
func talk(ctx context.Context, address, name string, settings network.TLS) error {
	config, err := settings.Config()
	if err != nil {
		return err
	}
	config.ServerName = name
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.Read(make([]byte, 1))
	return err
}

// encrypted encrypts a private key as tools do today; legacy as they did.
func encrypted(t *testing.T, key, password string, legacy bool) string {
	t.Helper()
	block, _ := pem.Decode([]byte(key))
	if legacy {
		//nolint:staticcheck // keys of this form exist and must be read
		block, err := x509.EncryptPEMBlock(rand.Reader, block.Type, block.Bytes, []byte(password), x509.PEMCipherAES256)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(block))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pkcs8.MarshalPrivateKey(parsed, []byte(password), nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}))
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	pair, err := tls.LoadX509KeyPair(certs.ServerCertFile, certs.ServerKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(certs.CA))
	with := func(config *tls.Config) string {
		config.Certificates, config.ClientCAs, config.MinVersion = []tls.Certificate{pair}, roots, tls.VersionTLS12
		return serve(t, func() (net.Listener, error) { return tls.Listen("tcp", "127.0.0.1:0", config) })
	}
	open, mutual := with(&tls.Config{}), with(&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert})
	plain := serve(t, func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
	client := network.TLS{CA: certs.CA, Cert: certs.ClientCert, Key: certs.ClientKey}
	change := func(key, password string) network.TLS {
		changed := client
		changed.Key, changed.KeyPassword = key, password
		return changed
	}
	for _, test := range []struct {
		name, address, server string
		settings              network.TLS
		want                  string // the hint, or an error without one; empty means none
	}{
		{"authority", open, "localhost", network.TLS{CA: certs.CA}, ""},
		{"insecure", open, "elsewhere", network.TLS{Insecure: true}, ""},
		{"certificate", mutual, "localhost", client, ""},
		{"encrypted key", mutual, "localhost", change(encrypted(t, certs.ClientKey, "k3y", false), "k3y"), ""},
		{"legacy encrypted key", mutual, "localhost", change(encrypted(t, certs.ClientKey, "k3y", true), "k3y"), ""},
		{"password that is not needed", mutual, "localhost", change(certs.ClientKey, "k3y"), ""},
		{"unknown authority", open, "localhost", network.TLS{}, "shows a certificate of an unknown authority"},
		{"another name", open, "elsewhere", network.TLS{CA: certs.CA}, "shows a certificate for another name"},
		{"no certificate", mutual, "localhost", network.TLS{CA: certs.CA}, "require a client certificate"},
		{"certificate alone", mutual, "localhost", network.TLS{CA: certs.CA, Cert: certs.ClientCert},
			"require a client certificate"},
		{"no TLS", plain, "localhost", client, "speaks no TLS on this port"},
		{"no authority", open, "localhost", network.TLS{CA: "hunter2"}, "ca: holds no certificate"},
		{"no PEM", open, "localhost", change("hunter2", ""), "key: is not PEM"},
		{"no password", open, "localhost", change(encrypted(t, certs.ClientKey, "k3y", false), ""), "keyPassword: is required"},
		{"wrong password", open, "localhost", change(encrypted(t, certs.ClientKey, "k3y", false), "hunter2"),
			"keyPassword: does not decrypt key"},
		{"wrong legacy password", open, "localhost", change(encrypted(t, certs.ClientKey, "k3y", true), "hunter2"),
			"keyPassword: does not decrypt key"},
		{"another key", open, "localhost", network.TLS{Cert: certs.CA, Key: certs.ClientKey},
			"cert: does not make a client certificate with key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			err := talk(t.Context(), test.address, test.server, test.settings)
			if test.want == "" {
				if err != nil {
					t.Errorf("error %v, want none", err)
				}
				return
			}
			if err == nil {
				t.Fatalf("no error, want %q", test.want)
			}
			text := network.Hint(err, true)
			if errors.As(err, new(trigger.ParamError)) {
				text = err.Error()
			}
			if !strings.Contains(text, test.want) {
				t.Errorf("hint %q of error %q, want %q", text, err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q shows a secret", err)
			}
		})
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := listener.Addr().String()
	_ = listener.Close()
	closing := serve(t, func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") })
	dial := func(address string) error {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, _ = conn.Write([]byte("q"))
		for err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		return err
	}
	late := func() error {
		conn, err := net.Dial("tcp", closing)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"nobody listens": {dial(gone), "is not reachable"},
		"unknown name":   {dial("name.invalid:1"), "has a name that is not found"},
		"closed":         {dial(closing), "closed the connection"},
		"late":           {late(), "does not answer in time"},
		"given up":       {context.DeadlineExceeded, "does not answer in time"},
		"anything else":  {errors.New("odd"), ""},
	} {
		if got := network.Hint(test.err, false); got != test.want {
			t.Errorf("%s: hint %q of error %v, want %q", name, got, test.err, test.want)
		}
	}
	if got := network.Hint(dial(closing), true); !strings.Contains(got, "client certificate") {
		t.Errorf("closed under TLS: hint %q", got)
	}
}
