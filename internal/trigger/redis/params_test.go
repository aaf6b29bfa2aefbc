package redis_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/youmark/pkcs8"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
)

// TestEveryParameterConnects gives each parameter by each way that it may be read from, to servers that need it.
func TestEveryParameterConnects(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(shortTempDir(t), "redis.sock")
	plain := redistest.Start(t, redistest.Options{Directives: []string{"unixsocket " + socket}})
	locked := redistest.Start(t, redistest.Options{
		Password: "pass word\"'", Users: []string{"alice on >alice-secret ~* &* +@all", "open on nopass ~* &* +@all"},
	})
	secured := redistest.Start(t, redistest.Options{TLS: true})
	mutual := redistest.Start(t, redistest.Options{TLS: true, ClientCertificate: true})
	for _, server := range []*redistest.Server{plain, locked, secured, mutual} {
		server.Do("RPUSH", "list", "a", "b")
	}
	message := plain.Do("COPY", "list", "list", "DB", "3")
	if copied, err := message.AsInt64(); err != nil || copied != 1 {
		t.Fatal(copied, err)
	}
	plain.Do("RPUSH", "list", "c") // 3 items in database 0, 2 in database 3
	certs := mutual.Certs()
	withCA := func(server *redistest.Server, more config) config {
		auth := config{"ca": server.Certs().CA}
		for key, value := range more {
			auth[key] = value
		}
		return auth
	}
	plainPort := plain.Port()
	secret, aliceSecret := "pass word\"'", "alice-secret"

	for _, test := range []struct {
		name                string
		metadata, env, auth config
		embedded            string
		want                float64
	}{
		{"address", config{"address": plain.Addr()}, nil, nil, "", 3},
		{"addresses", config{"addresses": plain.Addr()}, nil, nil, "", 3},
		{"address from env", config{"addressFromEnv": "A"}, config{"A": plain.Addr()}, nil, "", 3},
		{"addresses from env", config{"addressesFromEnv": "A"}, config{"A": plain.Addr()}, nil, "", 3},
		{"address from auth", nil, nil, config{"address": plain.Addr()}, "", 3},
		{"address wins over host", config{"address": plain.Addr(), "host": "192.0.2.1", "port": "1"}, nil, nil, "", 3},
		{"address by name", config{"address": "localhost:" + plainPort}, nil, nil, "", 3},
		{"unix socket", config{"address": socket}, nil, nil, "", 3},
		{"host and port", config{"host": "127.0.0.1", "port": plainPort}, nil, nil, "", 3},
		{"hosts and ports", config{"hosts": "127.0.0.1, 127.0.0.1", "ports": "1, " + plainPort}, nil, nil, "", 3},
		{"host and port from env", config{"hostFromEnv": "REDIS_HOST", "portFromEnv": "REDIS_PORT"},
			config{"REDIS_HOST": "127.0.0.1", "REDIS_PORT": plainPort}, nil, "", 3},
		{"host and port from auth", nil, nil, config{"host": "127.0.0.1", "port": plainPort}, "", 3},
		{"host that names its port", config{"host": plain.Addr()}, nil, nil, "", 3},
		{"embedded", nil, nil, nil, plain.Addr(), 3},
		{"embedded, host not set", config{"hostFromEnv": "REDIS_HOST", "portFromEnv": "REDIS_PORT"},
			config{"REDIS_PORT": "1"}, nil, plain.Addr(), 3},
		{"address wins over embedded", config{"address": plain.Addr()}, nil, nil, "192.0.2.1:1", 3},
		{"databaseIndex", config{"address": plain.Addr(), "databaseIndex": "3"}, nil, nil, "", 2},
		{"sentinel parameters are ignored",
			config{"address": plain.Addr(), "sentinelUsername": "u", "sentinelPassword": "p", "sentinelMaster": "m"}, nil, nil, "", 3},
		{"username without password is ignored", config{"address": plain.Addr(), "username": "nobody"}, nil, nil, "", 3},
		{"password", config{"address": locked.Addr(), "password": secret}, nil, nil, "", 2},
		{"password from env", config{"address": locked.Addr(), "passwordFromEnv": "P"}, config{"P": secret}, nil, "", 2},
		{"password from auth", config{"address": locked.Addr()}, nil, config{"password": secret + "\n"}, "", 2},
		{"env wins over auth", config{"address": locked.Addr(), "passwordFromEnv": "P"}, config{"P": secret},
			config{"password": "wrong"}, "", 2},
		{"ACL user", config{"address": locked.Addr(), "username": "alice", "password": aliceSecret}, nil, nil, "", 2},
		{"ACL user from env", config{"address": locked.Addr(), "usernameFromEnv": "U", "passwordFromEnv": "P"},
			config{"U": "alice", "P": aliceSecret}, nil, "", 2},
		{"ACL user from auth", config{"address": locked.Addr()}, nil, config{"username": "alice", "password": aliceSecret}, "", 2},
		{"ACL user without a password of its own", config{"address": locked.Addr(), "username": "open", "password": "any"}, nil, nil, "", 2},
		{"enableTLS and ca", config{"address": secured.Addr(), "enableTLS": "true"}, nil, withCA(secured, nil), "", 2},
		{"tls and ca", config{"address": secured.Addr()}, nil, withCA(secured, config{"tls": "enable"}), "", 2},
		{"TLS by name", config{"address": "localhost:" + secured.Port()}, nil, withCA(secured, config{"tls": "enable"}), "", 2},
		{"unsafeSsl", config{"address": secured.Addr(), "enableTLS": "1", "unsafeSsl": "true"}, nil, nil, "", 2},
		{"tls disable", config{"address": plain.Addr()}, nil, withCA(secured, config{"tls": "disable"}), "", 3},
		{"client certificate", config{"address": mutual.Addr(), "enableTLS": "true"}, nil,
			withCA(mutual, config{"cert": certs.ClientCert, "key": certs.ClientKey}), "", 2},
		{"client certificate, capital letter", config{"address": mutual.Addr(), "enableTLS": "true"}, nil,
			withCA(mutual, config{"Cert": certs.ClientCert, "key": certs.ClientKey}), "", 2},
		{"encrypted key", config{"address": mutual.Addr(), "enableTLS": "true"}, nil,
			withCA(mutual, config{"cert": certs.ClientCert, "key": encrypted(t, certs.ClientKey, "k3y"), "keyPassword": "k3y"}), "", 2},
		{"legacy encrypted key", config{"address": mutual.Addr(), "enableTLS": "true"}, nil,
			withCA(mutual, config{"cert": certs.ClientCert, "key": legacyEncrypted(t, certs.ClientKey, "k3y"), "keyPassword": "k3y"}), "", 2},
		{"password for a key in the clear", config{"address": mutual.Addr(), "enableTLS": "true"}, nil,
			withCA(mutual, config{"cert": certs.ClientCert, "key": certs.ClientKey, "keyPassword": "k3y"}), "", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := config{"listName": "list"}
			for key, value := range test.metadata {
				metadata[key] = value
			}
			made := build(t, redis.NewClients(), trigger.Config{
				Metadata: metadata, Env: test.env, Auth: test.auth, EmbeddedRedis: test.embedded,
			})
			if got := measure(t, made); got.Value != test.want {
				t.Errorf("measured %v, want %v", got.Value, test.want)
			}
			changes := watch(t, made)
			changes.until(t, "the call at the start", func() bool { return len(changes.signal) == 0 })
		})
	}
}

