package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
)

func readAlerts(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(text, false, model.LegacyValidation, promParser, slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	rules := map[string]rulefmt.Rule{}
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			rules[rule.Alert] = rule
		}
	}
	return rules
}

// healthy is what is published when nothing is wrong.
func healthy(all []series) []series {
	quiet := slices.Clone(all)
	for i, s := range quiet {
		switch name := s.name(); {
		case strings.HasSuffix(name, "_errors_total"), name == "offboard_jobs_refused_total",
			name == "offboard_jobs_without_pods", name == "offboard_jobs_surplus_total",
			name == "offboard_queue_age_seconds", s.labels.Get("outcome") == "dead":
			quiet[i].value = 0
		}
	}
	return quiet
}

// with gives a value to those series of a metric that belong to the ScaledJob named mail, or to none.
func with(all []series, metric string, value float64) []series {
	changed := slices.Clone(all)
	for i, s := range changed {
		if s.name() == metric && !s.labels.Has("scaledObject") && !strings.Contains(s.labels.String(), "thumbnail") ||
			s.name() == metric && s.labels.Get("metric") == "s0-redis-mail" {
			changed[i].value = value
		}
	}
	return changed
}

func without(all []series, metric string) []series {
	return slices.DeleteFunc(slices.Clone(all), func(s series) bool { return s.name() == metric })
}

// TestAlerts lets each alert see what it is for, and all of them a healthy operator.
func TestAlerts(t *testing.T) {
	t.Parallel()
	rules, all := readAlerts(t), published(t)
	quiet := healthy(all)
	troubles := map[string]struct {
		seen        []series
		description string // part of what is said
	}{
		"OffboardDown":             {without(quiet, "offboard_leader"), "No operator"},
		"OffboardNoLeader":         {with(quiet, "offboard_leader", 0), "offboard-system/offboard run"},
		"OffboardTriggerFailing":   {with(quiet, "keda_scaler_detail_errors_total", 2), "(redisScaler) of ScaledJob shop/mail failed about 10 times"},
		"OffboardScaledJobFailing": {with(quiet, "keda_scaled_job_errors_total", 1), "shop/mail"},
		"OffboardItemsWaitTooLong": {with(quiet, "offboard_queue_age_seconds", 1000), "shop/mail has waited for 16m 40s"},
		"OffboardJobsRefused":      {with(quiet, "offboard_jobs_refused_total", 1), "shop/mail"},
		"OffboardJobsWithoutPods":  {with(quiet, "offboard_jobs_without_pods", 3), "Pods of 3 Jobs of ScaledJob shop/mail"},
		"OffboardItemsDead":        {with(quiet, "offboard_items_settled_total", 1), "items of ScaledJob shop/mail are dead"},
		"OffboardSurplusJobs":      {with(quiet, "offboard_jobs_surplus_total", 3), "About 180 Jobs of ScaledJob shop/mail"},
		"OffboardScaleLoopLate":    {with(quiet, "keda_internal_scale_loop_latency_seconds", 7), "shop/mail is looked at 7s after"},
	}
	docs, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) != len(troubles) {
		t.Errorf("%d alerts, %d are tested", len(rules), len(troubles))
	}
	for name, rule := range rules {
		if !strings.Contains(string(docs), "| `"+name+"` |") {
			t.Errorf("%s is not in the table of docs/metrics.md", name)
		}
		if err := checkNames(all, rule.Expr); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for how, by := range scrapings {
			if fires := eval(t, by.of(quiet), rule.Expr); len(fires) > 0 {
				t.Errorf("%s: %s fires although nothing is wrong: %v", how, name, fires)
			}
			trouble := troubles[name]
			fires := eval(t, by.of(trouble.seen), rule.Expr)
			if len(fires) != 1 {
				t.Errorf("%s: %s fires %d times, want once", how, name, len(fires))
				continue
			}
			said, want := expandAlert(t, rule, fires[0]), trouble.description
			if !by.target {
				want = strings.TrimPrefix(want, "offboard-system/")
			}
			if !strings.Contains(said["description"], want) {
				t.Errorf("%s: %s says %q, want %q", how, name, said["description"], want)
			}
		}
	}
}

var labelUse = regexp.MustCompile(`\$labels\.(\w+)`)

// expandAlert makes the alert's annotations as Prometheus would, and checks what they are made from.
func expandAlert(t *testing.T, rule rulefmt.Rule, fired promql.Sample) map[string]string {
	t.Helper()
	if severity := rule.Labels["severity"]; severity != "warning" && severity != "critical" || rule.For == 0 {
		t.Errorf("%s: severity %q, for %s", rule.Alert, severity, rule.For)
	}
	if keys := slices.Sorted(maps.Keys(rule.Annotations)); !slices.Equal(keys, []string{"description", "summary"}) {
		t.Errorf("%s: annotations %q", rule.Alert, keys)
	}
	said := map[string]string{}
	values := fired.Metric.Map()
	for key, text := range rule.Annotations {
		for _, use := range labelUse.FindAllStringSubmatch(text, -1) {
			optional := use[1] == exportedNamespace || use[1] == "namespace"
			if _, has := values[use[1]]; !has && !optional {
				t.Errorf("%s: %s uses label %s, which %s lacks", rule.Alert, key, use[1], fired.Metric)
			}
		}
		expander := template.NewTemplateExpander(context.Background(),
			`{{$labels := .Labels}}{{$value := .Value}}`+text, fmt.Sprintf("%s/%s", rule.Alert, key),
			template.AlertTemplateData(values, nil, "", fired), model.Time(timestamp.FromTime(now)), nil, nil, nil)
		expanded, err := expander.Expand()
		if err != nil {
			t.Errorf("%s: %s: %v", rule.Alert, key, err)
		}
		said[key] = strings.TrimSpace(expanded)
	}
	return said
}
