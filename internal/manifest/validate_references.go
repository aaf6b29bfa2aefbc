package manifest

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/auth"
)

// authentication checks a TriggerAuthentication and what it refers to. Without a namespace, which a
// ClusterTriggerAuthentication has not, any will do.
func (c *checker) authentication(kind string, spec *v1alpha1.TriggerAuthenticationSpec, namespace string) {
	path := field.NewPath("spec")
	c.fields(path, auth.Check(kind, spec))
	if spec.FilePath != "" && len(auth.Besides(spec)) > 0 {
		c.warn(path.Child("filePath"), nil, "it stands in place of all other sources; not used: %s",
			strings.Join(auth.Besides(spec), ", "))
	}
	for _, name := range auth.Unsupported(spec) {
		severity := Error
		if c.objects == nil {
			severity = Warning // on a cluster it may be there for a ScaledObject, which KEDA scales
		}
		c.add(severity, path.Child(name), nil, auth.NotSupported)
	}
	for i, ref := range spec.SecretTargetRef {
		c.target(path.Child("secretTargetRef").Index(i), ref, c.objects.missing("Secret", namespace, ref.Name, ref.Key))
	}
	for i, ref := range spec.ConfigMapTargetRef {
		c.target(path.Child("configMapTargetRef").Index(i), ref, c.objects.missing("ConfigMap", namespace, ref.Name, ref.Key))
	}
	for i, env := range spec.Env {
		at := path.Child("env").Index(i)
		c.required(at.Child("parameter"), env.Parameter)
		c.required(at.Child("name"), env.Name)
	}
}

// fields records errors whose paths begin below path.
func (c *checker) fields(path *field.Path, errs field.ErrorList) {
	for _, err := range errs {
		err.Field = path.Child(err.Field).String()
	}
	for _, p := range c.doc.FieldProblems(Error, errs) {
		c.keep(p)
	}
}

func (c *checker) target(path *field.Path, ref v1alpha1.AuthTargetRef, missing string) {
	c.required(path.Child("parameter"), ref.Parameter)
	if c.required(path.Child("name"), ref.Name) && c.required(path.Child("key"), ref.Key) && missing != "" {
		c.warn(path, ref.Name, "%s", missing)
	}
}

// scaledJobReferences warns of objects that the ScaledJob needs and that are not in the set.
func (c *checker) scaledJobReferences(scaledJob *v1alpha1.ScaledJob) {
	path := field.NewPath("spec")
	for i, scale := range scaledJob.Spec.Triggers {
		ref := scale.AuthenticationRef
		if ref == nil || ref.Name == "" {
			continue
		}
		kind, namespace := v1alpha1.KindTriggerAuthentication, scaledJob.Namespace
		if ref.Kind == v1alpha1.KindClusterTriggerAuthentication {
			kind, namespace = ref.Kind, ""
		}
		if missing := c.objects.missing(kind, namespace, ref.Name, ""); missing != "" {
			c.warn(path.Child("triggers").Index(i).Child("authenticationRef", "name"), ref.Name, "%s", missing)
		}
	}
	if scaledJob.Spec.JobTargetRef == nil {
		return
	}
	pod := path.Child("jobTargetRef", "template", "spec")
	for i := range scaledJob.Spec.JobTargetRef.Template.Spec.InitContainers {
		c.containerReferences(scaledJob.Namespace, pod.Child("initContainers").Index(i),
			&scaledJob.Spec.JobTargetRef.Template.Spec.InitContainers[i])
	}
	for i := range scaledJob.Spec.JobTargetRef.Template.Spec.Containers {
		c.containerReferences(scaledJob.Namespace, pod.Child("containers").Index(i),
			&scaledJob.Spec.JobTargetRef.Template.Spec.Containers[i])
	}
}

func (c *checker) containerReferences(namespace string, path *field.Path, container *corev1.Container) {
	warn := func(at *field.Path, name string, optional *bool, missing string) {
		if name != "" && missing != "" && (optional == nil || !*optional) {
			c.warn(at, name, "%s", missing)
		}
	}
	for i, from := range container.EnvFrom {
		at := path.Child("envFrom").Index(i)
		if ref := from.SecretRef; ref != nil {
			warn(at.Child("secretRef", "name"), ref.Name, ref.Optional, c.objects.missing("Secret", namespace, ref.Name, ""))
		}
		if ref := from.ConfigMapRef; ref != nil {
			warn(at.Child("configMapRef", "name"), ref.Name, ref.Optional,
				c.objects.missing("ConfigMap", namespace, ref.Name, ""))
		}
	}
	for i, env := range container.Env {
		if env.ValueFrom == nil {
			continue
		}
		at := path.Child("env").Index(i).Child("valueFrom")
		if ref := env.ValueFrom.SecretKeyRef; ref != nil {
			warn(at.Child("secretKeyRef", "key"), ref.Name, ref.Optional,
				c.objects.missing("Secret", namespace, ref.Name, ref.Key))
		}
		if ref := env.ValueFrom.ConfigMapKeyRef; ref != nil {
			warn(at.Child("configMapKeyRef", "key"), ref.Name, ref.Optional,
				c.objects.missing("ConfigMap", namespace, ref.Name, ref.Key))
		}
	}
}

// objectKey names an object. An empty namespace stands for any.
type objectKey struct{ kind, namespace, name string }

// index finds the documents of a set by what they are. Without one, nothing is known about other objects.
type index map[objectKey]*Document

func newIndex(s *Set) index {
	documents := index{}
	for _, document := range s.Documents {
		if document.Object == nil || document.Name == "" {
			continue
		}
		for _, namespace := range []string{document.Namespace, ""} {
			key := objectKey{document.Kind, namespace, document.Name}
			if documents[key] == nil {
				documents[key] = document
			}
		}
	}
	return documents
}

// missing says what is not there of an object or one of its keys; nothing when all is. An empty key stands for none in
// particular. Without a namespace the object may be in any, and its keys are not looked at.
func (x index) missing(kind, namespace, name, key string) string {
	if x == nil {
		return ""
	}
	document := x[objectKey{kind, namespace, name}]
	if document == nil {
		return kind + " " + name + " is not in these files"
	}
	if key == "" || namespace == "" {
		return ""
	}
	found := true
	switch object := document.Object.(type) {
	case *corev1.Secret:
		_, found = object.Data[key]
	case *corev1.ConfigMap:
		_, inData := object.Data[key]
		_, inBinary := object.BinaryData[key]
		found = inData || inBinary
	}
	if found || len(document.reported) > 0 {
		return ""
	}
	return kind + " " + name + " (" + document.File + ") has no key " + strconv.Quote(shorten(key))
}
