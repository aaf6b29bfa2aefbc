package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxFileSize is the largest manifest file that is read, in bytes.
const MaxFileSize = 4 << 20

// maxDocuments is how many documents a file may have.
const maxDocuments = 10_000

// syntaxNode is one document of a file as parsed, before it is known what it means. Lines of root count from 1 at the
// line after offset.
type syntaxNode struct {
	root   *yaml.Node
	lines  [][]byte
	offset int
}

// syntaxError is a place in a file that is not YAML.
type syntaxError struct {
	line, column int
	message      string
}

// splitDocuments parses a file's documents. It reads on after a document with a syntax error, so that one run tells
// about every broken document.
func splitDocuments(data []byte) ([]syntaxNode, []syntaxError) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if broken := checkText(data); broken != nil {
		return nil, []syntaxError{*broken}
	}
	var documents []syntaxNode
	var broken []syntaxError
	offset := 0
	for _, chunk := range chunks(data) {
		if len(documents)+len(broken) >= maxDocuments {
			return documents, append(broken, syntaxError{offset + 1, 1,
				fmt.Sprintf("the file has more than %d documents: split it", maxDocuments)})
		}
		if blank(chunk) {
			offset += bytes.Count(chunk, []byte("\n"))
			continue
		}
		roots, err := parseChunk(jsonAsYAML(chunk))
		lines := bytes.Split(chunk, []byte("\n"))
		for _, root := range roots {
			documents = append(documents, syntaxNode{root: root, lines: lines, offset: offset})
		}
		if err != nil {
			broken = append(broken, locate(err, lines, offset))
		}
		offset += bytes.Count(chunk, []byte("\n"))
	}
	return documents, broken
}

// checkText finds the first character that YAML does not allow, which the parser would report without a place.
func checkText(data []byte) *syntaxError {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return &syntaxError{1, 1, "the file is UTF-16: save it as UTF-8"}
	}
	line, column := 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return &syntaxError{line, column, fmt.Sprintf("byte 0x%02x is not UTF-8: save the file as UTF-8", data[i])}
		case r == '\ufeff':
			return &syntaxError{line, column, "byte order mark in the middle of the file: remove it"}
		case !printable(r):
			return &syntaxError{line, column,
				fmt.Sprintf("control character U+%04X: write it as an escape in double quotes", r)}
		case r == '\n':
			line, column = line+1, 0
		}
		column++
		i += size
	}
	return nil
}

// printable is YAML 1.1's c-printable.
func printable(r rune) bool {
	switch {
	case r == '\t', r == '\n', r == '\r', r == 0x85, r >= 0x20 && r <= 0x7e:
		return true
	}
	return r >= 0xa0 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000
}

// chunks cuts a file before each line that starts with the document marker ---, which YAML allows nowhere else at the
// start of a line. Directives stay with the marker that follows them. The chunks joined are the file.
func chunks(data []byte) [][]byte {
	var cut [][]byte
	start, directives := 0, -1
	for at := 0; at < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		line := data[at:end]
		switch {
		case bytes.HasPrefix(line, []byte("---")) && (len(line) == 3 || bytes.IndexByte([]byte(" \t\r\n"), line[3]) >= 0):
			if directives >= 0 {
				at = directives
			}
			if at > start {
				cut = append(cut, data[start:at])
				start = at
			}
			directives = -1
		case line[0] == '%':
			if directives < 0 {
				directives = at
			}
		case len(bytes.TrimSpace(line)) > 0 && line[0] != '#':
			directives = -1
		}
		at = end
	}
	return append(cut, data[start:])
}

// blank tells whether a chunk holds nothing but a marker, comments and space.
func blank(chunk []byte) bool {
	for line := range bytes.Lines(chunk) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && string(line) != "---" {
			return false
		}
	}
	return true
}

