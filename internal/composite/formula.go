package composite

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"

	"github.com/offboard-dev/offboard/internal/spelling"
)

// What a formula may cost, so that no ScaledJob holds up the others. Functions with a condition or an expression for
// each element of a list may not be nested, so the effort grows with the product of the first two at the most.
const (
	maxNodes    = 500
	maxElements = 10_000 // of all lists that are made in one evaluation
	maxLength   = 4096   // bytes
)

// functions are those of the language that a formula may use: what it says depends on the measurements alone, so there
// is none that asks the clock.
var functions = []string{
	"abs", "ceil", "floor", "round", "int", "float", "max", "min", "sum", "mean", "median", "len", "first", "last",
	"count", "all", "any", "none", "one", "filter", "map", "reduce",
}

// Formula computes one value from those of several triggers. The language is that of github.com/expr-lang/expr, as in
// KEDA. It may be used from several goroutines.
type Formula struct {
	program *vm.Program
	uses    map[string]bool
}

// FormulaError tells where a formula is wrong.
type FormulaError struct {
	// Line and Column count from 1, the column in characters; 0 when the formula as a whole is wrong.
	Line, Column int
	// Message says what is wrong and what would be right.
	Message string
}

// Error returns the place and the message.
func (e FormulaError) Error() string {
	switch {
	case e.Line > 1:
		return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
	case e.Line == 1:
		return fmt.Sprintf("column %d: %s", e.Column, e.Message)
	}
	return e.Message
}

// Compile reads a formula over triggers of those names. Its errors are FormulaErrors.
func Compile(text string, names []string) (*Formula, error) {
	if len(text) > maxLength {
		return nil, FormulaError{Message: fmt.Sprintf("has %d bytes, want %d or less", len(text), maxLength)}
	}
	if strings.TrimSpace(text) == "" {
		return nil, FormulaError{Message: "is empty; give an expression over the names of triggers, for example " +
			`"max([a, b])"`}
	}
	triggers := make(map[string]float64, len(names))
	for _, name := range names {
		triggers[name] = 0
	}
	options := []expr.Option{
		// The optimizer would make constant lists without a bound.
		expr.Env(triggers), expr.Optimize(false), expr.MaxNodes(maxNodes), expr.DisableAllBuiltins(),
	}
	for _, function := range functions {
		options = append(options, expr.EnableBuiltin(function))
	}
	// That it gives a number is checked apart: a program that must give one cannot give nil.
	_, err := expr.Compile(text, append(options[:len(options):len(options)], expr.AsFloat64())...)
	var program *vm.Program
	if err == nil {
		program, err = expr.Compile(text, options...)
	}
	if err != nil {
		return nil, explain(err, names)
	}
	f := &Formula{program: program, uses: map[string]bool{}}
	node := program.Node()
	var nested ast.Node
	ast.Walk(&node, visitor(func(node ast.Node) {
		switch node := node.(type) {
		case *ast.IdentifierNode:
			for _, name := range names {
				if node.Value == name || node.Value == "$env" {
					f.uses[name] = true
				}
			}
		case *ast.PredicateNode:
			if inner := ast.Find(node.Node, isPredicate); inner != nil {
				nested = inner
			}
		}
	}))
	if nested != nil {
		line, column := place(text, nested.Location().From)
		return nil, FormulaError{line, column, "holds a list's function within another one's braces: take them apart"}
	}
	return f, nil
}

// Uses tells whether the formula mentions the trigger of that name.
func (f *Formula) Uses(name string) bool { return f.uses[name] }

// Evaluate computes the value. A trigger that is absent from values is nil in the formula, which operator ?? handles.
// known is false when the formula's answer is nil.
func (f *Formula) Evaluate(values map[string]float64) (value float64, known bool, err error) {
	env := make(map[string]any, len(f.uses))
	for name := range f.uses {
		env[name] = nil
		if given, found := values[name]; found {
			env[name] = given
		}
	}
	machine := vm.VM{MemoryBudget: maxElements}
	answer, err := machine.Run(f.program, env)
	if err != nil {
		return 0, false, explain(err, nil)
	}
	switch answer := answer.(type) {
	case nil:
		return 0, false, nil
	case float64:
		value = answer
	case int:
		value = float64(answer)
	default:
		return 0, false, FormulaError{Message: fmt.Sprintf("gives a %T, want a number", answer)}
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return 0, false, FormulaError{Message: fmt.Sprintf("gives %v, want a number; does it divide by 0?", value)}
	}
	return value, true, nil
}

// visitor makes a function visit the nodes of a formula.
type visitor func(ast.Node)

// Visit implements ast.Visitor.
func (v visitor) Visit(node *ast.Node) { v(*node) }

func isPredicate(node ast.Node) bool {
	_, is := node.(*ast.PredicateNode)
	return is
}

// place returns line and column of a character.
func place(text string, index int) (line, column int) {
	characters := []rune(text)
	before := string(characters[:max(0, min(index, len(characters)))])
	line = 1 + strings.Count(before, "\n")
	return line, 1 + len([]rune(before[strings.LastIndexByte(before, '\n')+1:]))
}

// explain turns an error of the language into one of ours: in one line, with the place, and with what was probably
// meant.
func explain(err error, names []string) error {
	var located *file.Error
	if !errors.As(err, &located) {
		message, _, _ := strings.Cut(err.Error(), "\n")
		if kind, is := strings.CutPrefix(message, "expected float64, but got "); is {
			message = "gives a " + kind + ", want a number"
		}
		return FormulaError{Message: message}
	}
	message, _, _ := strings.Cut(located.Message, "\n")
	if name, unknown := strings.CutPrefix(message, "unknown name "); unknown {
		switch near := spelling.Nearest(name, append(slices.Clone(names), functions...)); {
		case near != "":
			message += "; did you mean " + near + "?"
		case len(names) == 0:
			message += ": no trigger has a name"
		default:
			message += ": want a trigger's name (" + strings.Join(names, ", ") + ") or a function such as max"
		}
	}
	return FormulaError{located.Line, located.Column + 1, message}
}
