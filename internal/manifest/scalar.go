package manifest

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The words that YAML 1.1 reads as something else than text. kubectl follows YAML 1.1 and so must we: `value: on` is a
// boolean there, although YAML 1.2 and go.yaml.in/yaml/v3 see a string.
var plainWords = map[string]any{
	"": nil, "~": nil, "null": nil, "Null": nil, "NULL": nil,
	"y": true, "Y": true, "yes": true, "Yes": true, "YES": true,
	"n": false, "N": false, "no": false, "No": false, "NO": false,
	"true": true, "True": true, "TRUE": true, "on": true, "On": true, "ON": true,
	"false": false, "False": false, "FALSE": false, "off": false, "Off": false, "OFF": false,
	".nan": math.NaN(), ".NaN": math.NaN(), ".NAN": math.NaN(),
	".inf": math.Inf(1), ".Inf": math.Inf(1), ".INF": math.Inf(1),
	"+.inf": math.Inf(1), "+.Inf": math.Inf(1), "+.INF": math.Inf(1),
	"-.inf": math.Inf(-1), "-.Inf": math.Inf(-1), "-.INF": math.Inf(-1),
}

var plainFloat = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)

// resolvePlain returns what an unquoted scalar means: nil, a bool, int64, uint64 (only when too large for int64),
// float64 or string. Dates stay text, as they do in Kubernetes.
func resolvePlain(text string) any {
	if value, ok := plainWords[text]; ok {
		return value
	}
	switch c := text[0]; {
	case c == '.':
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	case c == '+' || c == '-' || c >= '0' && c <= '9':
		return resolveNumber(strings.ReplaceAll(text, "_", ""), text)
	}
	return text
}

func resolveNumber(digits, text string) any {
	if i, err := strconv.ParseInt(digits, 0, 64); err == nil {
		return i
	}
	if u, err := strconv.ParseUint(digits, 0, 64); err == nil {
		return u
	}
	if plainFloat.MatchString(digits) {
		if f, err := strconv.ParseFloat(digits, 64); err == nil {
			return f
		}
	}
	if rest, found := strings.CutPrefix(digits, "0b"); found {
		if i, err := strconv.ParseInt(rest, 2, 64); err == nil {
			return i
		}
	}
	return text
}

// scalarValue returns what a scalar node means. Only plain scalars are anything but text.
func scalarValue(n *yaml.Node) any {
	const quoted = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle |
		yaml.TaggedStyle
	if n.Style&quoted != 0 {
		return n.Value
	}
	return resolvePlain(n.Value)
}

// keyText returns the text of a mapping's key. JSON keys are text; a number or boolean is accepted only when it is
// written as it would be read, so that `on: x` does not silently become the key "true".
func keyText(n *yaml.Node) (text string, ok bool) {
	switch v := scalarValue(n).(type) {
	case string:
		return v, true
	case bool:
		text = strconv.FormatBool(v)
	case int64:
		text = strconv.FormatInt(v, 10)
	case float64:
		text = strconv.FormatFloat(v, 'g', -1, 32)
	}
	return text, text == n.Value && text != ""
}

// describe names the kind of a node's value, and the value unless it is secret, for "got …".
func describe(n *yaml.Node, secret bool) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	kind, article, value := "string", "a", strconv.Quote(shorten(n.Value))
	switch scalarValue(n).(type) {
	case nil:
		return "null"
	case bool:
		kind, value = "boolean", n.Value
	case int64, uint64:
		kind, article, value = "integer", "an", shorten(n.Value)
	case float64:
		kind, value = "number", shorten(n.Value)
	}
	if secret {
		return article + " " + kind
	}
	return kind + " " + value
}

// shorten cuts a value to what a message can hold.
func shorten(s string) string {
	const most = 60
	count := 0
	for i := range s {
		if count == most {
			return s[:i] + "…"
		}
		count++
	}
	return s
}
