package httpget_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/httpget"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config = map[string]string

// document is a trigger that keeps its client.
type document struct {
	*httpget.Client
}

func (document) Measure(context.Context) (trigger.Measurement, error) {
	return trigger.Measurement{}, nil
}

// sample is a type that has what this package declares.
func sample(clients *httpget.Clients) trigger.Type {
	metadata := []trigger.Source{trigger.FromMetadata}
	return trigger.Type{
		Name: "sample",
		Params: append(httpget.AuthParams(),
			trigger.Param{Name: "url", Kind: trigger.String, Optional: true, Sources: metadata},
			trigger.Param{Name: "unsafeSsl", Kind: trigger.Bool, Optional: true, Sources: metadata},
			trigger.Param{Name: "timeout", Kind: trigger.Duration, Optional: true, Sources: metadata}),
		Check: httpget.Check,
		Build: func(_ context.Context, _ trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			client, err := clients.Open(values)
			if err != nil {
				return nil, err
			}
			return document{client}, nil
		},
	}
}

// open returns a client; a request may take long unless the metadata says otherwise.
func open(t testing.TB, clients *httpget.Clients, metadata, auth config) *httpget.Client {
	t.Helper()
	metadata = maps.Clone(metadata)
	if metadata == nil {
		metadata = config{}
	}
	if metadata["timeout"] == "" {
		metadata["timeout"] = "1m"
	}
	made, err := sample(clients).New(t.Context(), trigger.Config{Metadata: metadata, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made.(document).Client
}

func serve(t testing.TB, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func parse(t testing.TB, text string) *url.URL {
	t.Helper()
	address, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func TestAuthenticates(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		_, _ = fmt.Fprintf(w, "%s|%s:%s|%s|%s|%s|%s", r.Header.Get("Authorization"), user, password,
			r.Header.Get("X-Api-Key"), r.Header.Get("X-Own"), r.URL.RawQuery, r.Header.Get("X-Tenant"))
	})
	for _, test := range []struct {
		name           string
		metadata, auth config
		want           string
	}{
		{"nothing", nil, config{"username": "u", "bearerToken": "t", "apiKey": "k"}, "|:|||a=b|x"},
		{"basic", nil, config{"authModes": "basic", "username": "u", "password": "p"}, "Basic dTpw|u:p|||a=b|x"},
		{"basic without password", config{"authMode": "basic"}, config{"username": "u"}, "Basic dTo=|u:|||a=b|x"},
		{"bearer", config{"authModes": "bearer"}, config{"bearerToken": "t"}, "Bearer t|:|||a=b|x"},
		{"token", config{"authModes": "bearer"}, config{"token": "t"}, "Bearer t|:|||a=b|x"},
		{"key in a header", config{"authModes": "apiKey"}, config{"apiKey": "k"}, "|:|k||a=b|x"},
		{"key in a named header", config{"authModes": "apiKey", "keyParamName": "x-own"}, config{"apiKey": "k"}, "|:||k|a=b|x"},
		{"key in the query", config{"authModes": "apiKey", "method": "query"}, config{"apiKey": "k&"},
			"|:|||a=b&api_key=k%26|x"},
		{"key in a named parameter", config{"authModes": "apiKey", "method": "query", "keyParamName": "a", "apiKey": "k"}, nil,
			"|:|||a=k|x"},
		{"custom", config{"authModes": "custom"}, config{"customAuthHeader": "X-Own", "customAuthValue": "v"}, "|:||v|a=b|x"},
		{"several", config{"authModes": "apiKey, basic,custom"}, config{
			"username": "u", "password": "p", "apiKey": "k", "customAuthHeader": "X-Own", "customAuthValue": "v",
		}, "Basic dTpw|u:p|k|v|a=b|x"},
		{"bearer wins over a custom header", config{"authModes": "custom,bearer"}, config{
			"bearerToken": "t", "customAuthHeader": "Authorization", "customAuthValue": "v",
		}, "Bearer t|:|||a=b|x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := open(t, httpget.NewClients(), test.metadata, test.auth)
			got, err := client.Get(t.Context(), parse(t, server.URL+"/d?a=b"), http.Header{"x-tenant": {"x"}})
			if err != nil || string(got) != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestRefusesContradictions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		metadata, auth config
		want           string
	}{
		{config{"authModes": "bearer"}, nil, "bearerToken: is required by authModes bearer"},
		{config{"authMode": "basic"}, nil, "username: is required by authMode basic"},
		{config{"authModes": "tls"}, config{"cert": "c"}, "key: is required by authModes tls"},
		{config{"authModes": "custom"}, config{"customAuthHeader": "c"}, "customAuthValue: is required by authModes custom"},
		{config{"authModes": "apiKey"}, nil, "apiKey: is required by authModes apiKey"},
		{config{"authModes": "bearer,basic"}, nil, "holds more than one of bearer, basic, oauth"},
		{config{"authModes": "kerberos"}, nil, "is not allowed"},
		{config{"method": "post"}, nil, `method "post": is not allowed; give header or query`},
		{config{"authModes": "tls"}, config{"cert": "canary", "key": "canary"}, "key: is not PEM"},
		{nil, config{"ca": "canary"}, "ca: holds no certificate"},
		{config{"timeout": "soon"}, nil, `timeout "soon": is not a length of time`},
	} {
		_, err := sample(httpget.NewClients()).New(t.Context(), trigger.Config{Metadata: test.metadata, Auth: test.auth})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v: error %v, want %q", test.metadata, err, test.want)
		}
	}
	warnings := sample(nil).Validate(config{"authModes": "oauth"}, true)
	if len(warnings) != 1 || !warnings[0].Warning || !strings.Contains(warnings[0].Message, "no effect") {
		t.Errorf("oauth: %v, want a warning", warnings)
	}
	// What a TriggerAuthentication may give is not missing.
	if findings := sample(nil).Validate(config{"authModes": "basic,tls,custom,apiKey"}, true); len(findings) != 0 {
		t.Errorf("findings %v, want none", findings)
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for text, valid := range map[string]bool{
		"http://h": true, "https://h:1/p?q=1": true, "http://u:p@h": true, "http://[::1]:9090": true,
		"h:9090": false, "ftp://h": false, "http://": false, "http://:80": false, "http://h:x": false, "": false,
		"ftp://u:canary@h": false,
	} {
		declared := sample(nil)
		declared.Check = func(values trigger.Values) []trigger.ParamError {
			address, finding := httpget.URL(values, "url")
			if (finding == nil) != valid || (address != nil) != valid {
				t.Errorf("%q: %v, %v; valid should be %t", text, address, finding, valid)
			}
			if finding != nil && strings.Contains(finding.Error(), "canary") {
				t.Errorf("%q: error %v shows a password", text, finding)
			}
			return nil
		}
		declared.Validate(config{"url": text}, false)
	}
}

func TestErrorsSayWhatIsWrongAndNoSecret(t *testing.T) {
	t.Parallel()
	echo := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/malformed":
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			_, _ = fmt.Fprintf(conn, "%s %s %s\r\n\r\n", r.Header.Get("X-Api-Key"), r.URL.RawQuery, strings.Repeat("x", 9999))
		case "/redirects":
			http.Redirect(w, r, "/redirects?api_key=canary", http.StatusFound)
		case "/large":
			for range 33 {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		case "/401":
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprint(w, r.URL.RawQuery)
		case "/403":
			w.WriteHeader(http.StatusForbidden)
		case "/404":
			w.WriteHeader(http.StatusNotFound)
		case "/299":
			w.WriteHeader(299)
		case "/599":
			w.WriteHeader(599)
		}
	})
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	key := config{"apiKey": "canary"}
	header := open(t, httpget.NewClients(), config{"authModes": "apiKey"}, key)
	query := open(t, httpget.NewClients(), config{"authModes": "apiKey", "method": "query"}, key)
	for address, want := range map[string]string{
		echo.URL + "/malformed": "malformed HTTP",
		echo.URL + "/redirects": "redirects more than 10 times",
		echo.URL + "/large":     "sends more than 32 MiB",
		echo.URL + "/401":       "/401 answers with status 401 Unauthorized; correct authModes",
		echo.URL + "/403":       "answers with status 403 Forbidden; allow",
		echo.URL + "/404":       "answers with status 404 Not Found; correct the path",
		echo.URL + "/599":       "answers with status 599",
		echo.URL + "/299":       "",
		closed.URL + "/":        "is not reachable",
		secure.URL + "/":        "shows a certificate of an unknown authority; give ca",
		"https" + strings.TrimPrefix(echo.URL, "http"): "speaks no TLS on this port; give an address that begins with http://",
		"http://name.invalid/":                         "has a name that is not found",
	} {
		for _, client := range []*httpget.Client{header, query} {
			_, err := client.Get(t.Context(), parse(t, address), nil)
			if want == "" {
				if err != nil {
					t.Errorf("%s: %v, want no error", address, err)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), parse(t, address).Host) {
				t.Errorf("%s: error %v, want %q", address, err, want)
				continue
			}
			if strings.Contains(err.Error(), "canary") || len(err.Error()) > 400 {
				t.Errorf("%s: error %v shows a secret or too much", address, err)
			}
		}
	}
	var status httpget.StatusError
	if _, err := query.Get(t.Context(), parse(t, echo.URL+"/401"), nil); !errors.As(err, &status) || status.Code != 401 {
		t.Errorf("error %v, want a StatusError of 401", err)
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	client := open(t, httpget.NewClients(), config{"authModes": "basic"}, config{"username": "u", "password": "canary"})
	for text, want := range map[string]string{
		"one\nline\x00":                "one line ",
		"canary Basic dTpjYW5hcnk=":    "… Basic …",
		strings.Repeat("ü", 101):       strings.Repeat("ü", 100) + "…",
		"x" + strings.Repeat("ü", 100): "x" + strings.Repeat("ü", 99) + "…",
	} {
		if got := client.Show(text); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestShowsAnotherServerNothing(t *testing.T) {
	t.Parallel()
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%q", r.Header)
	})
	first := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusFound)
	})
	client := open(t, httpget.NewClients(), config{"authModes": "apiKey,basic,custom"}, config{
		"apiKey": "canary", "username": "canary", "customAuthHeader": "X-Own", "customAuthValue": "canary",
	})
	got, err := client.Get(t.Context(), parse(t, first.URL+"/?canary=canary"), http.Header{"X-More": {"canary"}})
	if err != nil || strings.Contains(string(got), "canary") || strings.Contains(string(got), "Basic") {
		t.Errorf("the other server was shown %s, %v", got, err)
	}
	// On the same server they go along.
	same := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/there", http.StatusFound)
			return
		}
		_, _ = fmt.Fprint(w, r.Header.Get("X-Own"))
	})
	if got, err := client.Get(t.Context(), parse(t, same.URL+"/"), nil); err != nil || string(got) != "canary" {
		t.Errorf("the same server was shown %q, %v", got, err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certs := servertest.NewCerts(t, t.TempDir())
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, len(r.TLS.PeerCertificates))
	}))
	server.TLS = certs.ServerConfig(t)
	server.StartTLS()
	t.Cleanup(server.Close)
	client := config{"ca": certs.CA, "cert": certs.ClientCert, "key": certs.ClientKey}
	for _, test := range []struct {
		metadata, auth config
		want           string
	}{
		{config{"authModes": "tls"}, client, "1"},
		{config{"authModes": "tls", "unsafeSsl": "true"}, config{"cert": certs.ClientCert, "key": certs.ClientKey}, "1"},
		{nil, client, "0"}, // without authModes tls the certificate is not shown, but the authority is trusted
		{config{"unsafeSsl": "true"}, nil, "0"},
		{nil, nil, "error"},
	} {
		got, err := open(t, httpget.NewClients(), test.metadata, test.auth).Get(t.Context(), parse(t, server.URL), nil)
		if err != nil {
			got = []byte("error")
		}
		if string(got) != test.want {
			t.Errorf("%v: got %s, %v; want %s", test.metadata, got, err, test.want)
		}
	}
}

