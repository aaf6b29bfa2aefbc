package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/trigger"
)

// Validate checks what has been read as the API server and KEDA would on creation, with the trigger types that are
// known, and returns the problems of reading and its own in the order of files and lines. References to objects that
// are not in the set are warnings: they may exist elsewhere.
//
// A container without an image is not a problem as long as it has a command, with which one machine can run it; see
// ValidateForCluster.
func Validate(s *Set, types []trigger.Type) Problems { return validate(s, types, false) }

// ValidateForCluster checks as Validate does, and refuses what only one machine can run.
func ValidateForCluster(s *Set, types []trigger.Type) Problems { return validate(s, types, true) }

func validate(s *Set, types []trigger.Type, cluster bool) Problems {
	problems := slices.Concat(s.Problems, s.check(types, cluster, newIndex(s)), duplicates(s))
	return s.Sort(problems)
}

// check checks each document by itself, and that what it refers to is among the objects.
func (s *Set) check(types []trigger.Type, cluster bool, objects index) Problems {
	var problems Problems
	for _, document := range s.Documents {
		c := checker{doc: document, types: types, objects: objects, cluster: cluster}
		switch object := document.Object.(type) {
		case *v1alpha1.ScaledJob:
			c.meta(object)
			c.scaledJob(object)
			c.scaledJobReferences(object)
		case *v1alpha1.TriggerAuthentication:
			c.meta(object)
			c.authentication(document.Kind, &object.Spec, object.Namespace)
		case *v1alpha1.ClusterTriggerAuthentication:
			c.meta(object)
			c.authentication(document.Kind, &object.Spec, "")
		case *corev1.Secret:
			c.meta(object)
			c.secret(object)
		case *corev1.ConfigMap:
			c.meta(object)
			c.configMap(object)
		}
		problems = append(problems, c.problems...)
	}
	return problems
}

// Sort orders problems with this set as a reader goes through its files, and returns them.
func (s *Set) Sort(problems Problems) Problems { return problems.sorted(s.files) }

// checker collects the problems of one document.
type checker struct {
	doc      *Document
	types    []trigger.Type
	objects  index
	cluster  bool // what only one machine can run is refused
	problems Problems
}

// fail records an error; value is nil when there is none to show.
func (c *checker) fail(path *field.Path, value any, format string, args ...any) {
	c.add(Error, path, value, fmt.Sprintf(format, args...))
}

func (c *checker) warn(path *field.Path, value any, format string, args ...any) {
	c.add(Warning, path, value, fmt.Sprintf(format, args...))
}

func (c *checker) add(severity Severity, path *field.Path, value any, message string) {
	c.keep(c.doc.Problem(severity, path, value, message))
}

// keep takes a problem, unless its field could not be read, which is known already.
func (c *checker) keep(p Problem) {
	// A field that could not be decoded is empty now, and whatever follows from that is no news.
	for name := p.Field; name != ""; {
		if c.doc.reported[name] {
			return
		}
		name = name[:max(0, strings.LastIndexAny(name, ".["))]
	}
	c.problems = append(c.problems, p)
}

// invalid records an error for each message of the functions in k8s.io/apimachinery/pkg/util/validation.
func (c *checker) invalid(path *field.Path, value string, messages []string) {
	for _, message := range messages {
		c.fail(path, value, "%s: %s", strconv.Quote(shorten(value)), message)
	}
}

// oneOf records an error when the value is neither empty nor one of those allowed.
func (c *checker) oneOf(path *field.Path, value string, allowed ...string) {
	if value != "" && !slices.Contains(allowed, value) {
		c.fail(path, value, "got %s, want one of %s%s", strconv.Quote(shorten(value)), strings.Join(allowed, ", "),
			meant(value, allowed))
	}
}

// atLeast records an error when the number is given and below the least.
func atLeast[N int32 | int64](c *checker, path *field.Path, value *N, least N) {
	if value != nil && *value < least {
		c.fail(path, *value, "got %d, want %d or more", *value, least)
	}
}

