package manifest

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// maxDepth is how deep values may be nested. The deepest Kubernetes object needs about 20.
	maxDepth = 100
	// maxAliased is how many values a document may take from aliases altogether.
	maxAliased = 200_000
	// maxProblems is how many problems of one document are told.
	maxProblems = 100
)

// place is a position in a file.
type place struct{ line, column int }

// entry is one key of a mapping with its value, after merge keys (<<) have been followed.
type entry struct {
	key    string
	at     *yaml.Node // the key
	value  *yaml.Node // aliases followed
	merged bool
}

// tree reads a document's syntax nodes: it follows aliases and merge keys, guards against documents that are built to
// be endless, and collects problems with their places.
type tree struct {
	file     string
	source   syntaxNode
	object   string // for problems, once known
	secret   bool   // whether values must not be shown
	problems Problems
	unsaid   int // problems beyond maxProblems
	left     int // values that may still be taken from aliases
	aliased  int // how many aliases are being followed
	open     map[*yaml.Node]bool
	stopped  bool
}

func newTree(file string, source syntaxNode) *tree {
	return &tree{file: file, source: source, open: map[*yaml.Node]bool{}, left: -1}
}

func (t *tree) place(n *yaml.Node) place {
	if n == nil {
		return place{line: t.source.offset + 1, column: 1}
	}
	return place{line: t.source.offset + n.Line, column: n.Column}
}

// problem records an error at a node.
func (t *tree) problem(n *yaml.Node, field, format string, args ...any) {
	if len(t.problems) >= maxProblems {
		t.unsaid++
		return
	}
	at := t.place(n)
	p := Problem{Severity: Error, File: t.file, Line: at.line, Column: at.column, Object: t.object, Field: field,
		Message: fmt.Sprintf(format, args...)}
	if n != nil && n.Kind == yaml.ScalarNode && !t.secret {
		p.Value = shorten(n.Value)
	}
	t.problems = append(t.problems, p)
}

// stop records an error after which the rest of the document is not read.
func (t *tree) stop(n *yaml.Node, field, format string, args ...any) {
	if !t.stopped {
		t.stopped = true
		t.problem(n, field, format, args...)
	}
}

// visit calls read with a value, following it if it is an alias, unless it must not be read. With again set the value
// is read a second time, through a merge key.
func (t *tree) visit(n *yaml.Node, field string, depth int, again bool, read func(n *yaml.Node)) {
	if t.stopped {
		return
	}
	if depth > maxDepth {
		t.stop(n, "", "values are nested more than %d deep", maxDepth)
		return
	}
	if n.Kind == yaml.AliasNode {
		if t.open[n.Alias] {
			t.stop(n, field, "alias *%s is inside of what anchor &%s names: it would never end", n.Value, n.Value)
			return
		}
		n, again = n.Alias, true
	}
	if again {
		t.aliased++
		defer func() { t.aliased-- }()
	}
	if t.aliased > 0 && !t.spend(n, field) || !t.checkTag(n, field) {
		return
	}
	if n.Kind != yaml.ScalarNode {
		t.open[n] = true
		defer delete(t.open, n)
	}
	read(n)
}

// spend counts values that are read a second time through an alias or a merge key.
func (t *tree) spend(n *yaml.Node, field string) bool {
	if t.stopped {
		return false
	}
	if t.left < 0 {
		// In proportion to the document, because nobody writes less than a tenth of what is meant.
		t.left = min(maxAliased, 500+10*countNodes(t.source.root))
	}
	if t.left--; t.left < 0 {
		t.left = 0
		t.stop(n, field, "aliases make this document far larger than it is written; write the values out")
		return false
	}
	return true
}

func countNodes(n *yaml.Node) int {
	count := 1
	for _, child := range n.Content {
		count += countNodes(child)
	}
	return count
}

