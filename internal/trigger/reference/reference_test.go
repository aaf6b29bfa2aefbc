package reference_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/reference"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample has a parameter of every sort.
func sample() trigger.Type {
	metadata, env, auth := trigger.FromMetadata, trigger.FromEnv, trigger.FromAuth
	one := int64(1)
	return trigger.Type{
		Name: "sample", Doc: "How much there is | of something.", Watches: true, OtherKeys: true,
		Params: []trigger.Param{
			{Name: "size", Kind: trigger.Int, Default: "5", Min: &one, Sources: []trigger.Source{metadata}, Doc: "How many."},
			{Name: "name", Kind: trigger.String, Sources: []trigger.Source{metadata, env}, Doc: "Which."},
			{Name: "level", Kind: trigger.Float, Optional: true, Positive: true, Sources: []trigger.Source{metadata},
				Doc: "How high."},
			{Name: "host", Aliases: []string{"hosts"}, Kind: trigger.List, Group: "connection",
				Sources: []trigger.Source{auth, env, metadata}, Doc: "Where."},
			{Name: "password", Kind: trigger.String, Secret: true, Group: "connection", Sources: []trigger.Source{auth},
				Doc: "How to get in."},
			{Name: "modes", Kind: trigger.List, Optional: true, Allowed: []string{"a", "b", "c"}, Exclusive: []string{"b", "c"},
				Sources: []trigger.Source{metadata}, Doc: "In which ways."},
			{Name: "tls", Kind: trigger.String, Default: "disable", Allowed: []string{"enable", "disable"},
				Sources: []trigger.Source{auth}, Doc: "Whether to be safe."},
		},
		Example: trigger.Example{
			Metadata: map[string]string{"size": "1", "own": "yes", "host": "a.example", "nameFromEnv": "NAME", "level": "text:\n  more\n"},
			Auth:     map[string]string{"tls": "enable", "password": "*#'\""},
		},
	}
}

func TestPagesGolden(t *testing.T) {
	t.Parallel()
	plain := trigger.Type{Name: "plain", Doc: "Something.", Claims: true, Example: trigger.Example{
		Metadata: map[string]string{"b": "2", "a": "1"},
	}}
	pages, err := reference.Pages([]trigger.Type{sample(), plain})
	if err != nil || len(pages) != 3 {
		t.Fatalf("got %d pages, %v, want 3", len(pages), err)
	}
	for name, got := range pages {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("got\n%s\nwant, from %s,\n%s", got, file, want)
		}
	}
}

func TestEveryKindIsExplained(t *testing.T) {
	t.Parallel()
	for _, kind := range []trigger.Kind{
		trigger.String, trigger.Int, trigger.Float, trigger.Bool, trigger.List, trigger.Duration, trigger.Map, trigger.Query,
		trigger.Numbers,
	} {
		if reference.KindDoc(kind) == "" {
			t.Errorf("kind %s is not explained", kind)
		}
	}
	if got := reference.KindDoc("none"); got != "" {
		t.Errorf("a kind that does not exist is explained as %q", got)
	}
}
