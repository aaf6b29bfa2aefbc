package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// MaxObjectSize is the largest object that ValidateObject checks, in bytes of JSON without what the server adds. It is
// many times what a Pod template needs; one of this size may take 60 MiB of memory to check.
const MaxObjectSize = 128 << 10

// ValidateObject says of one object, in JSON as an API server holds it, what ValidateForCluster says of the manifest
// from which it was made. The problems have no place in a file, and come in the order of the JSON.
//
// Four things differ, because they are not the author's words or are nobody's to say of an object by itself: the
// status, and the metadata that only the server writes, are not looked at; references are not followed; and a source of
// a TriggerAuthentication that Offboard does not support is a warning, since the object may be there for KEDA. Of an
// object above MaxObjectSize it only warns that it has not been checked.
func ValidateObject(data []byte, types []trigger.Type) Problems {
	text, err := objectText(data)
	switch {
	case errors.Is(err, errTooLarge):
		return Problems{{Severity: Warning, Message: err.Error()}}
	case err != nil:
		return Problems{{Severity: Error, Message: fmt.Sprintf("the object cannot be read: %v", err)}}
	}
	roots, err := parseChunk(jsonAsYAML(text))
	if err != nil {
		return Problems{{Severity: Error, Message: fmt.Sprintf("the object cannot be read: %v", err)}}
	}
	set := &Set{}
	lines := bytes.Split(text, []byte("\n"))
	for _, root := range roots {
		set.read("", syntaxNode{root: root, lines: lines})
	}
	problems := set.Sort(append(set.Problems, set.check(types, true, nil)...))
	for i := range problems {
		problems[i].Line, problems[i].Column = 0, 0 // of a text that nobody sees
	}
	return problems
}

// authored are the fields of metadata that validation looks at.
var authored = []string{"name", "generateName", "namespace", "labels", "annotations", "finalizers"}

var errTooLarge = fmt.Errorf("the object is larger than %d KiB and has not been checked", MaxObjectSize>>10)

// objectText writes an object's JSON so that the reader of manifests can take it: without the fields that are the
// server's, one value a line, and with escapes for what may stand in JSON but not in YAML.
func objectText(data []byte) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, err
	}
	delete(object, "status")
	var metadata map[string]json.RawMessage
	if json.Unmarshal(object["metadata"], &metadata) == nil {
		kept := map[string]json.RawMessage{}
		for _, name := range authored {
			if value, found := metadata[name]; found {
				kept[name] = value
			}
		}
		encoded, err := json.Marshal(kept)
		if err != nil {
			return nil, err
		}
		object["metadata"] = encoded
	}
	compact, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	if len(compact) > MaxObjectSize {
		return nil, errTooLarge
	}
	// Lines are what a place is found by, so one long line would take time in the square of its length.
	var lined bytes.Buffer
	if err := json.Indent(&lined, compact, "", ""); err != nil {
		return nil, err
	}
	return escapeUnprintable(lined.Bytes()), nil
}

// escapeUnprintable writes the characters as \u escapes that YAML does not allow or takes for line breaks. In JSON they
// are in strings only. Bytes that are not UTF-8 become U+FFFD, as for every reader of JSON.
func escapeUnprintable(text []byte) []byte {
	escaped := make([]byte, 0, len(text))
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == '\n', printable(r) && r != '\ufeff' && r != 0x85 && r != 0x2028 && r != 0x2029 && size > 0 &&
			(r != utf8.RuneError || size > 1):
			escaped = append(escaped, text[i:i+size]...)
		default:
			escaped = fmt.Appendf(escaped, `\u%04x`, r) // beyond U+FFFF all are printable
		}
		i += size
	}
	return escaped
}
