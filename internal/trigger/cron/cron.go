// Package cron is the trigger type cron: a fixed amount of work between the times of two cron schedules, and none
// outside. It asks nobody and is told by a timer when a time comes.
package cron

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // time zones where the machine has none, as in a container with nothing but the program

	"github.com/robfig/cron/v3"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// typeName is the trigger's type in manifests.
const typeName = "cron"

// Parameter names.
const (
	paramStart    = "start"
	paramEnd      = "end"
	paramTimezone = "timezone"
	paramReplicas = "desiredReplicas"
)

// target is how much work one Job takes: the value counts Jobs.
const target = 1

// Type returns the trigger type.
func Type() trigger.Type {
	one, metadataOnly := int64(1), []trigger.Source{trigger.FromMetadata}
	return trigger.Type{
		Name:    typeName,
		Doc:     "A fixed number of Jobs between two times that come again and again.",
		Watches: true,
		Params: []trigger.Param{
			{
				Name: paramStart, Kind: trigger.String, Sources: metadataOnly,
				Doc: "When the trigger becomes active: minute, hour, day of month, month and day of week.",
			},
			{
				Name: paramEnd, Kind: trigger.String, Sources: metadataOnly,
				Doc: "When the trigger ceases to be active, as start. It is active while the next end comes before the next start.",
			},
			{
				Name: paramTimezone, Kind: trigger.String, Sources: metadataOnly,
				Doc: "The time zone of start and end by its IANA name, for example Europe/Berlin.",
			},
			{
				Name: paramReplicas, Kind: trigger.Int, Min: &one, Sources: metadataOnly,
				Doc: "The value while the trigger is active, which is compared with a target of 1; 0 otherwise.",
			},
		},
		Example: trigger.Example{Metadata: map[string]string{
			paramTimezone: "Europe/Berlin",
			paramStart:    "0 6 * * *",
			paramEnd:      "0 20 * * *",
			paramReplicas: "10",
		}},
		Build: func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			times, findings := newPeriod(values)
			if len(findings) > 0 {
				return nil, findings[0]
			}
			return &periodTrigger{times: times, value: float64(values.Int(paramReplicas)), holds: cfg.PollingInterval}, nil
		},
		MetricName: metricName,
		Threshold:  func(trigger.Values) trigger.Threshold { return trigger.Threshold{Target: target} },
		Check: func(values trigger.Values) []trigger.ParamError {
			_, findings := newPeriod(values)
			return findings
		},
	}
}

// metricName is KEDA's name for the trigger's value.
func metricName(values trigger.Values) string {
	plain := strings.NewReplacer(" ", "", "*", "x", "/", "Sl", "?", "Qm", ",", "Cm")
	return fmt.Sprintf("%s-%s-%s-%s", typeName, values.String(paramTimezone),
		plain.Replace(values.String(paramStart)), plain.Replace(values.String(paramEnd)))
}

// period is the time between two schedules.
type period struct {
	start, end cron.Schedule
	location   *time.Location
}

// newPeriod reads the parameters; what is missing is found elsewhere.
func newPeriod(values trigger.Values) (period, []trigger.ParamError) {
	var made period
	var findings []trigger.ParamError
	fail := func(name, message string) {
		findings = append(findings, trigger.ParamError{Key: name, Value: values.String(name), Message: message})
	}
	var err error
	if made.location, err = time.LoadLocation(values.String(paramTimezone)); err != nil {
		fail(paramTimezone, "is not a time zone; give its IANA name, for example Europe/Berlin")
		made.location = time.UTC
	}
	schedule := func(name string) cron.Schedule {
		if !values.Has(name) {
			return nil
		}
		parsed, err := parse(values.String(name))
		if err != nil {
			fail(name, "is not a cron schedule: "+err.Error()+
				"; give minute, hour, day of month, month and day of week, for example 0 6 * * *")
		} else if parsed.Next(time.Now().In(made.location)).IsZero() {
			fail(name, "is a time that never comes; correct it")
		}
		return parsed
	}
	made.start, made.end = schedule(paramStart), schedule(paramEnd)
	if values.Has(paramStart) && values.String(paramStart) == values.String(paramEnd) {
		fail(paramEnd, "is the same as start; give another time")
	}
	return made, findings
}

// parse reads a schedule of five fields, before which there may be a time zone of its own, as in TZ=Asia/Tokyo.
func parse(text string) (cron.Schedule, error) {
	if strings.Contains(strings.SplitN(text, " ", 2)[0], "TZ=") && !strings.Contains(text, " ") {
		return nil, errors.New("nothing follows the time zone") // where the parser would fail with a panic
	}
	return cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(text)
}

// at tells whether the time is within the period, and when the answer may be another one. As in KEDA, only what comes
// next counts: within is who waits for an end that is not after the next start.
func (p period) at(now time.Time) (within bool, until time.Time) {
	now = now.In(p.location)
	start, end := p.start.Next(now), p.end.Next(now)
	if start.Before(end) {
		return false, start
	}
	return true, end
}

// periodTrigger measures the time.
type periodTrigger struct {
	times period
	value float64
	holds time.Duration
}

var _ trigger.Watcher = (*periodTrigger)(nil)

// Measure implements trigger.Trigger.
func (t *periodTrigger) Measure(context.Context) (trigger.Measurement, error) {
	measured := trigger.Measurement{Target: target, Holds: t.holds}
	if within, _ := t.times.at(time.Now()); within {
		measured.Value, measured.Active = t.value, true
	}
	return measured, nil
}

// Close implements trigger.Trigger.
func (t *periodTrigger) Close() {}

// Watch implements trigger.Watcher. It calls changed at once, because a time may have come since the last Measure, and
// whenever one comes.
func (t *periodTrigger) Watch(changed func()) (stop func()) {
	w := &watch{times: t.times, changed: changed}
	w.fire()
	return w.stop
}

// watch calls changed whenever a time comes.
type watch struct {
	times   period
	changed func()

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// fire tells of a change and waits for the next. Where the clock was set meanwhile, or the machine slept, it tells
// early, which does no harm, or late, by no more than measurements hold.
func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	now := time.Now()
	_, until := w.times.at(now)
	w.timer = time.AfterFunc(until.Sub(now), w.fire)
	w.changed()
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}
