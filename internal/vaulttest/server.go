// Package vaulttest has a server for tests that answers as HashiCorp Vault's published HTTP API says
// (https://developer.hashicorp.com/vault/api-docs). It is not Vault: it is written from that documentation and knows
// what the tests need and no more: KV in both versions, issuing with PKI, leases, tokens, signing in with kubernetes,
// sealing. It is imported by tests only.
package vaulttest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/servertest"
)

// Server is one server. Its engines are KV version 2 at secret/, KV version 1 at kv/, PKI at pki/, one that gives
// leases at database/, and the method kubernetes at auth/cluster.
type Server struct {
	tb      testing.TB
	address string
	running *http.Server

	mu      sync.Mutex
	sealed  bool
	frozen  chan struct{} // open while requests wait
	secrets map[string]map[string]any
	tokens  map[string]*token
	roles   map[string]Role
	issued  int
	logins  int
}

// Token says what a token may do.
type Token struct {
	// Paths are what may be read or written; none means everything.
	Paths []string
	// TTL is how long it lives, and for how long it can be renewed each time; 0 means for ever.
	TTL time.Duration
	// MaxTTL is how long it lives at the most, however often it is renewed; 0 means that there is no bound.
	MaxTTL time.Duration
}

// Role is who may sign in with kubernetes, and what the token is that he gets.
type Role struct {
	// Account is the service account as NAMESPACE:NAME.
	Account string
	Token
}

type token struct {
	Token
	made, end time.Time
}

// Start starts a server, which ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{tb: tb, address: servertest.FreeAddress(tb), secrets: map[string]map[string]any{},
		tokens: map[string]*token{}, roles: map[string]Role{}}
	s.Restart()
	tb.Cleanup(func() { s.Thaw(); s.Stop() })
	return s
}

// Address is the URL of the server.
func (s *Server) Address() string { return "http://" + s.address }

// Stop ends the server: connections to it are refused.
func (s *Server) Stop() {
	if s.running != nil {
		_ = s.running.Close()
		s.running = nil
	}
}

// Restart starts the server on the address that it has had, with what it has stored.
func (s *Server) Restart() {
	s.tb.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", s.address)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.address = listener.Addr().String()
	s.running = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	running := s.running
	go func() { _ = running.Serve(listener) }()
}

// Seal makes the server refuse everything, or nothing any more.
func (s *Server) Seal(sealed bool) { s.locked(func() { s.sealed = sealed }) }

// Freeze makes requests wait until Thaw.
func (s *Server) Freeze() { s.locked(func() { s.frozen = make(chan struct{}) }) }

// Thaw ends Freeze.
func (s *Server) Thaw() {
	s.locked(func() {
		if s.frozen != nil {
			close(s.frozen)
			s.frozen = nil
		}
	})
}

// Put stores a secret at a path, in KV version 2 one below secret/data/. No data means one that is deleted.
func (s *Server) Put(path string, data map[string]any) { s.locked(func() { s.secrets[path] = data }) }

// NewToken makes a token of that name.
func (s *Server) NewToken(name string, t Token) string {
	s.locked(func() { s.add(name, t) })
	return name
}

// Revoke ends all tokens.
func (s *Server) Revoke() { s.locked(func() { clear(s.tokens) }) }

// PutRole makes a role of auth/cluster.
func (s *Server) PutRole(name string, role Role) { s.locked(func() { s.roles[name] = role }) }

// Logins is how often somebody has signed in.
func (s *Server) Logins() (n int) {
	s.locked(func() { n = s.logins })
	return n
}

