package manifest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// decoder fills a Go value from a document and remembers where each field was written.
type decoder struct {
	*tree
	places map[string]place
	// reported are fields about which a problem says enough already, beside those that have one of their own.
	reported map[string]bool
}

// join appends a key to a field path. Keys that are no plain words are put in brackets.
func join(field, key string) string {
	switch {
	case !plainKey(key):
		return field + "[" + key + "]"
	case field == "":
		return key
	}
	return field + "." + key
}

// plainKey tells whether a key can stand in a path without brackets.
func plainKey(key string) bool {
	digits := 0
	for _, c := range []byte(key) {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c != '-' && c != '_' && (c|0x20 < 'a' || c|0x20 > 'z'):
			return false
		}
	}
	return digits < len(key)
}

func at(field string, index int) string { return field + "[" + strconv.Itoa(index) + "]" }

// value decodes a node into v, which is settable.
func (d *decoder) value(n *yaml.Node, field string, depth int, again bool, v reflect.Value) {
	d.visit(n, field, depth, again, func(n *yaml.Node) { d.into(n, field, depth, v) })
}

func (d *decoder) into(n *yaml.Node, field string, depth int, v reflect.Value) {
	if isNull(n) {
		return // as JSON: null leaves a value what it was
	}
	if v.Kind() == reflect.Pointer {
		target := reflect.New(v.Type().Elem())
		d.into(n, field, depth, target.Elem())
		v.Set(target)
		return
	}
	if v.Addr().Type().Implements(unmarshaler) {
		d.special(n, field, depth, v)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, field, depth, v)
	case reflect.Map:
		d.mapping(n, field, depth, v)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			d.bytes(n, field, v)
			return
		}
		d.list(n, field, depth, v)
	default:
		d.scalar(n, field, v)
	}
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && scalarValue(n) == nil
}

// mark remembers where a field is: at its value when that is a scalar, else at its key.
func (d *decoder) mark(field string, key, value *yaml.Node) {
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	if value.Kind != yaml.ScalarNode || isNull(value) {
		value = key
	}
	d.places[field] = d.place(value)
}

func (d *decoder) structure(n *yaml.Node, field string, depth int, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.problem(n, field, "got %s, want a mapping of %s", describe(n, d.secret), someOf(fieldsOf(v.Type()).names))
		return
	}
	fields := fieldsOf(v.Type())
	given := map[string]bool{}
	for _, e := range d.entries(n, field, depth) {
		known, ok := fields.byName[e.key]
		if !ok {
			given[d.unknown(e, field, fields.names)] = true
			continue
		}
		path := join(field, e.key)
		d.mark(path, e.at, e.value)
		given[e.key] = !isNull(e.value)
		d.value(e.value, path, depth+1, e.merged, v.FieldByIndex(known.index))
	}
	for _, name := range fields.required {
		if !given[name] && !d.stopped {
			d.problem(n, join(field, name), "missing: it must be given")
		}
	}
}

func someOf(names []string) string {
	if len(names) > 8 {
		return "fields such as " + strings.Join(names[:8], ", ")
	}
	return "the fields " + strings.Join(names, ", ")
}

// unknown reports a field that the type does not have. It returns the field that was probably meant, so that it is not
// reported as missing too.
func (d *decoder) unknown(e entry, field string, names []string) (meant string) {
	path := join(field, shorten(e.key))
	hint := suggest(e.key, names)
	for _, name := range names {
		if strings.Contains(hint, "mean "+strconv.Quote(name)) {
			meant = name
			d.reported[join(field, name)] = true
		}
	}
	if hint != "" {
		hint = ": " + hint
	}
	d.problem(e.at, path, "unknown field %s%s", strconv.Quote(shorten(e.key)), hint)
	return meant
}

func (d *decoder) mapping(n *yaml.Node, field string, depth int, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.problem(n, field, "got %s, want a mapping of names to values", describe(n, d.secret))
		return
	}
	entries := d.entries(n, field, depth)
	result := reflect.MakeMapWithSize(v.Type(), len(entries))
	for _, e := range entries {
		path := join(field, e.key)
		d.mark(path, e.at, e.value)
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(e.value, path, depth+1, e.merged, element)
		result.SetMapIndex(reflect.ValueOf(e.key).Convert(v.Type().Key()), element)
	}
	v.Set(result)
}

func (d *decoder) list(n *yaml.Node, field string, depth int, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.problem(n, field, "got %s, want a list", describe(n, d.secret))
		return
	}
	result := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		path := at(field, i)
		d.places[path] = d.place(item)
		d.visit(item, path, depth+1, false, func(item *yaml.Node) {
			if isNull(item) {
				d.problem(item, path, "the element is null: remove it%s", orEmptyText(v.Type().Elem()))
				return
			}
			d.into(item, path, depth+1, result.Index(i))
		})
		if d.stopped {
			return
		}
	}
	v.Set(result)
}

func orEmptyText(t reflect.Type) string {
	if t.Kind() == reflect.String {
		return `, or write ""`
	}
	return ""
}

func (d *decoder) bytes(n *yaml.Node, field string, v reflect.Value) {
	text, ok := scalarValue(n).(string)
	if n.Kind != yaml.ScalarNode || !ok {
		d.problem(n, field, "got %s, want base64 text%s", describe(n, d.secret), quoted(n, d.secret))
		return
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		d.problem(n, field, "the value is not base64: encode it, or in a Secret move it to stringData as plain text")
		return
	}
	v.SetBytes(data)
}

