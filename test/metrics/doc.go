// Package metrics tests the dashboard and the alert rules of the chart with Prometheus's own parsers and its own query
// engine, against what the operator publishes (internal/metrics/testdata/published.txt, which a test there keeps
// current). It is a module of its own because Prometheus brings many modules that Offboard does not need.
//
// Run it with go test -count=1: Go would not notice that files outside of this module have changed, and answer with the
// result of the last run.
package metrics