func (s *Server) locked(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

func (s *Server) add(name string, t Token) *token {
	made := &token{Token: t, made: time.Now()}
	made.renew()
	s.tokens[name] = made
	return made
}

// renew gives the token its whole life again, as far as its greatest age allows.
func (t *token) renew() {
	if t.TTL == 0 {
		return
	}
	t.end = time.Now().Add(t.TTL)
	if bound := t.made.Add(t.MaxTTL); t.MaxTTL > 0 && bound.Before(t.end) {
		t.end = bound
	}
}

// left is how many seconds the token lives; 0 for one that has no end.
func (t *token) left() int {
	if t.end.IsZero() {
		return 0
	}
	return max(1, int(time.Until(t.end).Round(time.Second)/time.Second))
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	frozen := s.frozen
	s.mu.Unlock()
	if frozen != nil {
		select {
		case <-frozen:
		case <-r.Context().Done():
			return
		}
	}
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	s.mu.Lock()
	status, answer := s.answer(strings.TrimPrefix(r.URL.Path, "/v1/"), r, body)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

type object = map[string]any

func failed(status int, words ...string) (int, any) {
	return status, object{"errors": append([]string{}, words...)}
}

func (s *Server) answer(path string, r *http.Request, body object) (int, any) {
	if s.sealed {
		return failed(http.StatusServiceUnavailable, "Vault is sealed")
	}
	if mount, isLogin := strings.CutSuffix(path, "/login"); isLogin {
		return s.login(mount, body)
	}
	name := r.Header.Get("X-Vault-Token")
	t := s.tokens[name]
	if t == nil || (!t.end.IsZero() && time.Now().After(t.end)) {
		return failed(http.StatusForbidden, "permission denied", "invalid token")
	}
	switch path {
	case "auth/token/lookup-self":
		return http.StatusOK, object{"data": object{"ttl": t.left(), "renewable": t.TTL > 0}}
	case "auth/token/renew-self":
		if t.TTL == 0 {
			return failed(http.StatusBadRequest, "lease is not renewable")
		}
		t.renew()
		return http.StatusOK, auth(name, t)
	}
	if len(t.Paths) > 0 && !slices.Contains(t.Paths, path) {
		return failed(http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	}
	return s.read(path, r.Method, body)
}

func auth(name string, t *token) any {
	return object{"auth": object{"client_token": name, "lease_duration": t.left(), "renewable": t.TTL > 0}}
}

// login signs a service account in. That a real server asks Kubernetes whether the token is genuine is left out.
func (s *Server) login(mount string, body object) (int, any) {
	if mount != "auth/cluster" {
		return failed(http.StatusForbidden, "permission denied") // as for every path that may not be known about
	}
	role, found := s.roles[fmt.Sprint(body["role"])]
	if !found {
		return failed(http.StatusBadRequest, fmt.Sprintf("invalid role name %q", body["role"]))
	}
	parts := strings.Split(fmt.Sprint(body["jwt"]), ".")
	var claims struct {
		Subject string `json:"sub"`
	}
	if len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(payload, &claims)
	}
	if claims.Subject != "system:serviceaccount:"+role.Account {
		return failed(http.StatusForbidden, "service account name not authorized")
	}
	s.logins++
	name := "c4n4ry-login-" + strconv.Itoa(s.logins)
	return http.StatusOK, auth(name, s.add(name, role.Token))
}

func (s *Server) read(path, method string, body object) (int, any) {
	engine, rest, _ := strings.Cut(path, "/")
	data, found := s.secrets[path]
	switch engine {
	case "pki":
		return s.issue(rest, method, body)
	case "secret":
		switch {
		case !strings.HasPrefix(rest, "data/"):
			return http.StatusNotFound, object{"warnings": []string{
				"Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use."}}
		case found && data == nil:
			return http.StatusNotFound, object{"data": object{"data": nil, "metadata": object{"deletion_time": "2026-01-01"}}}
		case found:
			return http.StatusOK, object{"data": object{"data": data, "metadata": object{"version": 1}}}
		}
	case "kv":
		if found {
			return http.StatusOK, object{"data": data, "lease_duration": 2764800}
		}
	case "database":
		s.issued++
		return http.StatusOK, object{"lease_id": path + "/" + strconv.Itoa(s.issued), "lease_duration": 3600,
			"data": object{"password": "c4n4ry-" + strconv.Itoa(s.issued)}}
	default:
		return failed(http.StatusNotFound, fmt.Sprintf("no handler for route %q. route entry not found.", path))
	}
	return failed(http.StatusNotFound)
}

// issue makes what has the form of a certificate.
func (s *Server) issue(path, method string, body object) (int, any) {
	name, _ := body["common_name"].(string)
	switch {
	case method != http.MethodPut && method != http.MethodPost:
		return failed(http.StatusMethodNotAllowed, "unsupported operation")
	case path != "issue/client":
		return failed(http.StatusBadRequest, "unknown role: "+strings.TrimPrefix(path, "issue/"))
	case !strings.HasSuffix(name, ".example.org"):
		return failed(http.StatusBadRequest, "common name "+name+" not allowed by this role")
	}
	life, err := time.ParseDuration(fmt.Sprint(body["ttl"]))
	if err != nil {
		return failed(http.StatusBadRequest, "no ttl")
	}
	s.issued++
	serial := strconv.Itoa(s.issued)
	return http.StatusOK, object{"data": object{
		"certificate": "certificate " + serial + " of " + name + " and " + fmt.Sprint(body["alt_names"]),
		"private_key": "c4n4ry key " + serial, "ca_chain": []string{"one", "two"}, "serial_number": serial,
		"expiration": time.Now().Add(life).Unix(),
	}}
}
