package trigger

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decoder looks parameters up. In a static check neither the environment nor the authentication is known: what they
// might give is unknown, not missing.
type decoder struct {
	metadata map[string]string
	env      map[string]string
	auth     map[string]string
	static   bool
	// hasAuth tells in a static check that the trigger names an authentication.
	hasAuth bool
}

// decode returns the values of all parameters and everything that is wrong with them one by one. The rules are KEDA's
// (pkg/scalers/scalersconfig): sources in declared order, within a source the name before its aliases, space around a
// value dropped, and an empty value counts as none.
func (d decoder) decode(params []Param) (Values, []ParamError) {
	values := Values{byName: make(map[string]value, len(params))}
	var findings []ParamError
	for _, param := range params {
		found := d.lookup(param)
		if finding, ok := d.check(param, found); !ok {
			findings = append(findings, finding)
		}
		if !found.found && !found.unknown {
			found.text = param.Default
		}
		values.byName[param.Name] = found
	}
	return values, findings
}

func (d decoder) lookup(param Param) value {
	for _, source := range param.Sources {
		for _, key := range param.Keys() {
			found := d.lookupIn(source, key)
			if found.found || found.unknown {
				return found
			}
		}
	}
	return value{}
}

func (d decoder) lookupIn(source Source, key string) value {
	from := map[string]string(nil)
	switch source {
	case FromMetadata:
		from = d.metadata
	case FromEnv:
		variable := strings.TrimSpace(d.metadata[key+EnvSuffix])
		if variable == "" {
			return value{}
		}
		if d.static {
			return value{unknown: true, source: FromEnv, key: variable}
		}
		from, key = d.env, variable
	case FromAuth:
		if d.static {
			return value{unknown: d.hasAuth, source: FromAuth, key: key}
		}
		from = d.auth
	}
	if text := strings.TrimSpace(from[key]); text != "" {
		return value{text: text, source: source, key: key, found: true}
	}
	return value{}
}

// check tells what is wrong with what was found for one parameter.
func (d decoder) check(param Param, found value) (finding ParamError, ok bool) {
	if found.unknown {
		return ParamError{}, true
	}
	if !found.found {
		if !param.Required() {
			return ParamError{}, true
		}
		return ParamError{Key: param.Name, Message: d.missing(param)}, false
	}
	if err := param.parse(found.text); err != nil {
		finding = ParamError{Key: found.key, Message: err.Error()}
		switch {
		case found.source == FromEnv:
			// The variable may come from a Secret, so its value is not shown, but its name helps.
			finding.Key = param.Name
			finding.Message += fmt.Sprintf(" (read from the environment variable %s)", found.key)
		case found.source == FromAuth:
			finding.Message += " (read from the TriggerAuthentication)"
		case !param.Secret:
			finding.Value = found.text
		}
		return finding, false
	}
	return ParamError{}, true
}

// missing says why a required parameter has no value.
func (d decoder) missing(param Param) string {
	for _, key := range param.Keys() {
		if variable := strings.TrimSpace(d.metadata[key+EnvSuffix]); variable != "" && param.From(FromEnv) {
			return fmt.Sprintf("is required, but the environment variable %s that %s names is not set in the container",
				variable, key+EnvSuffix)
		}
	}
	return "is required; give " + param.places()
}

