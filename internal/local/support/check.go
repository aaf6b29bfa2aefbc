package support

import (
	"os"
	"reflect"
	"runtime"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Notice is a field that is ignored.
type Notice struct {
	// Path is the first field of the Job that it is about.
	Path *field.Path
	// Message says what is ignored and what happens instead.
	Message string
}

// Check returns what one machine cannot honour of a Job whose specification is at path: what must be refused, each with
// what to do, and what is ignored, each said once however often it is given. It returns nothing for a Job that runs
// here as it would on a cluster.
func Check(spec *batchv1.JobSpec, path *field.Path) (refused field.ErrorList, ignored []Notice) {
	return check(spec, path, host{os: runtime.GOOS, user: int64(os.Geteuid()), group: int64(os.Getegid())})
}

// host is what the answers depend on.
type host struct {
	os          string // as GOOS
	user, group int64  // effective ids of this process, which those of the containers are
}

func check(spec *batchv1.JobSpec, path *field.Path, h host) (field.ErrorList, []Notice) {
	c := &checker{host: h, said: map[string]bool{}}
	c.walk(path, reflect.ValueOf(spec).Elem())
	return c.refused, c.ignored
}

type checker struct {
	host    host
	refused field.ErrorList
	ignored []Notice
	said    map[string]bool
}

// rule judges a field that is given.
type rule func(c *checker, path *field.Path, value reflect.Value)

// rules are the rules of a struct's fields by their names in JSON.
type rules map[string]rule

// walk applies the rules of a struct's type to those of its fields that are given.
func (c *checker) walk(path *field.Path, value reflect.Value) {
	table := classified[value.Type()]
	for i := range value.NumField() {
		name, inlined := jsonName(value.Type().Field(i))
		element, at := value.Field(i), path
		if !given(element) {
			continue
		}
		if !inlined {
			at = path.Child(name)
		}
		judge := table[name]
		if judge == nil {
			judge = unclassified
		}
		judge(c, at, element)
	}
}

// jsonName returns a field's name in JSON; for a struct whose fields JSON shows as the outer one's, its name in Go.
func jsonName(f reflect.StructField) (name string, inlined bool) {
	name, _, _ = strings.Cut(f.Tag.Get("json"), ",")
	if name == "" {
		return f.Name, true
	}
	return name, false
}

// given tells whether a field says anything: an empty list or map does not.
func given(value reflect.Value) bool {
	switch value.Kind() {
	case reflect.Slice, reflect.Map:
		return value.Len() > 0
	default:
		return !value.IsZero()
	}
}

func (c *checker) refuse(path *field.Path, message string) {
	c.refused = append(c.refused, field.Forbidden(path, message))
}

// ignore tells of a field unless the same has been told already.
func (c *checker) ignore(path *field.Path, message string) {
	if !c.said[message] {
		c.said[message] = true
		c.ignored = append(c.ignored, Notice{Path: path, Message: message})
	}
}

// unclassified is the rule of fields that no table knows.
func unclassified(c *checker, path *field.Path, _ reflect.Value) {
	c.refuse(path, "it is not known what this field asks for, so it cannot be honoured: remove it")
}

// honoured is the rule of fields that do here what they do on a cluster.
func honoured(*checker, *field.Path, reflect.Value) {}

// deeper is the rule of structs, and of pointers to and lists of structs, whose fields have rules of their own.
func deeper(c *checker, path *field.Path, value reflect.Value) {
	switch value.Kind() {
	case reflect.Pointer:
		deeper(c, path, value.Elem())
	case reflect.Slice:
		for i := range value.Len() {
			deeper(c, path.Index(i), value.Index(i))
		}
	default:
		c.walk(path, value)
	}
}

// refused is the rule of fields that cannot be honoured.
func refused(message string) rule {
	return func(c *checker, path *field.Path, _ reflect.Value) { c.refuse(path, message) }
}

// refusedIf is the rule of a boolean that cannot be honoured when it is want, and changes nothing otherwise.
func refusedIf(want bool, message string) rule {
	return func(c *checker, path *field.Path, value reflect.Value) {
		if reflect.Indirect(value).Bool() == want {
			c.refuse(path, message)
		}
	}
}

// ignored is the rule of fields that are ignored.
func ignored(message string) rule {
	return func(c *checker, path *field.Path, _ reflect.Value) { c.ignore(path, message) }
}

// ignoredIf is the rule of a boolean that is ignored when it is want, and changes nothing otherwise.
func ignoredIf(want bool, message string) rule {
	return func(c *checker, path *field.Path, value reflect.Value) {
		if reflect.Indirect(value).Bool() == want {
			c.ignore(path, message)
		}
	}
}
