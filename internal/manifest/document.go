package manifest

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/spelling"
)

// Document is one object of a manifest.
type Document struct {
	// File is where it was read, Line the line on which it starts.
	File string
	Line int
	// APIVersion and Kind are as written.
	APIVersion, Kind string
	// Namespace is default when none is written, and empty for a ClusterTriggerAuthentication.
	Namespace, Name string
	// Object is a *v1alpha1.ScaledJob, *v1alpha1.TriggerAuthentication, *v1alpha1.ClusterTriggerAuthentication,
	// *corev1.Secret or *corev1.ConfigMap; nil for a kind that is no concern of Offboard. It is incomplete when there
	// is a problem of severity Error with the document. The stringData of a Secret is merged into its data.
	Object runtime.Object

	listed bool // an item of a list
	places map[string]place
	// reported are the fields that reading found broken; validation has nothing to add about them.
	reported map[string]bool
}

// String names the object as Kind namespace/name.
func (d *Document) String() string {
	name := d.Name
	if d.Namespace != "" {
		name = d.Namespace + "/" + name
	}
	return strings.TrimSuffix(d.Kind+" "+name, " ")
}

// Problem makes a problem of this document. path is the field within the object; nil means the object as a whole. A
// field that is not there has the place of the nearest one around it.
func (d *Document) Problem(severity Severity, path *field.Path, value any, message string) Problem {
	name := canonical(path.String())
	if path == nil {
		name = ""
	}
	at := d.find(name)
	p := Problem{Severity: severity, File: d.File, Line: at.line, Column: at.column, Object: d.String(), Field: name,
		Message: message}
	if _, secret := d.Object.(*corev1.Secret); value != nil && !secret {
		p.Value = shorten(fmt.Sprint(value))
	}
	return p
}

// FieldProblems makes problems of errors whose fields are paths within this document's object.
func (d *Document) FieldProblems(severity Severity, errs field.ErrorList) Problems {
	var problems Problems
	for _, err := range errs {
		p := d.Problem(severity, field.NewPath(err.Field), nil, fieldMessage(err))
		switch value := err.BadValue.(type) {
		case string, bool, int, int32, int64, float64:
			p = d.Problem(severity, field.NewPath(err.Field), value, fieldMessage(err))
		}
		problems = append(problems, p)
	}
	return problems
}

// fieldMessage says what a field error says, without the field, which a problem has of its own.
func fieldMessage(err *field.Error) string {
	switch {
	case err.Detail == "":
		return strings.ToLower(err.Type.String())
	case err.Type == field.ErrorTypeRequired:
		return "missing: " + err.Detail
	}
	if value, ok := err.BadValue.(string); ok && value != "" && err.Type == field.ErrorTypeInvalid {
		return strconv.Quote(shorten(value)) + ": " + err.Detail
	}
	return err.Detail
}

// find returns the place of a field or, when it is not there, of the nearest one around it.
func (d *Document) find(name string) place {
	for name != "" {
		if at, ok := d.places[name]; ok {
			return at
		}
		if i := strings.LastIndexAny(name, ".["); i > 0 {
			name = name[:i]
		} else {
			name = ""
		}
	}
	if at, ok := d.places[""]; ok {
		return at
	}
	return place{line: d.Line, column: 1}
}

// canonical writes the keys of maps in a path as join does: field.Path puts all of them in brackets.
func canonical(path string) string {
	var b strings.Builder
	for {
		open := strings.IndexByte(path, '[')
		end := strings.IndexByte(path, ']')
		if open < 0 || end < open {
			b.WriteString(path)
			return b.String()
		}
		b.WriteString(path[:open])
		if key := path[open+1 : end]; plainKey(key) && key != "" {
			b.WriteString("." + key)
		} else {
			b.WriteString(path[open : end+1])
		}
		path = path[end+1:]
	}
}