func TestEqualSettingsShareConnections(t *testing.T) {
	t.Parallel()
	server := serve(t, func(http.ResponseWriter, *http.Request) {})
	proxy := servertest.StartProxy(t, parse(t, server.URL).Host)
	address := parse(t, "http://"+proxy.Addr())
	clients := httpget.NewClients()
	get := func(client *httpget.Client) {
		t.Helper()
		if _, err := client.Get(t.Context(), address, nil); err != nil {
			t.Error(err)
		}
	}
	var all []*httpget.Client
	for i := range 100 {
		all = append(all, open(t, clients, config{"authModes": "bearer"}, config{"token": fmt.Sprint(i)}))
		get(all[i])
	}
	if proxy.Opened() != 1 {
		t.Errorf("100 clients made %d connections, want 1", proxy.Opened())
	}
	get(open(t, clients, config{"unsafeSsl": "true"}, nil))
	if proxy.Opened() != 2 {
		t.Errorf("a client with other TLS settings: %d connections, want 2", proxy.Opened())
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); ended <- struct{}{} })
	client := open(t, httpget.NewClients(), config{"timeout": "50"}, nil)
	_, err := client.Get(t.Context(), parse(t, server.URL), nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "does not answer in time") {
		t.Errorf("error %v", err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("the request goes on")
	}
}