// parse tells whether the text is a value of the parameter. Its errors do not hold the text: it may be secret.
func (p Param) parse(text string) error {
	switch p.Kind {
	case Int:
		number, err := strconv.ParseInt(text, 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			return errors.New("is out of range; give a whole number of at most 64 bits")
		}
		if err != nil {
			return errors.New(`is not a whole number; give one in decimal digits, for example "5"`)
		}
		if p.Min != nil && number < *p.Min {
			return fmt.Errorf("is too small; give at least %d", *p.Min)
		}
	case Float:
		number, err := strconv.ParseFloat(text, 64)
		switch {
		case errors.Is(err, strconv.ErrRange):
			return errors.New("is out of range; give a number that 64 bits can hold")
		case err != nil, math.IsNaN(number), math.IsInf(number, 0):
			return errors.New(`is not a number; give one in decimal digits, for example "5" or "0.5"`)
		case p.Positive && number <= 0:
			return errors.New("is too small; give a number above 0")
		case p.Min != nil && number < float64(*p.Min):
			return fmt.Errorf("is too small; give at least %d", *p.Min)
		}
	case Bool:
		if _, err := strconv.ParseBool(text); err != nil {
			return errors.New(`is not a boolean; give "true" or "false"`)
		}
	case String:
		if len(p.Allowed) > 0 && !slices.Contains(p.Allowed, text) {
			return fmt.Errorf("is not allowed; give %s", strings.Join(p.Allowed, " or "))
		}
	case List:
		return p.parseList(text)
	case Duration:
		_, err := parseDuration(text)
		return err
	case Map:
		_, err := parseMap(text)
		return err
	case Query:
		if _, err := url.ParseQuery(text); err != nil {
			return errors.New(`is not the query of an URL; give one, for example "audience=api&resource=queue"`)
		}
	case Numbers:
		_, err := parseNumbers(text)
		return err
	}
	return nil
}

func (p Param) parseList(text string) error {
	exclusive := ""
	for element := range strings.SplitSeq(text, ",") {
		element = strings.TrimSpace(element)
		if len(p.Allowed) > 0 && !slices.Contains(p.Allowed, element) {
			return fmt.Errorf("holds an element that is not allowed; give %s", strings.Join(p.Allowed, " or "))
		}
		if slices.Contains(p.Exclusive, element) {
			if exclusive != "" {
				return fmt.Errorf("holds more than one of %s; give only one of them", strings.Join(p.Exclusive, ", "))
			}
			exclusive = element
		}
	}
	return nil
}

// parseDuration reads a Duration as KEDA does: a plain number counts milliseconds.
func parseDuration(text string) (time.Duration, error) {
	length, err := time.ParseDuration(text)
	if number, errNumber := strconv.ParseInt(text, 10, 64); errNumber == nil {
		if number > math.MaxInt64/int64(time.Millisecond) {
			return 0, errors.New("is out of range; give a shorter time")
		}
		length, err = time.Duration(number)*time.Millisecond, nil
	}
	if err != nil {
		return 0, errors.New(`is not a length of time; give one, for example "30s", or a number of milliseconds`)
	}
	if length < 0 {
		return 0, errors.New("is negative; give 0 or more")
	}
	return length, nil
}

func parseMap(text string) (map[string]string, error) {
	entries := map[string]string{}
	for entry := range strings.SplitSeq(text, ",") {
		key, value, found := strings.Cut(entry, "=")
		if key = strings.TrimSpace(key); !found || key == "" {
			return nil, errors.New(`holds an element that is not key=value; give, for example, "a=1,b=2"`)
		}
		entries[key] = strings.TrimSpace(value)
	}
	return entries, nil
}

// maxNumbers is how many numbers a value of kind Numbers may stand for, so that a range cannot use up the memory.
const maxNumbers = 100_000

// parseNumbers returns the numbers in the order in which they are written.
func parseNumbers(text string) ([]int32, error) {
	var numbers []int32
	for element := range strings.SplitSeq(text, ",") {
		begin, end, isRange := strings.Cut(element, "-")
		if !isRange {
			end = begin
		}
		first, errFirst := strconv.ParseUint(strings.TrimSpace(begin), 10, 31)
		last, errLast := strconv.ParseUint(strings.TrimSpace(end), 10, 31)
		switch {
		case errFirst != nil || errLast != nil:
			return nil, errors.New(`is not a list of numbers and ranges; give one of at most 32 bits each, for example "1-4,7"`)
		case first > last:
			return nil, fmt.Errorf("holds a range that ends before it begins; give %d-%d", last, first)
		case last-first >= uint64(maxNumbers-len(numbers)):
			return nil, fmt.Errorf("holds more than %d numbers; give fewer", maxNumbers)
		}
		for number := first; number <= last; number++ {
			numbers = append(numbers, int32(number))
		}
	}
	return numbers, nil
}