// knownKinds make the objects that Offboard reads, by kind. Their apiVersions follow.
var knownKinds = map[string]func() runtime.Object{
	v1alpha1.KindScaledJob:                    func() runtime.Object { return &v1alpha1.ScaledJob{} },
	v1alpha1.KindTriggerAuthentication:        func() runtime.Object { return &v1alpha1.TriggerAuthentication{} },
	v1alpha1.KindClusterTriggerAuthentication: func() runtime.Object { return &v1alpha1.ClusterTriggerAuthentication{} },
	"Secret":    func() runtime.Object { return &corev1.Secret{} },
	"ConfigMap": func() runtime.Object { return &corev1.ConfigMap{} },
}

var (
	kedaKinds = []string{v1alpha1.KindScaledJob, v1alpha1.KindTriggerAuthentication,
		v1alpha1.KindClusterTriggerAuthentication}
	coreKinds = []string{"Secret", "ConfigMap"}
)

// read adds the objects of one parsed document to the set.
func (s *Set) read(file string, source syntaxNode) {
	t := newTree(file, source)
	s.object(t, source.root, "", "", 1)
	if t.unsaid > 0 {
		t.problems = append(t.problems, Problem{Severity: Error, File: file, Line: t.place(source.root).line, Column: 1,
			Message: fmt.Sprintf("%d more problems in this document are not listed", t.unsaid)})
	}
	s.Problems = append(s.Problems, t.problems...)
}

// object adds the object of a node, or the objects of a list. Items of a typed list need not say what they are.
func (s *Set) object(t *tree, n *yaml.Node, apiVersion, kind string, depth int) {
	t.object, t.secret = "", false
	t.visit(n, "", depth, false, func(n *yaml.Node) {
		if isNull(n) {
			return // an empty document
		}
		if n.Kind != yaml.MappingNode {
			t.problem(n, "", "got %s, want an object with apiVersion, kind and metadata", describe(n, true))
			return
		}
		header := s.header(t, n, apiVersion, kind)
		if header == nil {
			return
		}
		if itemKind, isList := strings.CutSuffix(header.Kind, "List"); isList && s.isList(header) {
			s.items(t, n, header.APIVersion, itemKind, depth)
			return
		}
		header.listed = depth > 1
		s.Documents = append(s.Documents, header)
		t.checkSpelling(n, header)
		if newObject := knownKinds[header.Kind]; newObject != nil && t.rightVersion(n, header) {
			header.Object = newObject()
			decodeObject(t, n, header, depth)
		}
	})
}

// isList tells whether a kind that ends in List is one that is taken apart.
func (s *Set) isList(d *Document) bool {
	item := strings.TrimSuffix(d.Kind, "List")
	return item == "" || knownKinds[item] != nil
}

func (s *Set) items(t *tree, n *yaml.Node, apiVersion, kind string, depth int) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "items" {
			continue
		}
		t.visit(n.Content[i+1], "items", depth+1, false, func(items *yaml.Node) {
			if items.Kind != yaml.SequenceNode {
				t.problem(items, "items", "got %s, want a list of objects", describe(items, true))
				return
			}
			if kind == "" {
				apiVersion = ""
			}
			for _, item := range items.Content {
				s.object(t, item, apiVersion, kind, depth+2)
			}
		})
	}
}

