package postgresqlqueue_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/queue/postgresqlqueue"
	"github.com/offboard-dev/offboard/internal/servertest/postgrestest"
)

// testNames reads names as the server does.
func testNames(t *testing.T, server *postgrestest.Server) {
	conn := server.Connect()
	for _, text := range []string{
		"jobs", "Jobs", "_a$1", "shop.jobs", `"My Jobs"`, `shop."x""y"`, `"a.b".C`, "größe", `"'; DROP TABLE a; --"`, "ÄB",
	} {
		var want []string
		if err := conn.QueryRow(t.Context(), "SELECT parse_ident($1)", text).Scan(&want); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got, err := postgresqlqueue.ParseName(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", ".", "a.", ".a", "a b", "1a", "$a", `"a`, `""`, `a"b"`, `"a"b`, "a-b", "a;b", "a\x00", "\"a\x00\"", strings.Repeat("a", 64),
	} {
		if got, err := postgresqlqueue.ParseName(text); err == nil {
			t.Errorf("%q: got %q, want an error", text, got)
		}
	}
}

// FuzzParseName gives names that may be anything: what is accepted, in quotes, means the same again.
func FuzzParseName(f *testing.F) {
	for _, text := range []string{"jobs", `shop."x""y"`, `"a.b".C`, "a..b", `"`, `""""`, "ü$1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, err := postgresqlqueue.ParseName(text)
		if err != nil {
			return
		}
		quoted := name.Sanitize()
		if again, err := postgresqlqueue.ParseName(quoted); err != nil || !slices.Equal(again, name) {
			t.Errorf("%q is %q, which is %q, %v", text, name, again, err)
		}
	})
}