// quoted proposes to write a scalar as text.
func quoted(n *yaml.Node, secret bool) string {
	switch {
	case n.Kind != yaml.ScalarNode:
		return ""
	case secret:
		return ": put it in quotes"
	}
	return ": write " + strconv.Quote(shorten(n.Value))
}

func (d *decoder) scalar(n *yaml.Node, field string, v reflect.Value) {
	var value any
	if n.Kind == yaml.ScalarNode {
		value = scalarValue(n)
	}
	switch v.Kind() {
	case reflect.String:
		text, ok := value.(string)
		if !ok {
			d.problem(n, field, "got %s, want a string%s", describe(n, d.secret), quoted(n, d.secret))
			return
		}
		if allowed := enums[v.Type()]; allowed != nil && text != "" && !slices.Contains(allowed, text) {
			d.problem(n, field, "got %s, want one of %s%s", strconv.Quote(shorten(text)), strings.Join(allowed, ", "),
				meant(text, allowed))
			return
		}
		v.SetString(text)
	case reflect.Bool:
		truth, ok := value.(bool)
		if !ok {
			d.problem(n, field, "got %s, want true or false", describe(n, d.secret))
			return
		}
		v.SetBool(truth)
	case reflect.Int, reflect.Int32, reflect.Int64:
		d.integer(n, field, value, v)
	case reflect.Float64:
		d.number(n, field, value, v)
	default:
		panic(fmt.Sprintf("manifest: field %s has a type %s that nobody taught to decode", field, v.Type()))
	}
}

// meant is suggest for a value whose alternatives are listed already.
func meant(got string, allowed []string) string {
	if hint := suggest(got, allowed); strings.HasPrefix(hint, "did") {
		return "; " + hint
	}
	return ""
}

func (d *decoder) integer(n *yaml.Node, field string, value any, v reflect.Value) {
	const exact = 1 << 53 // above, a float stands for several integers
	number, ok := value.(int64)
	_, tooLarge := value.(uint64)
	if f, isFloat := value.(float64); isFloat && f == math.Trunc(f) && math.Abs(f) <= exact {
		number, ok = int64(f), true
	}
	switch {
	case tooLarge, ok && v.OverflowInt(number):
		highest := int64(math.MaxInt64 >> (64 - v.Type().Bits()))
		d.problem(n, field, "%s is out of range: want an integer between %d and %d", shorten(n.Value), -highest-1, highest)
	case !ok:
		d.problem(n, field, "got %s, want an integer%s", describe(n, d.secret), unquoted(n, isInteger))
	default:
		v.SetInt(number)
	}
}

func (d *decoder) number(n *yaml.Node, field string, value any, v reflect.Value) {
	if !isNumber(value) {
		d.problem(n, field, "got %s, want a finite number%s", describe(n, d.secret), unquoted(n, isNumber))
		return
	}
	v.Set(reflect.ValueOf(value).Convert(v.Type()))
}

func isInteger(value any) bool {
	_, is := value.(int64)
	return is
}

// isNumber tells whether a value is a number that JSON has: neither an infinite one nor NaN.
func isNumber(value any) bool {
	switch value := value.(type) {
	case int64, uint64:
		return true
	case float64:
		return !math.IsNaN(value) && !math.IsInf(value, 0)
	}
	return false
}

// unquoted proposes to write a quoted number without the quotes when it fits then.
func unquoted(n *yaml.Node, fits func(value any) bool) string {
	if text, ok := scalarValue(n).(string); ok && n.Kind == yaml.ScalarNode && fits(resolvePlain(text)) {
		return ": write it without quotes"
	}
	return ""
}

// special decodes a type that reads its JSON itself, such as a quantity or a time.
func (d *decoder) special(n *yaml.Node, field string, depth int, v reflect.Value) {
	problems := len(d.problems)
	value := d.plain(n, field, depth)
	if len(d.problems) > problems || d.stopped {
		return
	}
	data, err := json.Marshal(value)
	if err == nil {
		err = v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(data)
	}
	if err == nil {
		return
	}
	v.SetZero()
	d.problem(n, field, "got %s, want %s", describe(n, d.secret), wanted(v.Addr().Interface()))
}

func wanted(target any) string {
	switch target.(type) {
	case *resource.Quantity:
		return `a quantity such as 2, "500m" or "1Gi"`
	case *intstr.IntOrString:
		return "an integer or a string"
	case *metav1.Time, *metav1.MicroTime:
		return `a time such as "2006-01-02T15:04:05Z"`
	case *metav1.Duration:
		return `a duration such as "1h30m"`
	}
	return "a JSON object"
}

// plain returns a node as encoding/json would write it: nil, bool, string, number, []any or map[string]any.
func (d *decoder) plain(n *yaml.Node, field string, depth int) any {
	switch n.Kind {
	case yaml.ScalarNode:
		return scalarValue(n)
	case yaml.SequenceNode:
		items := make([]any, len(n.Content))
		for i, item := range n.Content {
			d.visit(item, field, depth+1, false, func(item *yaml.Node) { items[i] = d.plain(item, field, depth+1) })
		}
		return items
	}
	object := map[string]any{}
	for _, e := range d.entries(n, field, depth) {
		d.visit(e.value, field, depth+1, e.merged, func(value *yaml.Node) {
			object[e.key] = d.plain(value, field, depth+1)
		})
	}
	return object
}
