package trigger

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Values are a trigger's decoded parameters by name. Accessors panic for a name that the type does not declare: that
// is a mistake in the type's code, never in what a user wrote.
type Values struct {
	byName map[string]value
}

// value is what was found for one parameter.
type value struct {
	text string
	// source is where the value was found; empty for a default or when there is no value.
	source Source
	// key is the metadata key, the authentication parameter or the environment variable that gave the value.
	key string
	// unknown tells that only a running Job's environment or an authentication can say whether there is a value.
	unknown bool
	found   bool
}

func (v Values) get(name string) value {
	found, declared := v.byName[name]
	if !declared {
		panic(fmt.Sprintf("trigger: parameter %q is not declared", name))
	}
	return found
}

// Has tells whether a source gave a value; a default does not count.
func (v Values) Has(name string) bool { return v.get(name).found }

// Known tells whether it is certain what the value is, or that there is none. It is false only in a static check, for
// parameters that an environment variable or an authentication may give.
func (v Values) Known(name string) bool { return !v.get(name).unknown }

// Key returns under which key the value was found, for error messages; the name when there is none.
func (v Values) Key(name string) string {
	if found := v.get(name); found.key != "" && found.source != FromEnv {
		return found.key
	}
	return name
}

// Source returns where the value was found; empty for a default and when there is no value.
func (v Values) Source(name string) Source { return v.get(name).source }

// String returns the value, the default, or "". Space around it is dropped.
func (v Values) String(name string) string { return v.get(name).text }

// Int returns the value or the default; 0 when there is neither.
func (v Values) Int(name string) int64 {
	number, err := strconv.ParseInt(v.get(name).text, 10, 64)
	if err != nil {
		return 0 // decoding has refused what is not a number; what remains is empty or unknown
	}
	return number
}

// Float returns the value or the default; 0 when there is neither.
func (v Values) Float(name string) float64 {
	number, err := strconv.ParseFloat(v.get(name).text, 64)
	if err != nil {
		return 0 // as in Int
	}
	return number
}

// Bool returns the value or the default; false when there is neither.
func (v Values) Bool(name string) bool {
	truth, err := strconv.ParseBool(v.get(name).text)
	return err == nil && truth
}

// Duration returns the value or the default; 0 when there is neither.
func (v Values) Duration(name string) time.Duration {
	length, err := parseDuration(v.get(name).text)
	if err != nil {
		return 0 // as in Int
	}
	return length
}

// Map returns the entries of a Map; nil when there are none.
func (v Values) Map(name string) map[string]string {
	entries, err := parseMap(v.get(name).text)
	if err != nil {
		return nil // as in Int
	}
	return entries
}

// Query returns the entries of a Query; empty when there are none.
func (v Values) Query(name string) url.Values {
	entries, err := url.ParseQuery(v.get(name).text)
	if err != nil {
		return nil // as in Int
	}
	return entries
}

// Numbers returns the numbers, in the order in which they are written; nil when there are none.
func (v Values) Numbers(name string) []int32 {
	numbers, err := parseNumbers(v.get(name).text)
	if err != nil {
		return nil // as in Int
	}
	return numbers
}

// List returns the elements that are not empty, without space around them; nil when there are none.
func (v Values) List(name string) []string {
	var elements []string
	for element := range strings.SplitSeq(v.get(name).text, ",") {
		if element = strings.TrimSpace(element); element != "" {
			elements = append(elements, element)
		}
	}
	return elements
}
