package podenv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Objects reads what a container's environment refers to. An object that does not exist gives an error for which
// k8s.io/apimachinery/pkg/api/errors.IsNotFound is true. Objects are as the API server stores them: the stringData of a
// Secret is part of its data. They are only read.
type Objects interface {
	Secret(ctx context.Context, key types.NamespacedName) (*corev1.Secret, error)
	ConfigMap(ctx context.Context, key types.NamespacedName) (*corev1.ConfigMap, error)
}

// ForContainer computes the environment of a container, which may be an init container, of a Pod that is about to be
// started. Variables of base are there unless the manifest sets them, and $(NAME) sees them: they are to the container
// what the variables of Services are on a cluster.
//
// An error names the container, the variable, and what is wrong with which object; it wraps the error of objects.
func ForContainer(
	ctx context.Context, objects Objects, pod *corev1.Pod, container *corev1.Container, base []Variable,
) (*Env, error) {
	r := &resolver{
		objects:   objects,
		namespace: pod.Namespace,
		fields:    podFields{pod},
		longest:   longestString(),
	}
	return r.resolve(ctx, container, base)
}

// ForTemplate computes what is known of the environment of a container before a Pod is made from the template. The
// container is the one of that name, or the first when the name is empty. Variables that only a Pod can give, such as
// its name, its address or a resource of its container, are absent. namespace is where the Pod would be, and base is as
// for ForContainer.
func ForTemplate(
	ctx context.Context, objects Objects, namespace string, template *corev1.PodTemplateSpec, name string,
	base []Variable,
) (*Env, error) {
	container, err := findContainer(template.Spec.Containers, name)
	if err != nil {
		return nil, err
	}
	r := &resolver{
		objects:   objects,
		namespace: namespace,
		fields:    templateFields{template: template, namespace: namespace},
		// The Pod may start on a machine with other limits than this one's.
		longest: maxTotal,
	}
	return r.resolve(ctx, container, base)
}

func findContainer(containers []corev1.Container, name string) (*corev1.Container, error) {
	if len(containers) == 0 {
		return nil, errors.New("the Pod template has no container whose environment could be read")
	}
	if name == "" {
		return &containers[0], nil
	}
	names := make([]string, len(containers))
	for i := range containers {
		if containers[i].Name == name {
			return &containers[i], nil
		}
		names[i] = containers[i].Name
	}
	return nil, fmt.Errorf("the Pod template has no container %q; its containers are %s", name, quoted(names))
}

// resolver computes one environment. It reads each object once, so that all variables are of one version of it.
type resolver struct {
	objects    Objects
	namespace  string
	fields     fields
	longest    int // bytes of the longest NAME=VALUE that can be passed
	secrets    map[string]*corev1.Secret
	configMaps map[string]*corev1.ConfigMap
	total      int
}

func (r *resolver) resolve(ctx context.Context, container *corev1.Container, base []Variable) (*Env, error) {
	env := &Env{}
	for _, v := range base {
		env.set(v.Name, v.Value)
	}
	for i := range container.EnvFrom {
		if err := r.addSource(ctx, env, &container.EnvFrom[i]); err != nil {
			return nil, fmt.Errorf("container %q: envFrom[%d]: %w", container.Name, i, err)
		}
	}
	for i := range container.Env {
		if err := r.addVariable(ctx, env, &container.Env[i]); err != nil {
			return nil, fmt.Errorf("container %q: env %s: %w", container.Name, shown(container.Env[i].Name), err)
		}
	}
	return env, nil
}

// addSource adds every key of a Secret or ConfigMap.
func (r *resolver) addSource(ctx context.Context, env *Env, source *corev1.EnvFromSource) error {
	var (
		object string
		values map[string]string
	)
	switch {
	case source.SecretRef != nil && source.ConfigMapRef != nil:
		return errors.New("has both secretRef and configMapRef; give each a list entry of its own")
	case source.SecretRef != nil:
		secret, err := r.secret(ctx, source.SecretRef.Name)
		if err != nil {
			return unlessOptional(err, source.SecretRef.Optional)
		}
		object = r.describe("Secret", source.SecretRef.Name)
		values = make(map[string]string, len(secret.Data))
		for key, value := range secret.Data {
			values[key] = string(value)
		}
	case source.ConfigMapRef != nil:
		configMap, err := r.configMap(ctx, source.ConfigMapRef.Name)
		if err != nil {
			return unlessOptional(err, source.ConfigMapRef.Optional)
		}
		object = r.describe("ConfigMap", source.ConfigMapRef.Name)
		values = configMap.Data
	default:
		return errors.New("has neither secretRef nor configMapRef; set one of them")
	}

	var skipped []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		name := source.Prefix + key
		if len(validation.IsRelaxedEnvVarName(name)) > 0 {
			skipped = append(skipped, key)
			continue
		}
		if err := r.set(env, name, values[key]); err != nil {
			return fmt.Errorf("key %q of %s: %w", key, object, err)
		}
	}
	if len(skipped) > 0 {
		env.skipped = append(env.skipped, Skipped{Source: object, Keys: skipped})
	}
	return nil
}