// checkTag refuses explicit tags: JSON, which is what Kubernetes makes of a manifest, has none, except !!str on text
// and the tags of lists and mappings, which change nothing.
func (t *tree) checkTag(n *yaml.Node, field string) bool {
	tag := ""
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		tag = n.Tag
	case n.Kind == yaml.ScalarNode && n.Style == 0 && t.bareTag(n):
		tag = "!"
	}
	want := map[yaml.Kind]string{yaml.ScalarNode: "!!str", yaml.MappingNode: "!!map", yaml.SequenceNode: "!!seq"}
	if tag == "" || tag == want[n.Kind] {
		return true
	}
	t.problem(n, field, "tag %s is not supported in a manifest: write the value without it", shorten(tag))
	return false
}

// bareTag tells whether a plain scalar is written with the tag "!", which the parser does not keep although it turns
// numbers into text.
func (t *tree) bareTag(n *yaml.Node) bool {
	if n.Line < 1 || n.Line > len(t.source.lines) {
		return false
	}
	text := string(t.source.lines[n.Line-1])
	for column := 1; column < n.Column && text != ""; column++ {
		_, size := utf8.DecodeRuneInString(text)
		text = text[size:]
	}
	if strings.HasPrefix(text, "&") {
		_, text, _ = strings.Cut(text, " ")
		text = strings.TrimLeft(text, " \t")
	}
	return strings.HasPrefix(text, "!")
}

// entries returns the keys of a mapping in the order of the file, each once. Merge keys are followed.
func (t *tree) entries(n *yaml.Node, field string, depth int) []entry {
	var entries []entry
	index := make(map[string]int, len(n.Content)/2)
	var merge *yaml.Node
	var before int // how many entries are written before the merge key
	for i := 0; i+1 < len(n.Content) && !t.stopped; i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.Tag == "!!merge" && key.Style == 0 && !t.bareTag(key) {
			if merge != nil {
				t.problem(key, field, "merge key << is given twice; merge a list instead: <<: [*a, *b]")
				continue
			}
			merge, before = value, len(entries)
			continue
		}
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			t.problem(key, field, "%s cannot be a key", describe(key, t.secret))
			continue
		}
		if !t.checkTag(key, field) {
			continue
		}
		text, ok := keyText(key)
		if !ok {
			t.problem(key, field, "key %s is read as a %s: write it in quotes", key.Value, kindOfKey(key))
			continue
		}
		if first, found := index[text]; found {
			t.problem(key, join(field, text), "the key is given twice; first on line %d",
				t.place(entries[first].at).line)
			continue
		}
		index[text] = len(entries)
		entries = append(entries, entry{key: text, at: key, value: value})
	}
	if merge == nil {
		return entries
	}
	for _, e := range t.merged(merge, field, depth+1) {
		first, found := index[e.key]
		switch {
		case !found:
			e.merged = true
			index[e.key] = len(entries)
			entries = append(entries, e)
		case first < before:
			t.problem(entries[first].at, join(field, e.key),
				"the key is written before the merge key << that has it too, and readers of YAML differ on which one "+
					"counts: put << first")
		}
	}
	return entries
}

func kindOfKey(n *yaml.Node) string {
	switch scalarValue(n).(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	}
	return "number"
}

// merged returns the entries that a merge key brings in: of a mapping or of a list of mappings, where the first wins.
func (t *tree) merged(n *yaml.Node, field string, depth int) []entry {
	var all []entry
	seen := map[string]bool{}
	add := func(mapping *yaml.Node) {
		for _, e := range t.entries(mapping, field, depth) {
			if !seen[e.key] {
				seen[e.key] = true
				all = append(all, e)
			}
		}
	}
	t.visit(n, field, depth, true, func(target *yaml.Node) {
		if target.Kind == yaml.MappingNode {
			add(target)
			return
		}
		if target.Kind != yaml.SequenceNode || n.Kind == yaml.AliasNode {
			t.problem(n, field, "merge key << wants a mapping or a list of mappings, got %s", describe(target, t.secret))
			return
		}
		for _, item := range target.Content {
			t.visit(item, field, depth+1, true, func(mapping *yaml.Node) {
				if mapping.Kind != yaml.MappingNode {
					t.problem(item, field, "merge key << wants mappings, got %s", describe(mapping, t.secret))
					return
				}
				add(mapping)
			})
		}
	})
	return all
}
