package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestOperatorDocumentation holds docs/operator.md to the flags that there are, with their defaults, and to the reasons
// of events and conditions.
func TestOperatorDocumentation(t *testing.T) {
	t.Parallel()
	page := read(t, "../../docs/operator.md")
	rows := map[string]string{} // the column of the default, by the flag's name
	for _, row := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| (.*?) \\| ").FindAllStringSubmatch(page, -1) {
		rows[row[1]] = row[2]
	}
	(&app{}).operatorCommand().Flags().VisitAll(func(flag *pflag.Flag) {
		column, found := rows[flag.Name]
		delete(rows, flag.Name)
		switch noDefault := flag.DefValue == "" || flag.DefValue == "[]"; {
		case !found:
			t.Errorf("docs/operator.md has no row for --%s", flag.Name)
		case !noDefault && column != "`"+flag.DefValue+"`":
			t.Errorf("docs/operator.md says that the default of --%s is %s, but it is %s", flag.Name, column, flag.DefValue)
		}
	})
	for name := range rows {
		t.Errorf("docs/operator.md has a row for --%s, which does not exist", name)
	}
	reasons := regexp.MustCompile(`(?m)^\treason\w+ += "(\w+)"`).
		FindAllStringSubmatch(read(t, "../scaledjob/events.go"), -1)
	if len(reasons) == 0 {
		t.Error("there are no reasons in internal/scaledjob/events.go")
	}
	for _, reason := range reasons {
		if !strings.Contains(page, "`"+reason[1]+"`") {
			t.Errorf("docs/operator.md does not tell of the reason %s", reason[1])
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
