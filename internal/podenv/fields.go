package podenv

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// fields answers what a variable takes from the Pod itself. found is false for what is not known yet.
type fields interface {
	// field returns the value of a field; key is the label's or annotation's, and empty for other fields.
	field(path, key string) (value string, found bool)
	resource(ref *corev1.ResourceFieldSelector) (value string, found bool, err error)
	file(ref *corev1.FileKeySelector) (value string, found bool, err error)
}

// Paths that a fieldRef in env may have, as the Kubernetes API documents them.
const (
	pathName           = "metadata.name"
	pathNamespace      = "metadata.namespace"
	pathUID            = "metadata.uid"
	pathLabels         = "metadata.labels"
	pathAnnotations    = "metadata.annotations"
	pathNodeName       = "spec.nodeName"
	pathServiceAccount = "spec.serviceAccountName"
	pathHostIP         = "status.hostIP"
	pathHostIPs        = "status.hostIPs"
	pathPodIP          = "status.podIP"
	pathPodIPs         = "status.podIPs"
)

// defaultServiceAccount is what the API server fills in where a Pod names none.
const defaultServiceAccount = "default"

func fieldValue(source fields, ref *corev1.ObjectFieldSelector) (value string, found bool, err error) {
	if ref.APIVersion != "" && ref.APIVersion != "v1" {
		return "", false, fmt.Errorf("fieldRef.apiVersion is %q; it must be v1 or absent", ref.APIVersion)
	}
	path, key, ok := splitPath(ref.FieldPath)
	if !ok {
		return "", false, fmt.Errorf("fieldRef.fieldPath is %q; it must be one of %s", ref.FieldPath, strings.Join([]string{
			pathName, pathNamespace, pathUID, pathLabels + "['KEY']", pathAnnotations + "['KEY']",
			pathNodeName, pathServiceAccount, pathHostIP, pathHostIPs, pathPodIP, pathPodIPs,
		}, ", "))
	}
	value, found = source.field(path, key)
	return value, found, nil
}

// splitPath splits metadata.labels['KEY'] into path and key; ok tells whether env may refer to the field.
func splitPath(fieldPath string) (path, key string, ok bool) {
	switch fieldPath {
	case pathName, pathNamespace, pathUID, pathNodeName, pathServiceAccount,
		pathHostIP, pathHostIPs, pathPodIP, pathPodIPs:
		return fieldPath, "", true
	}
	path, rest, found := strings.Cut(fieldPath, "['")
	key, closed := strings.CutSuffix(rest, "']")
	if !found || !closed || key == "" || (path != pathLabels && path != pathAnnotations) {
		return "", "", false
	}
	return path, key, true
}

// podFields are those of a Pod that exists. A label or annotation that it lacks is empty, as on a cluster.
type podFields struct{ pod *corev1.Pod }

func (f podFields) field(path, key string) (string, bool) {
	pod := f.pod
	switch path {
	case pathName:
		return pod.Name, true
	case pathNamespace:
		return pod.Namespace, true
	case pathUID:
		return string(pod.UID), true
	case pathLabels:
		return pod.Labels[key], true
	case pathAnnotations:
		return pod.Annotations[key], true
	case pathNodeName:
		return pod.Spec.NodeName, true
	case pathServiceAccount:
		return serviceAccount(&pod.Spec), true
	case pathHostIP:
		return pod.Status.HostIP, true
	case pathHostIPs:
		addresses := make([]string, len(pod.Status.HostIPs))
		for i, host := range pod.Status.HostIPs {
			addresses[i] = host.IP
		}
		return joined(addresses, pod.Status.HostIP), true
	case pathPodIP:
		return pod.Status.PodIP, true
	case pathPodIPs:
		addresses := make([]string, len(pod.Status.PodIPs))
		for i, address := range pod.Status.PodIPs {
			addresses[i] = address.IP
		}
		return joined(addresses, pod.Status.PodIP), true
	}
	return "", false
}

func (podFields) resource(ref *corev1.ResourceFieldSelector) (string, bool, error) {
	return "", false, fmt.Errorf("resourceFieldRef %q: a process has no resource requests or limits to read; "+
		"give the variable a value instead", ref.Resource)
}

func (podFields) file(ref *corev1.FileKeySelector) (string, bool, error) {
	return "", false, fmt.Errorf("fileKeyRef %q: a process has no volumes to read the file from; "+
		"take the value from a Secret or ConfigMap instead", ref.Path)
}

// templateFields are what a Pod template tells of its future Pods.
type templateFields struct {
	template  *corev1.PodTemplateSpec
	namespace string
}

func (f templateFields) field(path, key string) (value string, found bool) {
	switch path {
	case pathNamespace:
		return f.namespace, true
	case pathLabels:
		value, found = f.template.Labels[key]
	case pathAnnotations:
		value, found = f.template.Annotations[key]
	case pathNodeName:
		value = f.template.Spec.NodeName
		found = value != ""
	case pathServiceAccount:
		return serviceAccount(&f.template.Spec), true
	}
	return value, found
}

func (templateFields) resource(*corev1.ResourceFieldSelector) (string, bool, error) {
	return "", false, nil
}

func (templateFields) file(*corev1.FileKeySelector) (string, bool, error) { return "", false, nil }

func serviceAccount(spec *corev1.PodSpec) string {
	if spec.ServiceAccountName != "" {
		return spec.ServiceAccountName
	}
	return defaultServiceAccount
}

// joined lists addresses separated by commas; alone stands in where only the single field is filled.
func joined(addresses []string, alone string) string {
	if len(addresses) == 0 {
		return alone
	}
	return strings.Join(addresses, ",")
}