// addVariable adds one entry of env.
func (r *resolver) addVariable(ctx context.Context, env *Env, v *corev1.EnvVar) error {
	if problems := validation.IsRelaxedEnvVarName(v.Name); len(problems) > 0 {
		return errors.New("the name must be printable ASCII characters except '=', at least one")
	}
	if v.ValueFrom == nil {
		value, err := expand(v.Value, env.Lookup, r.room(v.Name))
		if err != nil {
			return r.tooLong("its value with all references expanded")
		}
		return r.set(env, v.Name, value)
	}
	if v.Value != "" {
		return errors.New("has both value and valueFrom; remove one of them")
	}
	if n := sources(v.ValueFrom); n != 1 {
		return fmt.Errorf("valueFrom names %d sources; it must name one: secretKeyRef, configMapKeyRef or fieldRef", n)
	}
	value, found, err := r.valueFrom(ctx, v.ValueFrom)
	if err != nil || !found {
		return err
	}
	return r.set(env, v.Name, value)
}

// valueFrom reads a value from where it is; found is false when it is absent and need not be there.
func (r *resolver) valueFrom(ctx context.Context, from *corev1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, err := r.secret(ctx, ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		if data, found := secret.Data[ref.Key]; found {
			return string(data), true, nil
		}
		missing := r.noKey("Secret", ref.Name, ref.Key, slices.Sorted(maps.Keys(secret.Data)))
		return "", false, unlessOptional(missing, ref.Optional)
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		configMap, err := r.configMap(ctx, ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		if value, found = configMap.Data[ref.Key]; found {
			return value, true, nil
		}
		missing := r.noKey("ConfigMap", ref.Name, ref.Key, slices.Sorted(maps.Keys(configMap.Data)))
		return "", false, unlessOptional(missing, ref.Optional)
	case from.FieldRef != nil:
		return fieldValue(r.fields, from.FieldRef)
	case from.ResourceFieldRef != nil:
		return r.fields.resource(from.ResourceFieldRef)
	default:
		return r.fields.file(from.FileKeyRef)
	}
}

// sources counts where a variable's value would come from.
func sources(from *corev1.EnvVarSource) int {
	n := 0
	for _, set := range []bool{
		from.SecretKeyRef != nil, from.ConfigMapKeyRef != nil, from.FieldRef != nil,
		from.ResourceFieldRef != nil, from.FileKeyRef != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

// missingError tells that something does not exist that an optional reference may name.
type missingError struct {
	what  string
	cause error // of the port; nil when only the key is missing
}

func (e *missingError) Error() string { return e.what }
func (e *missingError) Unwrap() error { return e.cause }

// unlessOptional drops the error when it tells of something missing that is optional. Any other error stays: an object
// that could not be read is not an object that does not exist.
func unlessOptional(err error, optional *bool) error {
	var missing *missingError
	if errors.As(err, &missing) && optional != nil && *optional {
		return nil
	}
	return err
}

func (r *resolver) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	if secret, found := r.secrets[name]; found {
		return secret, nil
	}
	secret, err := r.objects.Secret(ctx, types.NamespacedName{Namespace: r.namespace, Name: name})
	if err != nil {
		return nil, r.unread("Secret", name, err)
	}
	if r.secrets == nil {
		r.secrets = map[string]*corev1.Secret{}
	}
	r.secrets[name] = secret
	return secret, nil
}

func (r *resolver) configMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	if configMap, found := r.configMaps[name]; found {
		return configMap, nil
	}
	configMap, err := r.objects.ConfigMap(ctx, types.NamespacedName{Namespace: r.namespace, Name: name})
	if err != nil {
		return nil, r.unread("ConfigMap", name, err)
	}
	if r.configMaps == nil {
		r.configMaps = map[string]*corev1.ConfigMap{}
	}
	r.configMaps[name] = configMap
	return configMap, nil
}

func (r *resolver) unread(kind, name string, err error) error {
	if apierrors.IsNotFound(err) {
		return &missingError{
			what:  r.describe(kind, name) + " does not exist; create it, or set optional: true",
			cause: err,
		}
	}
	return fmt.Errorf("reading %s: %w", r.describe(kind, name), err)
}

func (r *resolver) noKey(kind, name, key string, keys []string) error {
	has := "it has no keys"
	if len(keys) > 0 {
		has = "its keys are " + quoted(keys)
	}
	return &missingError{what: fmt.Sprintf(
		"%s has no key %q; %s; add the key, or set optional: true", r.describe(kind, name), key, has)}
}

// describe names an object of the Pod's namespace.
func (r *resolver) describe(kind, name string) string {
	return fmt.Sprintf("%s %q", kind, r.namespace+"/"+name)
}

// quoted lists names for an error, the first ten of them.
func quoted(names []string) string {
	const most = 10
	list := make([]string, 0, most+1)
	for i, name := range names {
		if i == most {
			list = append(list, fmt.Sprintf("and %d more", len(names)-most))
			break
		}
		list = append(list, fmt.Sprintf("%q", name))
	}
	return strings.Join(list, ", ")
}

// shown returns a variable's name as it is where it is a name, and quoted where it is not.
func shown(name string) string {
	if len(validation.IsRelaxedEnvVarName(name)) == 0 && !strings.Contains(name, " ") {
		return name
	}
	return fmt.Sprintf("%q", name)
}
