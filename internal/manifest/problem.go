package manifest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Severity tells whether a problem keeps a manifest from being used.
type Severity string

// The severities of a problem.
const (
	// Error means that the manifest must not be used.
	Error Severity = "error"
	// Warning means that it can be used but probably does not say what was meant.
	Warning Severity = "warning"
)

// Problem is one thing that is wrong with a manifest, and where.
type Problem struct {
	Severity Severity `json:"severity"`
	// File is the path as it was given or found, or <stdin>.
	File string `json:"file"`
	// Line and Column count from 1, the column in characters. Both are 0 when the problem is with the file as a whole.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Object names the object as Kind namespace/name; empty when it has none or is not known.
	Object string `json:"object,omitempty"`
	// Field is the path within the object, for example spec.triggers[0].type; empty for the object as a whole.
	Field string `json:"field,omitempty"`
	// Value is what was written there, shortened; empty when there is no value and for anything in a Secret.
	Value string `json:"value,omitempty"`
	// Message says what is wrong and what would be right.
	Message string `json:"message"`
}

// Error returns the problem in one line: FILE:LINE:COLUMN: FIELD: message. Editors and terminals find the place by it.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	return oneLine(b.String()) + p.Text()
}

// Text returns the problem in one line without its place in a file: FIELD: message.
func (p Problem) Text() string {
	if p.Field == "" {
		return oneLine(p.Message)
	}
	return oneLine(p.Field + ": " + p.Message)
}

// oneLine keeps a name or value that holds a line break or a control character from breaking the output.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return '\uFFFD'
		}
		return r
	}, s)
}

// Problems are problems in the order of files, lines and columns.
type Problems []Problem

// HasErrors tells whether any of them is an error and not just a warning.
func (ps Problems) HasErrors() bool {
	return slices.ContainsFunc(ps, func(p Problem) bool { return p.Severity == Error })
}

// Of returns those of one severity.
func (ps Problems) Of(severity Severity) Problems {
	var of Problems
	for _, p := range ps {
		if p.Severity == severity {
			of = append(of, p)
		}
	}
	return of
}

// Err returns the errors among them, without the warnings, as one error, each on a line of its own; nil when there are
// none. errors.As finds a Problem in it.
func (ps Problems) Err() error {
	if of := ps.Of(Error); len(of) > 0 {
		return problemsError(of)
	}
	return nil
}

type problemsError Problems

func (e problemsError) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (e problemsError) Unwrap() []error {
	errs := make([]error, len(e))
	for i, p := range e {
		errs[i] = p
	}
	return errs
}

// Print writes one line a problem. The error is the writer's.
func (ps Problems) Print(w io.Writer) error {
	for _, p := range ps {
		if _, err := fmt.Fprintln(w, p.Error()); err != nil {
			return err
		}
	}
	return nil
}

// MarshalJSON writes a list also when there is none, so that scripts need not handle null.
func (ps Problems) MarshalJSON() ([]byte, error) {
	if ps == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]Problem(ps))
}

// sorted orders by line and column within each file and leaves the files in the order in which they were read.
func (ps Problems) sorted(files []string) Problems {
	order := make(map[string]int, len(files))
	for i, file := range files {
		order[file] = i
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column))
	})
	return ps
}
