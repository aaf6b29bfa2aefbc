package support

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func completionMode(c *checker, path *field.Path, value reflect.Value) {
	if reflect.Indirect(value).String() == string(batchv1.IndexedCompletion) {
		c.refuse(path, indexed)
	}
}

func managedBy(c *checker, path *field.Path, value reflect.Value) {
	if reflect.Indirect(value).String() != batchv1.JobControllerName {
		c.refuse(path, "there is no other Job controller on one machine: remove it")
	}
}

func failIndex(c *checker, path *field.Path, value reflect.Value) {
	if value.String() == string(batchv1.PodFailurePolicyActionFailIndex) {
		c.refuse(path, "Indexed Jobs are not supported on one machine: use FailJob, Ignore or Count")
	}
}

// podSpec judges a Pod, and its containers as wholes, which need not say anything wrong in a single field.
func podSpec(c *checker, path *field.Path, value reflect.Value) {
	deeper(c, path, value)
	spec := value.Interface().(corev1.PodSpec)
	for i := range spec.InitContainers {
		container(c, path.Child("initContainers").Index(i), &spec.InitContainers[i])
	}
	for i := range spec.Containers {
		container(c, path.Child("containers").Index(i), &spec.Containers[i])
	}
}

// container judges what is to be run.
func container(c *checker, path *field.Path, spec *corev1.Container) {
	const example = `give command, for example ["python", "runner.py"]`
	switch {
	case len(spec.Command) > 0:
		if spec.Image != "" {
			c.ignore(path.Child("image"), "ignored on one machine: the command is started as a process")
		}
	case len(spec.Args) > 0:
		c.refuse(path.Child("args"), "the program that takes args is in the image, which cannot run on one machine: "+example)
	default:
		c.refuse(path.Child("command"), "an image cannot be run on one machine: "+example)
	}
}

// fieldPaths are the fields of a Pod that a variable can be filled from here.
var fieldPaths = []string{
	"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
	"status.hostIPs", "status.podIP", "status.podIPs",
}

func fieldPath(c *checker, path *field.Path, value reflect.Value) {
	name := value.String()
	if slices.Contains(fieldPaths, name) || strings.HasSuffix(name, "']") &&
		(strings.HasPrefix(name, "metadata.labels['") || strings.HasPrefix(name, "metadata.annotations['")) {
		return
	}
	c.refuse(path, fmt.Sprintf("a variable cannot be filled from %s on one machine, only from %s, "+
		"metadata.labels['KEY'] and metadata.annotations['KEY']", name, strings.Join(fieldPaths, ", ")))
}

func operatingSystem(c *checker, path *field.Path, value reflect.Value) {
	if name := value.String(); name != c.host.os {
		c.refuse(path, fmt.Sprintf("the Pod is for %s and this machine runs %s: remove it if the command runs here too", name,
			c.host.os))
	}
}
