package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/auth"
	"github.com/offboard-dev/offboard/internal/local"
	"github.com/offboard-dev/offboard/internal/manifest"
	"github.com/offboard-dev/offboard/internal/trigger/all"
)

// TestAuthenticationDocumentation holds docs/authentication.md to what `offboard validate` accepts: each of its
// manifests, on one machine as well unless it says that it needs a cluster. And it names every source.
func TestAuthenticationDocumentation(t *testing.T) {
	t.Parallel()
	page := read(t, "../../docs/authentication.md")
	blocks := regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n").FindAllStringSubmatch(page, -1)
	if len(blocks) < 6 {
		t.Fatalf("there are %d manifests; want at least one for each source", len(blocks))
	}
	for i, block := range blocks {
		file := filepath.Join(t.TempDir(), "manifest.yaml")
		if err := os.WriteFile(file, []byte(block[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		if problems := manifest.ValidateForCluster(manifest.ReadFile(file), all.Types()); problems.HasErrors() {
			t.Errorf("manifest %d for a cluster: %v\n%s", i+1, problems, block[1])
		}
		here := local.Validate(manifest.ReadFile(file), all.Types())
		needsCluster := strings.HasPrefix(block[1], "# on a cluster\n")
		if here.HasErrors() != needsCluster {
			t.Errorf("manifest %d for one machine, which it is %v for: %v\n%s", i+1, !needsCluster, here, block[1])
		}
	}
	_, sources, _ := strings.Cut(auth.NotSupported, "it supports ")
	for _, source := range strings.Split(sources, ", ") {
		if !strings.Contains(page, "`"+source+"`") {
			t.Errorf("the page does not tell of %s", source)
		}
	}
}
