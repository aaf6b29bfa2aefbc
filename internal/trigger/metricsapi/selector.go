package metricsapi

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/offboard-dev/offboard/internal/trigger/document"
)

// selector picks metrics by name and labels, as PromQL does: name{label="value",other=~"pattern"}.
type selector struct {
	name     string
	matchers []matcher
}

// matcher is a condition on one label; a label that is missing is empty.
type matcher struct {
	label   string
	matches func(value string) bool
}

var errSelector = errors.New(`is not a metric; give its name and what labels must be, ` +
	`for example tasks_waiting{queue="mail"}`)

// metricName and labelName are how names begin that need no quotes.
var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*`)
)

// nameLabel is the label that stands for the metric's name.
const nameLabel = "__name__"

// parseSelector reads a selector. The form is that of
// https://prometheus.io/docs/prometheus/latest/querying/basics/#instant-vector-selectors.
func parseSelector(text string) (selector, error) {
	rest := strings.TrimSpace(text)
	var made selector
	made.name = metricName.FindString(rest)
	rest = strings.TrimSpace(rest[len(made.name):])
	if inner, braced := strings.CutPrefix(rest, "{"); braced {
		var err error
		if rest, err = made.parseMatchers(inner); err != nil {
			return selector{}, err
		}
	}
	if rest != "" || made.name == "" {
		return selector{}, errSelector
	}
	return made, nil
}

// parseMatchers reads what is in braces, and returns what follows them.
func (s *selector) parseMatchers(text string) (rest string, err error) {
	rest = strings.TrimSpace(text)
	for {
		if after, closed := strings.CutPrefix(rest, "}"); closed {
			return strings.TrimSpace(after), nil
		}
		if rest, err = s.parseMatcher(rest); err != nil {
			return "", err
		}
		if after, more := strings.CutPrefix(rest, ","); more {
			rest = strings.TrimSpace(after)
		} else if !strings.HasPrefix(rest, "}") {
			return "", errSelector
		}
	}
}

// parseMatcher reads one condition, or a name in quotes: alone it is that of the metric.
func (s *selector) parseMatcher(text string) (rest string, err error) {
	label := labelName.FindString(text)
	rest = text[len(label):]
	if label == "" {
		if label, rest, err = unquote(text); err != nil {
			return "", err
		}
	}
	rest = strings.TrimSpace(rest)
	operator := ""
	for _, candidate := range []string{"=~", "!~", "!=", "="} {
		if strings.HasPrefix(rest, candidate) {
			operator = candidate
			break
		}
	}
	value := label
	if operator == "" {
		if rest == text || !strings.ContainsAny(text[:1], "\"'`") {
			return "", errSelector
		}
		label, operator = nameLabel, "="
	} else if value, rest, err = unquote(strings.TrimSpace(rest[len(operator):])); err != nil {
		return "", err
	}
	rest = strings.TrimSpace(rest)
	if label == nameLabel {
		if operator != "=" || s.name != "" {
			return "", errSelector
		}
		s.name = value
		return rest, nil
	}
	matches, err := condition(operator, value)
	if err != nil {
		return "", err
	}
	s.matchers = append(s.matchers, matcher{label, matches})
	return rest, nil
}

// condition returns what an operator asks of a label.
func condition(operator, value string) (matches func(string) bool, err error) {
	switch operator {
	case "=":
		return func(got string) bool { return got == value }, nil
	case "!=":
		return func(got string) bool { return got != value }, nil
	}
	pattern, err := regexp.Compile("^(?s:" + value + ")$")
	if err != nil {
		return nil, fmt.Errorf("holds %q, which is not a regular expression", value)
	}
	return func(got string) bool { return pattern.MatchString(got) == (operator == "=~") }, nil
}

// unquote reads a text in double quotes, single quotes or backticks, and returns what follows it.
func unquote(text string) (value, rest string, err error) {
	if text == "" {
		return "", "", errSelector
	}
	quote := text[0]
	if !strings.ContainsRune("\"'`", rune(quote)) {
		return "", "", errSelector
	}
	end := 1
	for end < len(text) && text[end] != quote {
		if text[end] == '\\' && quote != '`' {
			end++
		}
		end++
	}
	if end >= len(text) {
		return "", "", errSelector
	}
	inner, rest := text[1:end], text[end+1:]
	if quote == '`' {
		return inner, rest, nil
	}
	var unquoted strings.Builder
	for inner != "" {
		r, wide, tail, err := strconv.UnquoteChar(inner, quote)
		if err != nil {
			return "", "", errSelector
		}
		if wide {
			unquoted.WriteRune(r)
		} else {
			unquoted.WriteByte(byte(r))
		}
		inner = tail
	}
	return unquoted.String(), rest, nil
}

// read returns the value of the first metric that the selector picks, in metrics in the text format of
// https://prometheus.io/docs/instrumenting/exposition_formats/. Histograms and summaries have none.
func (s selector) read(content []byte) (float64, error) {
	content = bytes.ReplaceAll(content, []byte("\r\n"), []byte("\n"))
	if !bytes.HasSuffix(content, []byte("\n")) {
		content = append(content, '\n')
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(content))
	if err != nil {
		return 0, fmt.Errorf("%w prometheus", document.ErrFormat)
	}
	for _, metric := range families[s.name].GetMetric() {
		if !s.picks(metric) {
			continue
		}
		switch {
		case metric.Untyped != nil:
			return metric.Untyped.GetValue(), nil
		case metric.Counter != nil:
			return metric.Counter.GetValue(), nil
		case metric.Gauge != nil:
			return metric.Gauge.GetValue(), nil
		}
	}
	return 0, document.ErrNothing
}

func (s selector) picks(metric *dto.Metric) bool {
	values := make(map[string]string, len(metric.Label))
	for _, label := range metric.Label {
		values[label.GetName()] = label.GetValue()
	}
	for _, m := range s.matchers {
		if !m.matches(values[m.label]) {
			return false
		}
	}
	return true
}
