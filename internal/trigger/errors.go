package trigger

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ParamError is one thing that is wrong with a trigger's parameters.
type ParamError struct {
	// Key is the metadata key, or the parameter's name where the value came from elsewhere.
	Key string
	// Value is the value as written; empty when there is none or when it must not be shown.
	Value string
	// Message says what is wrong and what would be right.
	Message string
	// Warning tells that a trigger can be made all the same.
	Warning bool
	// Kind is what errors.Is finds in the error; nil for most.
	Kind error
}

// ErrNoServer is the kind of error of a trigger to which no source of parameters tells where its server is.
var ErrNoServer = errors.New("no server is configured")

// Unwrap returns the kind.
func (e ParamError) Unwrap() error { return e.Kind }

// maxShownValue is how many bytes of a value an error shows.
const maxShownValue = 80

// Error returns key, value and message in one line.
func (e ParamError) Error() string {
	var text strings.Builder
	text.WriteString(e.Key)
	if e.Value != "" {
		text.WriteByte(' ')
		text.WriteString(strconv.Quote(shorten(e.Value)))
	}
	text.WriteString(": ")
	text.WriteString(e.Message)
	return text.String()
}

// shorten cuts a value for display without splitting a character.
func shorten(value string) string {
	if len(value) <= maxShownValue {
		return value
	}
	end := maxShownValue
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end] + "…"
}

// join makes one error of all findings that are not warnings; nil when there are none.
func join(findings []ParamError) error {
	var errs []error
	for _, finding := range findings {
		if !finding.Warning {
			errs = append(errs, finding)
		}
	}
	return errors.Join(errs...)
}
