package cli

import (
	"bufio"
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/json"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/composite"
	"github.com/offboard-dev/offboard/internal/scaling"
)

func (a *app) decideCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "decide",
		Short: "Say how many Jobs would be created, and why",
		Long: `Read situations from standard input, one JSON object a line, and print for each how many Jobs Offboard would
create then, and why.

A situation has the fields of a ScaledJob that matter (strategy, customScalingQueueLengthDeduction,
customScalingRunningJobPercentage, multipleScalersCalculation, minReplicaCount, maxReplicaCount), the unfinished Jobs
("running", of which "pending"), and the measurements of the triggers ("value", "target" per Job, "active"). A field
"create" is ignored, so that recorded decisions can be replayed.

For several triggers it may also have "fallback" and "advanced", as in a ScaledJob, with the triggers' "name", how many
times in a row one could not be measured ("failures"), and how many Jobs were unfinished when all of them last were
("runningBefore").

A line that is wrong is reported with its number and the field, the others are answered, and the exit code is 2.

` + exitHelp,
		Example: `  echo '{"strategy": "accurate", "maxReplicaCount": 25, "running": 3, "pending": 1,
    "triggers": [{"value": 6, "target": 1, "active": true}]}' | tr -d '\n' | offboard decide
  offboard decide < situations.jsonl`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return a.decide() },
	}
}

// situation is one line of the input.
type situation struct {
	scaling.Rule
	scaling.State
	// Triggers are in place of the state's readings.
	Triggers []situationTrigger `json:"triggers"`
	Fallback *v1alpha1.Fallback `json:"fallback,omitempty"`
	Advanced *v1alpha1.Advanced `json:"advanced,omitempty"`
	// RunningBefore is how many Jobs were unfinished when all triggers were last measured; nil means as many as now.
	RunningBefore *int64 `json:"runningBefore,omitempty"`
	// Create is what somebody else has decided.
	Create *int64 `json:"create,omitempty"`
}

// situationTrigger is one trigger of a situation.
type situationTrigger struct {
	scaling.Reading
	Name string `json:"name,omitempty"`
	// Failures is how many times in a row the trigger could not be measured, now included; above 0 the reading is ignored.
	Failures int64 `json:"failures,omitempty"`
}

func (a *app) decide() error {
	in, out := bufio.NewReaderSize(a.In, 64<<10), bufio.NewWriter(a.Out)
	wrong := false
	for number := 1; ; number++ {
		line, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(fmt.Errorf("read standard input, line %d: %w", number, err), out.Flush())
		}
		if text := bytes.TrimSpace(line); len(text) > 0 {
			if err := decideLine(out, text); err != nil {
				wrong = true
				// Answers and errors keep their order where both are seen.
				if err := out.Flush(); err != nil {
					return err
				}
				message := strings.ReplaceAll(err.Error(), "\n", "; ")
				_, _ = fmt.Fprintf(a.Err, "offboard: line %d: %s\n", number, printable(message, 0))
			}
		}
		// An answer does not wait for the next line to be typed.
		if in.Buffered() == 0 || err != nil {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		if err != nil {
			break
		}
	}
	if wrong {
		return exitCode(exitUsage)
	}
	return nil
}

func decideLine(w io.Writer, line []byte) error {
	s, err := parseSituation(line)
	if err != nil {
		return err
	}
	decision, err := s.decide()
	if err != nil {
		return err
	}
	return stdjson.NewEncoder(w).Encode(decision)
}

func (s situation) decide() (scaling.Decision, error) {
	var names []string
	answers := make([]composite.Answer, len(s.Triggers))
	for i, t := range s.Triggers {
		answers[i] = composite.Answer{Name: t.Name, Reading: t.Reading, Failures: t.Failures}
		if t.Name != "" {
			names = append(names, t.Name)
		}
	}
	rule, err := composite.NewRule(s.Fallback, s.Advanced, names)
	if err != nil {
		return scaling.Decision{}, err
	}
	result := rule.Combine(answers)
	if result.Err != nil {
		return scaling.Decision{Reason: result.Err.Error()}, nil
	}
	s.Readings = result.Readings
	if result.Fallback {
		jobs := rule.Jobs(ptr.Deref(s.RunningBefore, s.Running))
		s.State.Fallback = &jobs
	}
	return scaling.Decide(s.Rule, s.State), nil
}

