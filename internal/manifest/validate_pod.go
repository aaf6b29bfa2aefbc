package manifest

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// podSpec checks what the API server checks of a Job's Pod template, as far as Jobs commonly use it.
func (c *checker) podSpec(path *field.Path, spec *corev1.PodSpec) {
	if spec.RestartPolicy == corev1.RestartPolicyAlways {
		c.fail(path.Child("restartPolicy"), string(spec.RestartPolicy),
			"got \"Always\", want Never or OnFailure: a Job runs to its end")
	}
	atLeast(c, path.Child("terminationGracePeriodSeconds"), spec.TerminationGracePeriodSeconds, 0)
	c.deadline(path.Child("activeDeadlineSeconds"), spec.ActiveDeadlineSeconds)
	for _, name := range []struct{ field, value string }{
		{"serviceAccountName", spec.ServiceAccountName}, {"nodeName", spec.NodeName},
		{"priorityClassName", spec.PriorityClassName},
	} {
		if name.value != "" {
			c.invalid(path.Child(name.field), name.value, validation.IsDNS1123Subdomain(name.value))
		}
	}
	c.labels(path.Child("nodeSelector"), spec.NodeSelector)
	if len(spec.EphemeralContainers) > 0 {
		c.fail(path.Child("ephemeralContainers"), nil, "ephemeral containers cannot be in a template: remove them")
	}

	volumes := c.volumes(path.Child("volumes"), spec.Volumes)
	if len(spec.Containers) == 0 {
		c.fail(path.Child("containers"), nil, "missing: at least one container must do the work")
	}
	names := map[string]*field.Path{}
	for i := range spec.InitContainers {
		c.container(path.Child("initContainers").Index(i), &spec.InitContainers[i], names, volumes)
	}
	for i := range spec.Containers {
		at := path.Child("containers").Index(i)
		c.container(at, &spec.Containers[i], names, volumes)
		if policy := spec.Containers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			c.fail(at.Child("restartPolicy"), string(*policy), "only an init container may have restartPolicy Always")
		}
	}
}

// volumes returns the names of the volumes.
func (c *checker) volumes(path *field.Path, volumes []corev1.Volume) map[string]bool {
	names := map[string]bool{}
	for i, volume := range volumes {
		at := path.Index(i).Child("name")
		if !c.required(at, volume.Name) {
			continue
		}
		c.invalid(at, volume.Name, validation.IsDNS1123Label(volume.Name))
		if names[volume.Name] {
			c.fail(at, volume.Name, "%q is the name of another volume too", volume.Name)
		}
		names[volume.Name] = true
	}
	return names
}

func (c *checker) container(at *field.Path, container *corev1.Container, names map[string]*field.Path,
	volumes map[string]bool,
) {
	name := at.Child("name")
	if c.required(name, container.Name) {
		c.invalid(name, container.Name, validation.IsDNS1123Label(container.Name))
		if first := names[container.Name]; first != nil {
			c.fail(name, container.Name, "%q is the name of %s too: names of containers must differ", container.Name, first)
		} else {
			names[container.Name] = at
		}
	}
	c.image(at.Child("image"), container)
	c.texts(at.Child("command"), container.Command)
	c.texts(at.Child("args"), container.Args)
	c.ports(at.Child("ports"), container.Ports)
	c.resources(at.Child("resources"), &container.Resources)
	for i := range container.EnvFrom {
		c.envFrom(at.Child("envFrom").Index(i), &container.EnvFrom[i])
	}
	for i := range container.Env {
		c.env(at.Child("env").Index(i), &container.Env[i])
	}
	mounted := map[string]bool{}
	for i, mount := range container.VolumeMounts {
		mountPath := at.Child("volumeMounts").Index(i)
		if c.required(mountPath.Child("name"), mount.Name) && !volumes[mount.Name] {
			c.fail(mountPath.Child("name"), mount.Name, "no volume is named %q", shorten(mount.Name))
		}
		if c.required(mountPath.Child("mountPath"), mount.MountPath) && mounted[path.Clean(mount.MountPath)] {
			c.fail(mountPath.Child("mountPath"), mount.MountPath, "another volume is mounted at this path already")
		}
		mounted[path.Clean(mount.MountPath)] = true
	}
}

func (c *checker) image(path *field.Path, container *corev1.Container) {
	switch {
	case container.Image != strings.TrimSpace(container.Image):
		c.fail(path, container.Image, "the image has spaces around it: remove them")
	case container.Image == "" && c.cluster:
		c.fail(path, nil, "missing: a container on a cluster needs an image")
	case container.Image == "" && len(container.Command) == 0:
		c.fail(path, nil, "missing: give an image, or for one machine a command")
	}
}

// texts refuses what no operating system can hand to a program.
func (c *checker) texts(path *field.Path, texts []string) {
	for i, text := range texts {
		if strings.ContainsRune(text, 0) {
			c.fail(path.Index(i), nil, "the text holds a NUL character, which cannot be handed to a program")
		}
	}
}

