package cli

import (
	"regexp"
	"strings"
	"testing"
)

// TestSeveralTriggersDocumentation validates the manifests of docs/several-triggers.md and runs its commands.
func TestSeveralTriggersDocumentation(t *testing.T) {
	t.Parallel()
	page := read(t, "../../docs/several-triggers.md")
	manifests := regexp.MustCompile("(?s)```yaml\n(apiVersion.*?)```").FindAllStringSubmatch(page, -1)
	if len(manifests) < 4 {
		t.Errorf("the page has %d manifests, want at least 4", len(manifests))
	}
	for _, m := range manifests {
		validateExample(t, "docs/several-triggers.md", m[1])
	}
	commands := regexp.MustCompile(`(?m)^\$ echo '(.*)' \| offboard decide\n(.*\n)`).FindAllStringSubmatch(page, -1)
	if len(commands) != 2 {
		t.Errorf("the page runs offboard decide %d times, want 2", len(commands))
	}
	for _, c := range commands {
		if got := execute(t, "", c[1]+"\n", "decide"); got.code != exitOK || got.out != c[2] {
			t.Errorf("%s: got %+v, want %s", c[1], got, c[2])
		}
	}
	typo := strings.Replace(manifests[2][1], "bulk / 10", "bluk / 10", 1)
	if got := execute(t, "", typo, "validate", "-"); !strings.Contains(got.out, "unknown name bluk; did you mean bulk?") {
		t.Errorf("a misspelt trigger: got %+v", got)
	}
}
