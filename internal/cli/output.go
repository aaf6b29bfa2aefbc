package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/offboard-dev/offboard/internal/kube/backend"
)

// The output formats.
const (
	outputTable = ""
	outputWide  = "wide"
	outputJSON  = "json"
	outputYAML  = "yaml"
	outputName  = "name"
)

// choice is a flag whose value is one of a few words.
type choice struct {
	value   string
	allowed []string
}

// String implements pflag.Value.
func (c *choice) String() string { return c.value }

// Type implements pflag.Value.
func (c *choice) Type() string { return "string" }

// Set implements pflag.Value.
func (c *choice) Set(value string) error {
	if !slices.Contains(c.allowed, value) {
		return fmt.Errorf("must be one of %s", strings.Join(c.allowed, ", "))
	}
	c.value = value
	return nil
}

// choiceVar adds such a flag with its completion.
func choiceVar(cmd *cobra.Command, c *choice, name, short, usage string) {
	cmd.Flags().VarP(c, name, short, usage+": "+strings.Join(c.allowed, ", "))
	complete(cmd, name, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return c.allowed, cobra.ShellCompDirectiveNoFileComp
	})
}

// listFlags are the flags of commands that list objects.
type listFlags struct {
	where
	allNamespaces bool
	output        choice
	watch         bool
}

func (f *listFlags) add(a *app, cmd *cobra.Command) {
	f.output.allowed = []string{outputJSON, outputYAML, outputWide, outputName}
	choiceVar(cmd, &f.output, "output", "o", "output format")
	a.whereVar(cmd, &f.where)
	cmd.Flags().BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "list the objects of all namespaces")
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on and print each object again when it changes")
}

// check returns what contradicts itself among the flags and names.
func (f *listFlags) check(names []string) error {
	switch {
	case f.allNamespaces && len(names) > 0:
		return usageErrorf("a name belongs to one namespace: use -n NAMESPACE with it, not -A")
	case f.watch && (f.output.value == outputJSON || f.output.value == outputYAML):
		return usageErrorf("--watch prints tables and names only: leave out -o %s", f.output.value)
	}
	return nil
}

// need returns what the output needs beyond the objects.
func (f *listFlags) need() backend.Need {
	return backend.Need{Events: f.output.value == outputJSON || f.output.value == outputYAML}
}

// listed returns the namespace to ask for; empty means all.
func (f *listFlags) listed() string {
	if f.allNamespaces {
		return ""
	}
	return f.namespace
}

// list is what a command that lists objects does, whatever the objects are.
type list[T any] struct {
	// kind is the plural for messages.
	kind string
	// fetch returns the objects that were asked for.
	fetch func(ctx context.Context) ([]T, error)
	// name returns what -o name prints.
	name func(T) string
	// object returns what -o json and -o yaml print: the object itself, and further keys to follow it.
	object func(T) (object, more any)
	row    func(T) row
	table  table
	// pause is how long a watch waits until it asks again.
	pause time.Duration
	// single tells that one object was asked for by its name, so that it is printed without a list around it.
	single bool
}

func (l *list[T]) run(ctx context.Context, a *app, f *listFlags) error {
	infos, err := l.fetch(ctx)
	if err != nil {
		return err
	}
	switch f.output.value {
	case outputJSON, outputYAML:
		return l.printObjects(a.Out, f.output.value, infos)
	}
	if len(infos) == 0 {
		where := "in namespace " + f.namespace
		if f.allNamespaces {
			where = "in any namespace"
		}
		_, _ = fmt.Fprintf(a.Err, "No %s found %s.\n", l.kind, where)
	}
	last := map[string]string{}
	for {
		if err := l.printChanged(a.Out, f, infos, last); err != nil || !f.watch {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(l.pause):
		}
		if infos, err = l.fetch(ctx); err != nil {
			return err
		}
	}
}

// printChanged prints the objects whose row is not the one that last holds, and updates that.
func (l *list[T]) printChanged(w io.Writer, f *listFlags, infos []T, last map[string]string) error {
	var rows []row
	for _, info := range infos {
		r := l.row(info)
		if state := l.table.state(r); last[r.key] != state {
			last[r.key] = state
			if f.output.value == outputName {
				if _, err := fmt.Fprintln(w, l.name(info)); err != nil {
					return err
				}
			}
			rows = append(rows, r)
		}
	}
	if f.output.value == outputName || len(rows) == 0 {
		return nil
	}
	return l.table.print(w, rows)
}

func (l *list[T]) printObjects(w io.Writer, format string, infos []T) error {
	items := make([]merged, len(infos))
	for i, info := range infos {
		items[i].object, items[i].more = l.object(info)
	}
	if l.single && len(items) == 1 {
		return printObject(w, format, items[0])
	}
	return printObject(w, format, struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Items      []merged `json:"items"`
	}{"v1", "List", items})
}

// merged is an object with further keys after its own, as one JSON object.
type merged struct{ object, more any }

// MarshalJSON implements json.Marshaler.
func (m merged) MarshalJSON() ([]byte, error) {
	object, err := json.Marshal(m.object)
	if err != nil {
		return nil, err
	}
	more, err := json.Marshal(m.more)
	if err != nil {
		return nil, err
	}
	return slices.Concat(object[:len(object)-1], []byte(","), more[1:]), nil
}

func printObject(w io.Writer, format string, value any) error {
	if format == outputJSON {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(value); err != nil {
			return fmt.Errorf("encode as JSON: %w", err)
		}
		_, err := w.Write(escapeControls(text.Bytes()))
		return err
	}
	var text []byte
	for _, part := range yamlParts(value) {
		encoded, err := yaml.Marshal(part)
		if err != nil {
			return fmt.Errorf("encode as YAML: %w", err)
		}
		text = append(text, encoded...)
	}
	_, err := w.Write(text)
	return err
}

// escapeControls escapes the control characters that JSON allows to stand as they are and some terminals obey.
func escapeControls(text []byte) []byte {
	if !bytes.ContainsFunc(text, isBareControl) {
		return text
	}
	var escaped []byte
	for _, r := range string(text) {
		if isBareControl(r) {
			escaped = fmt.Appendf(escaped, `\u%04x`, r)
		} else {
			escaped = utf8.AppendRune(escaped, r)
		}
	}
	return escaped
}

func isBareControl(r rune) bool { return r >= 0x7f && r <= 0x9f }

// yamlParts returns the parts of a value that are encoded one after the other. YAML's encoder sorts keys; apart, the
// further keys come after those of the object.
func yamlParts(value any) []any {
	if m, ok := value.(merged); ok {
		return []any{m.object, m.more}
	}
	return []any{value}
}
