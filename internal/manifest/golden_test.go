package manifest_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/utils/ptr"

	"github.com/offboard-dev/offboard/internal/manifest"
	"github.com/offboard-dev/offboard/internal/trigger"
)

var update = flag.Bool("update", false, "write the golden files anew")

// types stand in for the real ones, so that these tests do not change with their parameters.
var types = []trigger.Type{
	{Name: "redis", Claims: true, Params: []trigger.Param{
		{Name: "address", Kind: trigger.String, Optional: true, Sources: []trigger.Source{trigger.FromMetadata}},
		{Name: "listName", Kind: trigger.String, Sources: []trigger.Source{trigger.FromMetadata}},
		{Name: "listLength", Kind: trigger.Int, Default: "5", Min: ptr.To[int64](1),
			Sources: []trigger.Source{trigger.FromMetadata}},
		{Name: "password", Kind: trigger.String, Optional: true, Secret: true, Sources: []trigger.Source{trigger.FromAuth}},
	}},
	{Name: "cron"},
}

// TestGolden compares what is said about each file in testdata with the lines in its golden file.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := manifest.Files("testdata")
	if err != nil || len(files) < 10 {
		t.Fatalf("files = %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			if err := manifest.Validate(manifest.ReadFile(file), types).Print(&got); err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(got.String(), "testdata"+string(filepath.Separator), "")
			golden := strings.TrimSuffix(file, filepath.Ext(file)) + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", text, want)
			}
		})
	}
}
