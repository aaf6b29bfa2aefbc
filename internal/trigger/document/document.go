// Package document finds a number in a document of a foreign server: JSON, YAML or XML.
package document

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
)

// What may be wrong with a document. The texts continue a sentence about what is looked for.
var (
	// ErrNothing means that there is nothing at the path.
	ErrNothing = errors.New("is not there; correct the path or the format")
	// ErrNoNumber means that something else is at the path.
	ErrNoNumber = errors.New("is not a number; correct the path")
	// ErrFormat means that the document is not of the format.
	ErrFormat = errors.New("cannot be read, because the document is not of the format")
)

// maxDepth is how deep the elements of a document may lie in each other.
const maxDepth = 1000

// JSON returns what is at a GJSON path (https://github.com/tidwall/gjson/blob/master/SYNTAX.md): a float64, a string,
// or anything else that is no number.
func JSON(document []byte, path string) (any, error) {
	// GJSON takes anything for JSON. A path that begins with two dots reads lines, each a document of its own.
	if !strings.HasPrefix(path, "..") && !json.Valid(document) {
		return nil, fmt.Errorf("%w json", ErrFormat)
	}
	found := gjson.GetBytes(document, path)
	if !found.Exists() {
		return nil, ErrNothing
	}
	return found.Value(), nil
}

// YAML returns what is at a path of names, and positions in lists, with dots between them. As in KEDA, what follows in
// the path after a single value has been reached is ignored.
func YAML(document []byte, path string) (any, error) {
	var tree any
	if err := yaml.Unmarshal(document, &tree); err != nil {
		return nil, fmt.Errorf("%w yaml", ErrFormat)
	}
	return find(tree, path)
}

// XML returns what is at a path as YAML does, which begins with the name of the root element. Elements of one name
// beside each other are a list; attributes and namespaces are ignored.
func XML(document []byte, path string) (any, error) {
	tree, err := parseXML(document)
	if err != nil {
		return nil, err
	}
	return find(tree, path)
}

func find(tree any, path string) (any, error) {
	current := tree
	for key := range strings.SplitSeq(path, ".") {
		next, found := any(nil), false
		switch node := current.(type) {
		case map[string]any:
			next, found = node[key]
		case map[any]any: // YAML's, where a key is not a text
			for k, v := range node {
				if fmt.Sprint(k) == key {
					next, found = v, true
				}
			}
		case []any:
			if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(node) {
				next, found = node[i], true
			}
		default:
			return node, nil
		}
		if !found {
			return nil, ErrNothing
		}
		current = next
	}
	return current, nil
}

// Number returns a value as a number; a string as Quantity does.
func Number(value any) (float64, error) {
	switch value := value.(type) {
	case int:
		return float64(value), nil
	case int64:
		return float64(value), nil
	case uint64:
		return float64(value), nil
	case float64:
		return value, nil
	case string:
		return Quantity(value)
	default:
		return 0, ErrNoNumber
	}
}

// sane is what a quantity may look like. The parser takes more, and may then compute for hours.
var sane = regexp.MustCompile(`^[+-]?[0-9.]{1,100}([a-zA-Z]{0,2}|[eE][+-]?[0-9]{1,3})$`)

// Quantity reads a number as Kubernetes writes amounts, for example 12, 1.5, 500m, 2k, 2Ki or 2e3, as KEDA does.
func Quantity(text string) (float64, error) {
	if !sane.MatchString(text) {
		return 0, ErrNoNumber
	}
	amount, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, ErrNoNumber
	}
	return amount.AsApproximateFloat64(), nil
}

// element is an XML element that is being read.
type element struct {
	name     string
	text     strings.Builder
	children map[string]any
}

// add adds a child; of several with one name there is a list.
func (e *element) add(name string, child any) {
	if e.children == nil {
		e.children = map[string]any{}
	}
	switch present := e.children[name].(type) {
	case nil:
		e.children[name] = child
	case []any:
		e.children[name] = append(present, child)
	default:
		e.children[name] = []any{present, child}
	}
}

// parseXML returns the document as a tree: elements with elements in them are maps by the names of those, elements of
// one name beside each other are a list, and all others are their text without the space around it.
func parseXML(document []byte) (any, error) {
	invalid := fmt.Errorf("%w xml", ErrFormat)
	decoder := xml.NewDecoder(bytes.NewReader(document))
	stack := []*element{{}}
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) && len(stack) == 1 && stack[0].children != nil {
			return stack[0].children, nil
		}
		if err != nil {
			return nil, invalid
		}
		top := stack[len(stack)-1]
		switch token := token.(type) {
		case xml.StartElement:
			if len(stack) > maxDepth {
				return nil, invalid
			}
			stack = append(stack, &element{name: token.Name.Local})
		case xml.CharData:
			top.text.Write(token)
		case xml.EndElement:
			stack = stack[:len(stack)-1]
			child := any(top.children)
			if top.children == nil {
				child = strings.TrimSpace(top.text.String())
			}
			stack[len(stack)-1].add(top.name, child)
		}
	}
}