// required records an error when the text is empty, and tells whether it is not.
func (c *checker) required(path *field.Path, value string) bool {
	if value == "" {
		c.fail(path, nil, "missing: it must be given and not be empty")
	}
	return value != ""
}

const maxAnnotations = 256 << 10 // bytes, the API server's limit for all annotations of an object

// meta checks the metadata of an object.
func (c *checker) meta(object metav1.Object) {
	path := field.NewPath("metadata")
	name := object.GetName()
	switch {
	case name == "" && object.GetGenerateName() != "":
		c.fail(path.Child("generateName"), nil, "an object in a file needs a name that stays the same: give metadata.name")
	case c.required(path.Child("name"), name):
		c.invalid(path.Child("name"), name, validation.IsDNS1123Subdomain(name))
	}
	if namespace := object.GetNamespace(); namespace != "" {
		c.invalid(path.Child("namespace"), namespace, validation.IsDNS1123Label(namespace))
	}
	c.labels(path.Child("labels"), object.GetLabels())
	c.annotations(path.Child("annotations"), object.GetAnnotations())
	for i, finalizer := range object.GetFinalizers() {
		c.invalid(path.Child("finalizers").Index(i), finalizer, validation.IsQualifiedName(finalizer))
	}
}

func (c *checker) labels(path *field.Path, labels map[string]string) {
	for key, value := range labels {
		c.invalid(path.Key(key), key, validation.IsQualifiedName(key))
		c.invalid(path.Key(key), value, validation.IsValidLabelValue(value))
	}
}

func (c *checker) annotations(path *field.Path, annotations map[string]string) {
	size := 0
	for key, value := range annotations {
		c.invalid(path.Key(key), key, validation.IsQualifiedName(strings.ToLower(key)))
		size += len(key) + len(value)
	}
	if size > maxAnnotations {
		c.fail(path, nil, "the annotations are %d bytes together, want %d or less", size, maxAnnotations)
	}
}

const maxData = 1 << 20 // bytes, the API server's limit for the data of a Secret or ConfigMap

func (c *checker) secret(secret *corev1.Secret) {
	size := 0
	for key, value := range secret.Data {
		c.dataKey("data", key)
		size += len(value)
	}
	if size > maxData {
		c.fail(field.NewPath("data"), nil, "the data is %d bytes, want %d or less", size, maxData)
	}
}

func (c *checker) configMap(configMap *corev1.ConfigMap) {
	size := 0
	for key, value := range configMap.Data {
		c.dataKey("data", key)
		size += len(value)
	}
	for key, value := range configMap.BinaryData {
		c.dataKey("binaryData", key)
		size += len(value)
		if _, both := configMap.Data[key]; both {
			c.fail(field.NewPath("binaryData").Key(key), nil, "the key is in data too: remove one of them")
		}
	}
	if size > maxData {
		c.fail(field.NewPath("data"), nil, "the data is %d bytes, want %d or less", size, maxData)
	}
}

func (c *checker) dataKey(parent, key string) {
	path := field.NewPath(parent).Key(key)
	if _, written := c.doc.places[canonical(path.String())]; !written && parent == "data" {
		path = field.NewPath("stringData").Key(key) // merged into data when the Secret was read
	}
	for _, message := range validation.IsConfigMapKey(key) {
		c.fail(path, nil, "the key %s: %s", strconv.Quote(shorten(key)), message)
	}
}

// duplicates reports objects that are declared more than once.
func duplicates(s *Set) Problems {
	first := map[objectKey]*Document{}
	var problems Problems
	for _, document := range s.Documents {
		if document.Object == nil || document.Name == "" {
			continue
		}
		k := objectKey{document.Kind, document.Namespace, document.Name}
		if other, found := first[k]; found {
			problems = append(problems, document.Problem(Error, field.NewPath("metadata", "name"), document.Name,
				fmt.Sprintf("%s is declared already at %s:%d: rename or remove one of them", document, other.File, other.Line)))
			continue
		}
		first[k] = document
	}
	return problems
}