// header reads what an object is. It looks at nothing else, so that objects of other kinds may hold anything.
func (s *Set) header(t *tree, n *yaml.Node, apiVersion, kind string) *Document {
	d := &Document{File: t.file, Line: t.place(n).line, APIVersion: apiVersion, Kind: kind, places: map[string]place{},
		reported: map[string]bool{}}
	ok := true
	text := func(n *yaml.Node, field string, into *string) {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		value, isText := scalarValue(n).(string)
		if n.Kind != yaml.ScalarNode || !isText || value == "" {
			t.problem(n, field, "got %s, want a string", describe(n, true))
			ok = false
			return
		}
		*into = value
	}
	var metadata *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch value := n.Content[i+1]; n.Content[i].Value {
		case "apiVersion":
			text(value, "apiVersion", &d.APIVersion)
		case "kind":
			text(value, "kind", &d.Kind)
		case "metadata":
			metadata = value
		}
	}
	if !ok {
		return nil
	}
	for _, missing := range []struct{ field, value, example string }{
		{"apiVersion", d.APIVersion, v1alpha1.GroupVersion.String()}, {"kind", d.Kind, v1alpha1.KindScaledJob},
	} {
		if missing.value == "" {
			t.problem(n, missing.field, "missing: every object needs it, for example %s: %s", missing.field, missing.example)
			ok = false
		}
	}
	if !ok {
		return nil
	}
	for i := 0; metadata != nil && i+1 < len(metadata.Content) && metadata.Kind == yaml.MappingNode; i += 2 {
		switch value := metadata.Content[i+1]; metadata.Content[i].Value {
		case "name":
			d.Name = value.Value
		case "namespace":
			d.Namespace = value.Value
		}
	}
	return d
}

// rightVersion tells whether an object of a known kind is of the API that Offboard knows. Kinds of that name in other
// APIs are no concern of it.
func (t *tree) rightVersion(n *yaml.Node, d *Document) bool {
	if d.Kind == "Secret" || d.Kind == "ConfigMap" {
		return d.APIVersion == "v1"
	}
	if d.APIVersion != v1alpha1.GroupVersion.String() {
		t.object = d.String()
		t.problem(n, "apiVersion", "%s %s is not supported, want %s", d.Kind, d.APIVersion, v1alpha1.GroupVersion)
		return false
	}
	return true
}

// checkSpelling reports a kind that Offboard would know but for its spelling, and that no API server knows.
func (t *tree) checkSpelling(n *yaml.Node, d *Document) {
	kinds := coreKinds
	if group, _, _ := strings.Cut(d.APIVersion, "/"); group == v1alpha1.Group {
		kinds = kedaKinds
	} else if d.APIVersion != "v1" {
		return
	}
	if d.Kind == "ScaledObject" || knownKinds[d.Kind] != nil {
		return
	}
	for _, kind := range kinds {
		if strings.EqualFold(d.Kind, kind) || d.APIVersion != "v1" && spelling.Distance(d.Kind, kind) <= 3 {
			t.problem(n, "kind", "unknown kind %q in %s: did you mean %q?", d.Kind, d.APIVersion, kind)
			return
		}
	}
}

// decodeObject fills the document's object from the node.
func decodeObject(t *tree, n *yaml.Node, header *Document, depth int) {
	_, t.secret = header.Object.(*corev1.Secret)
	t.object = header.Kind
	before := len(t.problems)
	d := decoder{tree: t, places: header.places, reported: header.reported}
	d.places[""] = d.place(n)
	d.into(n, "", depth, reflect.ValueOf(header.Object).Elem())

	if header.Object.GetObjectKind().GroupVersionKind().Kind == "" { // an item of a typed list
		header.Object.GetObjectKind().SetGroupVersionKind(schema.FromAPIVersionAndKind(header.APIVersion, header.Kind))
	}
	meta := header.Object.(metav1.Object)
	if header.Kind == v1alpha1.KindClusterTriggerAuthentication {
		meta.SetNamespace("")
	} else if meta.GetNamespace() == "" {
		meta.SetNamespace(metav1.NamespaceDefault)
	}
	header.Namespace, header.Name = meta.GetNamespace(), meta.GetName()
	mergeStringData(header.Object)
	for i := range t.problems[before:] {
		t.problems[before+i].Object = header.String()
		header.reported[t.problems[before+i].Field] = true
	}
}

// mergeStringData does what the API server does when a Secret is written: stringData wins over data.
func mergeStringData(object runtime.Object) {
	secret, ok := object.(*corev1.Secret)
	if !ok {
		return
	}
	for key, value := range secret.StringData {
		if secret.Data == nil {
			secret.Data = map[string][]byte{}
		}
		secret.Data[key] = []byte(value)
	}
	secret.StringData = nil
}
