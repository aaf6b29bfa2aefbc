package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// The files that are tested, and what they are tested against.
const (
	publishedFile = "../../internal/metrics/testdata/published.txt"
	dashboardFile = "../../charts/offboard/dashboards/offboard.json"
	alertsFile    = "../../charts/offboard/alerts/offboard.yaml"
	docsFile      = "../../docs/metrics.md"
)

// What Prometheus itself adds to the labels of a series: the target's, and the new name of a label that the target has
// too.
var targetLabels = []string{"job", "instance", "namespace", "pod"}

const exportedNamespace = "exported_namespace"

var promParser = parser.NewParser(parser.Options{})

// series is one that the operator publishes.
type series struct {
	labels  labels.Labels
	value   float64
	counter bool // grows; so do the parts of a histogram
}

func (s series) name() string { return s.labels.Get(model.MetricNameLabel) }

// published reads what the operator publishes as a scrape would.
func published(t *testing.T) (all []series) {
	t.Helper()
	text, err := os.ReadFile(publishedFile)
	if err != nil {
		t.Fatal(err)
	}
	scrape := textparse.NewPromParser(text, labels.NewSymbolTable(), false)
	counts := map[string]bool{}
	for {
		entry, err := scrape.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		switch entry {
		case textparse.EntryType:
			name, kind := scrape.Type()
			counts[string(name)] = kind == "counter"
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				counts[string(name)+suffix] = kind == "histogram"
			}
		case textparse.EntrySeries:
			_, _, value := scrape.Series()
			s := series{value: value}
			scrape.Labels(&s.labels)
			s.counter = counts[s.name()]
			all = append(all, s)
		}
	}
}

// scraping is how a Prometheus names the namespace of a ScaledJob.
type scraping struct {
	// target tells whether targets have a label namespace of their own, as the Prometheus Operator gives them, and
	// honor whether a series keeps its own label beside that.
	target, honor bool
}

// scrapings are all that there are.
var scrapings = map[string]scraping{
	"a Prometheus by itself":                          {},
	"the Prometheus Operator":                         {target: true},
	"the Prometheus Operator, with honorLabels: true": {target: true, honor: true},
}

// namespaceLabel is the label with a ScaledJob's namespace.
func (s scraping) namespaceLabel() string {
	if s.target && !s.honor {
		return exportedNamespace
	}
	return "namespace"
}

// of adds the labels of the target.
func (s scraping) of(all []series) []series {
	out := slices.Clone(all)
	for i, one := range out {
		builder := labels.NewBuilder(one.labels)
		builder.Set("job", "offboard").Set("instance", "10.0.0.1:8080").Set("pod", "offboard-1")
		own := one.labels.Get("namespace")
		if s.target && (own == "" || !s.honor) {
			builder.Set("namespace", "offboard-system")
			if own != "" {
				builder.Set(exportedNamespace, own)
			}
		}
		out[i].labels = builder.Labels()
	}
	return out
}

// history is two hours of the series up to now: one sample every 30 s, where a counter grows by its value each minute.
type history []series

var now = time.Unix(1_800_000_000, 0)

func (h history) Querier(_, _ int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: h.find}, nil
}

func (h history) find(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found := &set{}
	for _, s := range h {
		matches := func(m *labels.Matcher) bool { return m.Matches(s.labels.Get(m.Name)) }
		if slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !matches(m) }) {
			continue
		}
		recorded := promql.Series{Metric: s.labels}
		for ago := 2 * time.Hour; ago >= 0; ago -= 30 * time.Second {
			value := s.value
			if s.counter {
				value *= (2*time.Hour - ago).Minutes()
			}
			recorded.Floats = append(recorded.Floats, promql.FPoint{T: timestamp.FromTime(now.Add(-ago)), F: value})
		}
		found.series = append(found.series, promql.NewStorageSeries(recorded))
	}
	return found
}

// set walks through the series that were found.
type set struct {
	series []storage.Series
	at     storage.Series
}

func (s *set) Next() bool {
	if len(s.series) == 0 {
		return false
	}
	s.at, s.series = s.series[0], s.series[1:]
	return true
}

func (s *set) At() storage.Series              { return s.at }
func (*set) Err() error                        { return nil }
func (*set) Warnings() annotations.Annotations { return nil }

// eval evaluates an expression at the end of the history.
func eval(t *testing.T, h history, expr string) promql.Vector {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: promParser})
	defer engine.Close()
	query, err := engine.NewInstantQuery(context.Background(), h, nil, expr, now)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer query.Close()
	result := query.Exec(context.Background())
	vector, err := result.Vector()
	if err != nil || len(result.Warnings) > 0 {
		t.Fatalf("%s: %v %v", expr, err, result.Warnings)
	}
	return slices.Clone(vector)
}

// checkNames holds every name of a metric and of a label in an expression against what is published.
func checkNames(all []series, expr string) error {
	parsed, err := promParser.ParseExpr(expr)
	if err != nil {
		return err
	}
	var problems []error
	var known []string // labels of the selectors below the node
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			own := labelsOf(all, selector.Name)
			if own == nil {
				problems = append(problems, fmt.Errorf("%s is not published", selector.Name))
			}
			for _, m := range selector.LabelMatchers {
				if m.Name != model.MetricNameLabel && !slices.Contains(own, m.Name) {
					problems = append(problems, fmt.Errorf("%s has no label %s", selector.Name, m.Name))
				}
			}
			known = append(known, own...)
		}
		return nil
	})
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		var used []string
		switch node := node.(type) {
		case *parser.AggregateExpr:
			used = node.Grouping
		case *parser.BinaryExpr:
			if node.VectorMatching != nil {
				used = append(slices.Clone(node.VectorMatching.MatchingLabels), node.VectorMatching.Include...)
			}
		}
		for _, label := range used {
			if !slices.Contains(known, label) {
				problems = append(problems, fmt.Errorf("no series of the expression has a label %s", label))
			}
		}
		return nil
	})
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("%s: %w", expr, err)
	}
	return nil
}

// labelsOf are the names of the labels of a metric after a scrape; nil when it is not published.
func labelsOf(all []series, metric string) (names []string) {
	for _, s := range all {
		if s.name() != metric {
			continue
		}
		names = append(names, targetLabels...)
		s.labels.Range(func(l labels.Label) { names = append(names, l.Name) })
		if s.labels.Has("namespace") {
			names = append(names, exportedNamespace)
		}
	}
	return names
}

func TestCheckNames(t *testing.T) {
	t.Parallel()
	all := published(t)
	for expr, want := range map[string]string{
		`offboard_queue_length{scaledjob="mail"}`:                      "",
		`sum by (exported_namespace, job) (offboard_queue_length)`:     "",
		`offboard_queue_len`:                                           "is not published",
		`offboard_queue_length{scaledJob="mail"}`:                      "no label scaledJob",
		`sum by (scaledObject) (offboard_queue_length)`:                "label scaledObject",
		`offboard_queue_length and on (colour) offboard_jobs_running`:  "label colour",
		`sum by (exported_namespace) (offboard_leader)`:                "label exported_namespace",
		`rate(offboard_jobs_created_total)`:                            "expected type range vector",
		`sum by (le) (rate(offboard_reaction_seconds_bucket[5m]))`:     "",
		`rate(offboard_reaction_seconds[5m])`:                          "is not published",
		`increase(keda_scaler_detail_errors_total{scaledJob="x"}[5m])`: "no label scaledJob",
	} {
		err := checkNames(all, expr)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", expr, err, want)
		}
	}
}