func (c *checker) ports(path *field.Path, ports []corev1.ContainerPort) {
	names := map[string]bool{}
	for i, port := range ports {
		at := path.Index(i)
		if port.ContainerPort < 1 || port.ContainerPort > 65535 {
			c.fail(at.Child("containerPort"), port.ContainerPort, "got %d, want between 1 and 65535", port.ContainerPort)
		}
		if port.HostPort < 0 || port.HostPort > 65535 {
			c.fail(at.Child("hostPort"), port.HostPort, "got %d, want between 1 and 65535", port.HostPort)
		}
		if port.Name == "" {
			continue
		}
		c.invalid(at.Child("name"), port.Name, validation.IsValidPortName(port.Name))
		if names[port.Name] {
			c.fail(at.Child("name"), port.Name, "%q is the name of another port too", port.Name)
		}
		names[port.Name] = true
	}
}

func (c *checker) resources(path *field.Path, resources *corev1.ResourceRequirements) {
	for name, limit := range resources.Limits {
		if limit.Sign() < 0 {
			c.fail(path.Child("limits").Key(string(name)), limit.String(), "got %s, want 0 or more", limit.String())
		}
	}
	for name, request := range resources.Requests {
		at := path.Child("requests").Key(string(name))
		if request.Sign() < 0 {
			c.fail(at, request.String(), "got %s, want 0 or more", request.String())
		}
		if limit, limited := resources.Limits[name]; limited && request.Cmp(limit) > 0 {
			c.fail(at, request.String(), "the request %s is above the limit %s", request.String(), limit.String())
		}
	}
}

func (c *checker) envFrom(path *field.Path, from *corev1.EnvFromSource) {
	if from.Prefix != "" {
		c.invalid(path.Child("prefix"), from.Prefix, validation.IsRelaxedEnvVarName(from.Prefix))
	}
	c.exactlyOne(path, []string{"configMapRef", "secretRef"}, from.ConfigMapRef != nil, from.SecretRef != nil)
	if ref := from.ConfigMapRef; ref != nil {
		c.objectName(path.Child("configMapRef", "name"), ref.Name)
	}
	if ref := from.SecretRef; ref != nil {
		c.objectName(path.Child("secretRef", "name"), ref.Name)
	}
}

func (c *checker) env(path *field.Path, env *corev1.EnvVar) {
	if c.required(path.Child("name"), env.Name) {
		c.invalid(path.Child("name"), env.Name, validation.IsRelaxedEnvVarName(env.Name))
	}
	if strings.ContainsRune(env.Value, 0) {
		c.fail(path.Child("value"), nil, "the text holds a NUL character, which cannot be in an environment")
	}
	from := env.ValueFrom
	if from == nil {
		return
	}
	path = path.Child("valueFrom")
	if env.Value != "" {
		c.fail(path, nil, "a variable has either value or valueFrom: remove one of them")
	}
	c.exactlyOne(path, []string{"configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef"},
		from.ConfigMapKeyRef != nil, from.FieldRef != nil, from.FileKeyRef != nil, from.ResourceFieldRef != nil,
		from.SecretKeyRef != nil)
	if ref := from.ConfigMapKeyRef; ref != nil {
		c.keyRef(path.Child("configMapKeyRef"), ref.Name, ref.Key)
	}
	if ref := from.SecretKeyRef; ref != nil {
		c.keyRef(path.Child("secretKeyRef"), ref.Name, ref.Key)
	}
	if ref := from.FieldRef; ref != nil {
		c.fieldRef(path.Child("fieldRef"), ref)
	}
}

// exactlyOne records an error unless one alternative is given.
func (c *checker) exactlyOne(path *field.Path, names []string, given ...bool) {
	count := 0
	for _, is := range given {
		if is {
			count++
		}
	}
	if count != 1 {
		c.fail(path, nil, "%d sources are given, want exactly one of %s", count, list(names))
	}
}

func (c *checker) objectName(path *field.Path, name string) {
	if c.required(path, name) {
		c.invalid(path, name, validation.IsDNS1123Subdomain(name))
	}
}

func (c *checker) keyRef(path *field.Path, name, key string) {
	c.objectName(path.Child("name"), name)
	if c.required(path.Child("key"), key) {
		c.invalid(path.Child("key"), key, validation.IsConfigMapKey(key))
	}
}

// podFields are what the API server lets a variable be filled from, beside one label or annotation.
var podFields = []string{
	"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
	"status.hostIPs", "status.podIP", "status.podIPs",
}

func (c *checker) fieldRef(path *field.Path, ref *corev1.ObjectFieldSelector) {
	if ref.APIVersion != "" && ref.APIVersion != "v1" {
		c.fail(path.Child("apiVersion"), ref.APIVersion, "got %q, want v1", shorten(ref.APIVersion))
	}
	path = path.Child("fieldPath")
	if !c.required(path, ref.FieldPath) || slices.Contains(podFields, ref.FieldPath) {
		return
	}
	for _, parent := range []string{"metadata.labels", "metadata.annotations"} {
		key, isKey := strings.CutPrefix(ref.FieldPath, parent+"['")
		if key, closed := strings.CutSuffix(key, "']"); isKey && closed {
			c.invalid(path, key, validation.IsQualifiedName(strings.ToLower(key)))
			return
		}
	}
	c.fail(path, ref.FieldPath, "got %q, want one of %s, metadata.labels['KEY'], metadata.annotations['KEY']",
		shorten(ref.FieldPath), strings.Join(podFields, ", "))
}