func encrypted(t *testing.T, key, password string) string {
	t.Helper()
	der, err := pkcs8.MarshalPrivateKey(parsed(t, key), []byte(password), nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}))
}

func legacyEncrypted(t *testing.T, key, password string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(key))
	//nolint:staticcheck // such keys exist and must be read
	sealed, err := x509.EncryptPEMBlock(rand.Reader, block.Type, block.Bytes, []byte(password), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(sealed))
}

func parsed(t *testing.T, key string) any {
	t.Helper()
	block, _ := pem.Decode([]byte(key))
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func TestNewRefusesParameters(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	const address = "127.0.0.1:6379"
	tls := config{"address": address, "enableTLS": "true"}
	for _, test := range []struct {
		name           string
		metadata, auth config
		want           string
	}{
		{"no list", config{"listName": "", "address": address}, nil, "listName: is required"},
		{"no address", nil, nil, "address: no source gives an address or a host"},
		{"port alone", config{"port": "6379"}, nil, "address: no source gives an address or a host"},
		{"unequal hosts and ports", config{"hosts": "a,b", "ports": "1,2,3"}, nil,
			`ports "1,2,3": must give one port for each host; host gives 2 and port 3`},
		{"port is a word", config{"host": "a", "port": "redis"}, nil, `port "redis": is not a port`},
		{"port 0", config{"address": "a:0"}, nil, `address "a:0": does not end in a port`},
		{"port too big", config{"address": "a:65536"}, nil, `address "a:65536": does not end in a port`},
		{"URL", config{"address": "redis://user:hunter2@a:1"}, nil, `address: is a URL`},
		{"URL in auth", nil, config{"address": "redis://a:1"}, `address: is a URL`},
		{"credentials in an address", config{"address": "hunter2@a:1"}, nil, "address: is not an address"},
		{"host with a port and port", config{"host": "a:1", "port": "1"}, nil, `host "a:1": is not a host`},
		{"listLength zero", config{"address": address, "listLength": "0"}, nil, `listLength "0": is too small; give at least 1`},
		{"activation", config{"address": address, "activationListLength": "x"}, nil, `activationListLength "x": is not a whole number`},
		{"database", config{"address": address, "databaseIndex": "-1"}, nil, `databaseIndex "-1": is too small`},
		{"enableTLS", config{"address": address, "enableTLS": "enable"}, nil, `enableTLS "enable": is not a boolean`},
		{"tls", config{"address": address}, config{"tls": "hunter2"}, `tls: is not allowed; give enable or disable`},
		{"enableTLS and tls", tls, config{"tls": "enable"}, "tls: is given in the TriggerAuthentication and enableTLS in metadata"},
		{"ca", tls, config{"ca": "hunter2"}, "ca: holds no certificate"},
		{"key", tls, config{"cert": certs.ClientCert, "key": "hunter2"}, "key: is not PEM"},
		{"certificate", tls, config{"cert": "hunter2", "key": certs.ClientKey}, "Cert: does not make a client certificate with key"},
		{"another key", tls, config{"cert": certs.CA, "key": certs.ClientKey}, "does not make a client certificate"},
		{"key without its password", tls, config{"cert": certs.ClientCert, "key": encrypted(t, certs.ClientKey, "k")},
			"keyPassword: is required"},
		{"wrong key password", tls,
			config{"cert": certs.ClientCert, "key": encrypted(t, certs.ClientKey, "k"), "keyPassword": "hunter2"},
			"keyPassword: does not decrypt key"},
		{"wrong legacy key password", tls,
			config{"cert": certs.ClientCert, "key": legacyEncrypted(t, certs.ClientKey, "k"), "keyPassword": "hunter2"},
			"keyPassword: does not decrypt key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			metadata := config{"listName": "list"}
			for key, value := range test.metadata {
				metadata[key] = value
			}
			made, err := typeOf(t, redis.NewClients(), "redis").New(t.Context(), trigger.Config{Metadata: metadata, Auth: test.auth})
			if err == nil {
				made.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q shows a secret", err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	declared := typeOf(t, redis.NewClients(), "redis")
	for _, test := range []struct {
		name     string
		metadata config
		hasAuth  bool
		want     []string
	}{
		{"the usual", config{"listName": "l", "hostFromEnv": "REDIS_HOST", "portFromEnv": "REDIS_PORT"}, false, nil},
		{"everything from auth", config{"listName": "l", "enableTLS": "true"}, true, nil},
		{"no address", config{"listName": "l"}, false, []string{"warning: address: is not given, nor is host"}},
		{"port alone", config{"listName": "l", "port": "1"}, false, []string{"port has no effect without"}},
		{"no list", config{"address": "a:1"}, false, []string{"listName: is required"}},
		{"list from env", config{"address": "a:1", "listNameFromEnv": "L"}, false,
			[]string{"listName: is required", "listNameFromEnv: cannot be read from the environment"}},
		{"misspelt", config{"address": "a:1", "listname": "l", "listName": "l"}, false, []string{"did you mean listName?"}},
		{"certificate in metadata", config{"address": "a:1", "listName": "l", "ca": "x"}, false,
			[]string{"ca: cannot be given in metadata; give ca in a TriggerAuthentication"}},
		{"unequal", config{"hosts": "a,b", "ports": "1", "listName": "l"}, false, []string{`ports "1": must give one port`}},
		{"ports from env", config{"hosts": "a,b", "portsFromEnv": "P", "listName": "l"}, false, nil},
		{"username alone", config{"address": "a:1", "username": "u", "listName": "l"}, false,
			[]string{"warning: username: has no effect without a password"}},
		{"unsafeSsl alone", config{"address": "a:1", "unsafeSsl": "true", "listName": "l"}, false,
			[]string{"warning: unsafeSsl: has no effect without TLS"}},
		{"sentinel", config{"address": "a:1", "sentinelMaster": "m", "listName": "l"}, false,
			[]string{"warning: sentinelMaster: has no effect on trigger type redis"}},
		{"both", config{"address": "a:1", "addressFromEnv": "A", "listName": "l"}, false,
			[]string{"warning: addressFromEnv: has no effect because address is given too"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			findings := declared.Validate(test.metadata, test.hasAuth)
			if len(findings) != len(test.want) {
				t.Fatalf("findings %v, want %q", findings, test.want)
			}
			for i, finding := range findings {
				text := finding.Error()
				if finding.Warning {
					text = "warning: " + text
				}
				if !strings.Contains(text, test.want[i]) {
					t.Errorf("finding %q, want %q", text, test.want[i])
				}
			}
		})
	}
}

func TestMetricNameIsKEDAs(t *testing.T) {
	t.Parallel()
	metadata := config{"listName": "a:b/c.d", "stream": "a:b/c.d"}
	for _, declared := range redis.Types(redis.NewClients()) {
		want := "s1-redis-a-b-c-d"
		if strings.HasSuffix(declared.Name, "streams") {
			want = "s1-redis-streams-a-b-c-d"
		}
		if name := declared.ExternalMetricName(1, trigger.Config{Metadata: metadata}); name != want {
			t.Errorf("%s: metric name %q, want %q", declared.Name, name, want)
		}
	}
}

func TestValidateFamily(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		metadata config
		hasAuth  bool
		want     []string
	}{
		{"redis-streams", config{"stream": "s", "address": "a"}, false, nil},
		{"redis-streams", config{"stream": "s"}, false, []string{"warning: address: is not given, nor is host"}},
		{"redis-streams", config{"address": "a"}, false, []string{"stream: is required"}},
		{"redis-streams", config{"stream": "s", "address": "a", "lagCount": "1", "pendingEntriesCount": "2"}, false, []string{
			"warning: lagCount: has no effect without consumerGroup", "warning: pendingEntriesCount: has no effect without",
		}},
		{"redis-streams", config{"stream": "s", "address": "a", "consumerGroup": "g", "streamLength": "1"}, false,
			[]string{"warning: streamLength: has no effect with consumerGroup; the entries that are pending"}},
		{"redis-streams", config{
			"stream": "s", "address": "a", "consumerGroup": "g", "streamLength": "1", "lagCount": "1", "pendingEntriesCount": "2",
		}, false, []string{
			"warning: pendingEntriesCount: has no effect with lagCount", "warning: streamLength: has no effect with consumerGroup",
		}},
		{"redis-streams", config{"stream": "s", "address": "a", "consumerGroup": "g", "lagCount": "-1"}, false,
			[]string{`lagCount "-1": is too small; give at least 1`}},
		{"redis-streams", config{
			"stream": "s", "address": "a", "consumerGroup": "g", "streamLength": "0", "lagCount": "1", "pendingEntriesCount": "0",
		}, false, []string{
			"warning: pendingEntriesCount: has no effect with lagCount", "warning: streamLength: has no effect with consumerGroup",
		}},
		{"redis-streams", config{"stream": "s", "address": "a", "lagCount": "-1", "streamLength": "0"}, false, []string{
			"warning: lagCount: has no effect without consumerGroup", `streamLength "0": is too small; give at least 1`,
		}},
		{"redis-streams", config{"stream": "s", "address": "a", "consumerGroup": "g", "pendingEntriesCount": "0"}, false,
			[]string{`pendingEntriesCount "0": is too small; give at least 1`}},
		{"redis-streams", config{"stream": "s", "address": "a", "streamLength": "x"}, false,
			[]string{`streamLength "x": is not a whole number`}},
		{"redis-streams", config{"stream": "s", "address": "a", "sentinelMaster": "m"}, false,
			[]string{"warning: sentinelMaster: has no effect on trigger type redis-streams; use type redis-sentinel-streams"}},
		{"redis-streams", config{"stream": "s", "address": "a", "listName": "l"}, false,
			[]string{"listName: is not a parameter of trigger type redis-streams"}},
		{"redis-cluster", config{"listName": "l", "addresses": "a,b:7000"}, false, nil},
		{"redis-cluster", config{"listName": "l", "hosts": "a,b", "ports": "1,2"}, false, nil},
		{"redis-cluster", config{"listName": "l", "hosts": "a,b", "ports": "1"}, false, []string{`ports "1": must give one port`}},
		{"redis-cluster", config{"listName": "l"}, false, []string{"address: is required, or host with port"}},
		{"redis-cluster", config{"listName": "l"}, true, nil},
		{"redis-cluster", config{"listName": "l", "addressesFromEnv": "A"}, false, nil},
		{"redis-cluster", config{"listName": "l", "address": "/run/redis.sock"}, false,
			[]string{"is the path of a unix socket; give host:port"}},
		{"redis-cluster", config{"listName": "l", "address": "a", "databaseIndex": "1", "sentinelUsername": "u"}, false, []string{
			"warning: databaseIndex: has no effect: a Redis Cluster has database 0 only",
			"warning: sentinelUsername: has no effect on trigger type redis-cluster; use type redis-sentinel",
		}},
		{"redis-cluster-streams", config{"stream": "s", "address": "a", "databaseIndex": "0", "consumerGroup": "g"}, false, nil},
		{"redis-sentinel", config{"listName": "l", "address": "a", "sentinelMaster": "m", "databaseIndex": "1"}, false, nil},
		{"redis-sentinel", config{"listName": "l", "address": "a"}, false, []string{"sentinelMaster: is required"}},
		{"redis-sentinel", config{"listName": "l", "address": "a", "sentinelMasterFromEnv": "M"}, false, nil},
		{"redis-sentinel", config{"listName": "l", "address": "a", "sentinelMaster": "m", "sentinelUsername": "u"}, false,
			[]string{"warning: sentinelUsername: has no effect without sentinelPassword"}},
		{"redis-sentinel-streams", config{"stream": "s"}, false, []string{"address: is required", "sentinelMaster: is required"}},
		{"redis-sentinel-streams", config{"stream": "s"}, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			found := typeOf(t, redis.NewClients(), test.name).Validate(test.metadata, test.hasAuth)
			if len(found) != len(test.want) {
				t.Fatalf("%v: findings %v, want %q", test.metadata, found, test.want)
			}
			for i, finding := range found {
				text := finding.Error()
				if finding.Warning {
					text = "warning: " + text
				}
				if !strings.Contains(text, test.want[i]) {
					t.Errorf("%v: finding %q, want %q", test.metadata, text, test.want[i])
				}
			}
		})
	}
}

// TestFamilyNeedsServers makes triggers without what a running Job's environment should have given.
func TestFamilyNeedsServers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		metadata config
		want     string
		kind     error
	}{
		{"redis-streams", config{"stream": "s", "addressFromEnv": "A"}, "address: no source gives an address", trigger.ErrNoServer},
		{"redis-cluster", config{"listName": "l", "addressFromEnv": "A"}, "address: is required, or host with port", nil},
		{"redis-sentinel", config{"listName": "l", "address": "a", "sentinelMasterFromEnv": "M"}, "sentinelMaster: is required", nil},
	} {
		made, err := typeOf(t, redis.NewClients(), test.name).New(t.Context(), trigger.Config{Metadata: test.metadata})
		if err == nil {
			made.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, trigger.ErrNoServer) != (test.kind != nil) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.want)
		}
	}
}

func TestNewDoesNotConnect(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	proxy := servertest.StartProxy(t, server.Addr())
	for i := range 10 {
		open(t, config{"address": proxy.Addr(), "listName": fmt.Sprint(i)}).Close()
	}
	if proxy.Opened() != 0 {
		t.Errorf("%d connections", proxy.Opened())
	}
}