// parseSituation reads one line, which is not empty, strictly.
func parseSituation(line []byte) (situation, error) {
	var s situation
	if line[0] != '{' {
		return s, errors.New("must be a JSON object, which begins with {")
	}
	strict, err := json.UnmarshalStrict(line, &s)
	if err != nil {
		if wrongType, ok := errorAs[*stdjson.UnmarshalTypeError](err); ok {
			// Embedding puts the Go type's name into the path.
			field := strings.NewReplacer("Rule.", "", "State.", "", "Reading.", "").Replace(wrongType.Field)
			return s, fmt.Errorf("%s: must be %s, not %s", field, jsonKind(wrongType.Type.Kind().String()), wrongType.Value)
		}
		return s, fmt.Errorf("must be a JSON object: %w", err)
	}
	if len(strict) > 0 {
		return s, errors.Join(strict...)
	}
	return s, s.check()
}

// jsonKind names a Go type as a reader of JSON knows it.
func jsonKind(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"):
		return "a whole number"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "bool":
		return "true or false"
	case kind == "slice":
		return "a list"
	case kind == "struct":
		return "an object"
	}
	return "a " + kind
}

// check refuses what cannot be, so that no answer is given to a question that was not meant.
func (s situation) check() error {
	var errs []error
	refuse := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf(field+": "+format, args...))
	}
	oneOf := func(field, value string, allowed ...string) {
		if value != "" && !slices.Contains(allowed, value) {
			refuse(field, "must be one of %s, not %q", strings.Join(allowed, ", "), value)
		}
	}
	notNegative := func(field string, value int64) {
		if value < 0 {
			refuse(field, "must be 0 or more, not %d", value)
		}
	}
	oneOf("strategy", s.Strategy,
		v1alpha1.StrategyDefault, v1alpha1.StrategyCustom, v1alpha1.StrategyAccurate, v1alpha1.StrategyEager)
	oneOf("multipleScalersCalculation", s.Calculation,
		v1alpha1.CalculationMax, v1alpha1.CalculationMin, v1alpha1.CalculationAvg, v1alpha1.CalculationSum)
	notNegative("running", s.Running)
	notNegative("pending", s.Pending)
	notNegative("untaken", s.Untaken)
	if s.Pending > s.Running && s.Running >= 0 {
		refuse("pending", "must be at most running, which is %d, not %d", s.Running, s.Pending)
	}
	if s.Min != nil {
		notNegative("minReplicaCount", *s.Min)
	}
	if s.Max != nil {
		notNegative("maxReplicaCount", *s.Max)
	}
	for i, t := range s.Triggers {
		combined := s.Advanced != nil && s.Advanced.ScalingModifiers != nil // so only the formula's target counts
		if t.Failures <= 0 && t.Target <= 0 && !combined {
			refuse(fmt.Sprintf("triggers[%d].target", i), "must be above 0, not %v", t.Target)
		}
		notNegative(fmt.Sprintf("triggers[%d].failures", i), t.Failures)
	}
	if s.RunningBefore != nil {
		notNegative("runningBefore", *s.RunningBefore)
	}
	if f := s.Fallback; f != nil {
		notNegative("fallback.failureThreshold", int64(f.FailureThreshold))
		notNegative("fallback.replicas", int64(f.Replicas))
		oneOf("fallback.behavior", f.Behavior, v1alpha1.FallbackStatic, v1alpha1.FallbackCurrentReplicas,
			v1alpha1.FallbackCurrentReplicasIfHigher, v1alpha1.FallbackCurrentReplicasIfLower, v1alpha1.FallbackScalingModifiers)
	}
	return errors.Join(errs...)
}