// parseChunk returns the documents of a chunk up to the first syntax error.
func parseChunk(chunk []byte) (roots []*yaml.Node, err error) {
	// The parser is a large translation of a C library, and files come from anywhere: a bug in it that a hostile file
	// finds must not end a process that runs other people's Jobs.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the YAML parser failed on this document: %v", r)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(chunk))
	for {
		var document yaml.Node
		if err := decoder.Decode(&document); err != nil {
			if errors.Is(err, io.EOF) {
				return roots, nil
			}
			return roots, err
		}
		if len(document.Content) > 0 {
			roots = append(roots, document.Content[0])
		}
	}
}

var (
	parserLine    = regexp.MustCompile(`^yaml: line (\d+): `)
	tabMessage    = regexp.MustCompile(`cannot start any token|tab character`)
	unknownAnchor = regexp.MustCompile(`unknown anchor '(.*)' referenced`)
)

// locate turns a parser's error into a place. The parser knows the line at best.
func locate(err error, lines [][]byte, offset int) syntaxError {
	message := err.Error()
	line, column := 1, 1
	if m := parserLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
	}
	message = strings.TrimPrefix(message, "yaml: ")
	if m := unknownAnchor.FindStringSubmatch(message); m != nil {
		message = fmt.Sprintf("alias *%s: no anchor &%s comes before it in this document", m[1], m[1])
		for i, text := range lines {
			if at := bytes.Index(text, []byte("*"+m[1])); at >= 0 {
				line, column = i+1, utf8.RuneCount(text[:at])+1
				break
			}
		}
	} else if at, ok := tabIndent(lines, line); ok && tabMessage.MatchString(message) {
		line, column = at, 1
		message = "a tab in the indentation: YAML is indented with spaces only"
	} else {
		message = "not valid YAML: " + message
	}
	return syntaxError{line + offset, column, message}
}

// tabIndent finds a line near the one that broke which is indented with a tab.
func tabIndent(lines [][]byte, near int) (line int, ok bool) {
	for i := max(0, near-2); i < min(len(lines), near+2); i++ {
		indent := lines[i][:len(lines[i])-len(bytes.TrimLeft(lines[i], " \t"))]
		if bytes.IndexByte(indent, '\t') >= 0 {
			return i + 1, true
		}
	}
	return 0, false
}

// jsonAsYAML replaces what JSON allows and the YAML parser does not: tabs between values become spaces, escaped slashes
// become slashes, and pairs of \u escapes the characters beyond U+FFFF that they stand for. It leaves anything but JSON
// alone. Columns count as if those had been written.
func jsonAsYAML(chunk []byte) []byte {
	if !json.Valid(chunk) {
		return chunk
	}
	replaced := make([]byte, 0, len(chunk))
	inText := false
	for i := 0; i < len(chunk); i++ {
		switch c := chunk[i]; {
		case c == '"':
			inText = !inText
			replaced = append(replaced, c)
		case c == '\t' && !inText:
			replaced = append(replaced, ' ')
		case c == '\\':
			escaped, length := jsonEscape(chunk[i:])
			replaced = append(replaced, escaped...)
			i += length - 1
		default:
			replaced = append(replaced, c)
		}
	}
	return replaced
}

// jsonEscape returns how YAML writes the escape at the start of text, and how long it is in JSON.
func jsonEscape(text []byte) (escaped []byte, length int) {
	if text[1] == '/' {
		return text[1:2], 2
	}
	high, ok := unicodeEscape(text)
	if !ok || !utf16.IsSurrogate(high) {
		return text[:2], 2
	}
	low, _ := unicodeEscape(text[6:])
	if r := utf16.DecodeRune(high, low); r != utf8.RuneError {
		return utf8.AppendRune(nil, r), 12
	}
	return utf8.AppendRune(nil, utf8.RuneError), 6 // half a pair, which readers of JSON replace likewise
}

// unicodeEscape reads \uXXXX at the start of text.
func unicodeEscape(text []byte) (r rune, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 32)
	return rune(n), err == nil
}
