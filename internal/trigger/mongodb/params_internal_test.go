package mongodb

import (
	"context"
	"errors"
	"testing"

	"github.com/offboard-dev/offboard/internal/trigger"
)

func TestConnectionStringOfReplicaSet(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"a":     "mongodb://u:p@a:27018/work",
		"a,b.c": "mongodb://u:p@a,b.c:27018/work",
		"[::1]": "mongodb://u:p@[::1]:27018/work",
	} {
		got := ""
		declared := Type(NewClients())
		declared.Build = func(_ context.Context, _ trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			got = connectionString(values)
			return nil, errors.New("not needed")
		}
		_, err := declared.New(t.Context(), trigger.Config{Metadata: map[string]string{
			"host": host, "port": "27018", "username": "u", "password": "p", "dbName": "work", "collection": "jobs",
			"query": `{"state": "waiting"}`, "queryValue": "1",
		}})
		if got != want {
			t.Errorf("host %q: %q, want %q (%v)", host, got, want, err)
		}
	}
}
