package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what is looked at of Grafana's format.
type dashboard struct {
	UID           string
	Title         string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name       string
			Type       string
			Definition string
			Options    []struct{ Value string }
		}
	}
	Panels []panel
}

type panel struct {
	ID          int
	Type        string
	Title       string
	Description string
	Datasource  struct{ Type, UID string }
	GridPos     struct{ H, W, X, Y int }
	FieldConfig struct {
		Defaults struct{ Unit string }
	}
	Targets []struct {
		RefID        string
		Expr         string
		LegendFormat string
		Datasource   struct{ Type, UID string }
	}
}

func readDashboard(t *testing.T) (board dashboard) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	return board
}

var (
	variable = regexp.MustCompile(`\$(\w+)|\$\{(\w+)\}`)
	legend   = regexp.MustCompile(`\{\{\s*([^{}\s]+)\s*\}\}`)
)

// variables are those of the dashboard as they stand when it is opened, with the given label for namespaces.
func variables(namespaceLabel string) map[string]string {
	return map[string]string{
		"datasource": "prometheus", "namespace_label": namespaceLabel, "namespace": ".*", "scaledjob": ".*",
		"__rate_interval": "2m",
	}
}

// expand replaces variables as Grafana does.
func expand(t *testing.T, text string, values map[string]string) string {
	t.Helper()
	return variable.ReplaceAllStringFunc(text, func(use string) string {
		value, known := values[strings.Trim(use, "${}")]
		if !known {
			t.Errorf("%s: variable %s is not declared", text, use)
		}
		return value
	})
}

func TestDashboardQueries(t *testing.T) {
	t.Parallel()
	board, all := readDashboard(t), published(t)
	for how, by := range scrapings {
		values, recorded := variables(by.namespaceLabel()), history(by.of(all))
		for _, p := range board.Panels {
			for _, target := range p.Targets {
				expr := expand(t, target.Expr, values)
				if err := checkNames(all, expr); err != nil {
					t.Errorf("panel %q: %v", p.Title, err)
					continue
				}
				result := eval(t, recorded, expr)
				if len(result) == 0 {
					t.Errorf("%s: panel %q shows nothing: %s", how, p.Title, expr)
				}
				for _, used := range legend.FindAllStringSubmatch(expand(t, target.LegendFormat, values), -1) {
					for _, sample := range result {
						if !sample.Metric.Has(used[1]) {
							t.Errorf("panel %q: the legend uses label %s, which %s lacks", p.Title, used[1], sample.Metric)
						}
					}
				}
			}
		}
	}
}

func TestDashboardVariables(t *testing.T) {
	t.Parallel()
	board, all := readDashboard(t), published(t)
	query := regexp.MustCompile(`^label_values\((.+), (\S+)\)$`)
	var names []string
	for _, v := range board.Templating.List {
		names = append(names, v.Name)
		if v.Type != "query" {
			continue
		}
		for _, namespaceLabel := range []string{"namespace", exportedNamespace} {
			values := variables(namespaceLabel)
			parts := query.FindStringSubmatch(expand(t, v.Definition, values))
			if parts == nil {
				t.Errorf("variable %s: %q is no label_values query", v.Name, v.Definition)
				continue
			}
			expr := fmt.Sprintf("count by (%s) (%s)", parts[2], parts[1])
			if err := checkNames(all, expr); err != nil {
				t.Errorf("variable %s: %v", v.Name, err)
			}
		}
	}
	want := []string{"datasource", "namespace_label", "namespace", "scaledjob"}
	if !slices.Equal(names, want) {
		t.Errorf("variables %q, want %q", names, want)
	}
}

func TestDashboardLayout(t *testing.T) {
	t.Parallel()
	board := readDashboard(t)
	if board.UID == "" || board.Title != "Offboard" || board.SchemaVersion < 41 {
		t.Errorf("uid %q, title %q, schemaVersion %d", board.UID, board.Title, board.SchemaVersion)
	}
	ids, places := map[int]string{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if other, used := ids[p.ID]; used {
			t.Errorf("panels %q and %q have the same id", p.Title, other)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, used := places[[2]int{x, y}]; used || x >= 24 {
					t.Fatalf("panel %q overlaps %q or is too wide", p.Title, other)
				}
				places[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("panel %q lacks a title, a description, a unit or a query", p.Title)
		}
		for _, target := range p.Targets {
			if p.Datasource.UID != "${datasource}" || target.Datasource.UID != "${datasource}" {
				t.Errorf("panel %q is bound to a data source", p.Title)
			}
		}
	}
}
