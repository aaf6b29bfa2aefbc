package crds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	clientv1 "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// FieldManager is the name under which Install applies definitions.
const FieldManager = "offboard"

const (
	// patience is how long the API server may take to serve a definition; it takes some milliseconds.
	patience = 30 * time.Second
	interval = 50 * time.Millisecond
)

// Foreign is a definition that somebody else has installed, and that is good enough to be left as it is.
type Foreign struct {
	// Name of the definition.
	Name string
	// Unknown are the fields, as paths such as spec.rollout, that Offboard's definition has and this one has not. The
	// API server refuses or drops them.
	Unknown []string
}

// String says it in a sentence.
func (f Foreign) String() string {
	text := fmt.Sprintf("CustomResourceDefinition %s is there already, from somebody else, and is left as it is", f.Name)
	if len(f.Unknown) > 0 {
		text += "; it does not know " + strings.Join(f.Unknown, ", ")
	}
	return text
}

// Install creates the definitions that the cluster has not, updates those that Offboard has installed before, and
// returns when the API server serves all of them. Definitions of somebody else are left as they are and returned; one
// that Offboard could not work with is an error that says what to do. To install twice, or from two places at once, is
// harmless. It needs the verbs get, create and patch on customresourcedefinitions.
func Install(ctx context.Context, config *rest.Config) ([]Foreign, error) {
	client, err := clientset.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("install CustomResourceDefinitions: %w", err)
	}
	var (
		foreign []Foreign
		served  []string
	)
	for _, definition := range Definitions() {
		other, err := installOne(ctx, client.ApiextensionsV1().CustomResourceDefinitions(), definition)
		if err != nil {
			return nil, fmt.Errorf("install CustomResourceDefinition %s: %w", definition.Name, err)
		}
		if other != nil {
			foreign = append(foreign, *other)
		}
		served = append(served, definition.Spec.Names.Plural)
	}
	if err := waitServed(ctx, client, served); err != nil {
		return nil, err
	}
	return foreign, nil
}

// installOne applies one definition and waits until it is established, or returns the one that is there instead.
func installOne(
	ctx context.Context, client clientv1.CustomResourceDefinitionInterface,
	definition *apiextensionsv1.CustomResourceDefinition,
) (*Foreign, error) {
	present, err := client.Get(ctx, definition.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return nil, err
	case present.Labels[LabelPartOf] != PartOf:
		foreign, err := compare(definition, present)
		if err != nil {
			return nil, fmt.Errorf("it is there already, from somebody else, and Offboard cannot work with it: %w; "+
				"if nobody else needs it as it is, replace it with: "+
				"offboard crds | kubectl apply --server-side --force-conflicts -f -", err)
		}
		return foreign, waitEstablished(ctx, client, definition.Name)
	}
	data, err := applied(definition)
	if err != nil {
		return nil, err
	}
	// Ours are ours whoever has applied them, for example kubectl.
	force := true
	if _, err := client.Patch(ctx, definition.Name, types.ApplyPatchType, data,
		metav1.PatchOptions{FieldManager: FieldManager, Force: &force}); err != nil {
		return nil, err
	}
	return nil, waitEstablished(ctx, client, definition.Name)
}

// applied returns what is applied of a definition: without the status, which is the server's to write.
func applied(definition *apiextensionsv1.CustomResourceDefinition) ([]byte, error) {
	return json.Marshal(map[string]any{
		"apiVersion": apiextensionsv1.SchemeGroupVersion.String(),
		"kind":       "CustomResourceDefinition",
		"metadata": map[string]any{
			"name": definition.Name, "labels": definition.Labels, "annotations": definition.Annotations,
		},
		"spec": definition.Spec,
	})
}

// compare tells what a definition of somebody else lacks; an error when that is more than fields.
func compare(ours, theirs *apiextensionsv1.CustomResourceDefinition) (*Foreign, error) {
	version := versionOf(theirs)
	switch {
	case version == nil || !version.Served:
		return nil, fmt.Errorf("it does not serve version %s", v1alpha1.Version)
	case theirs.Spec.Scope != ours.Spec.Scope:
		return nil, fmt.Errorf("its scope is %s, not %s", theirs.Spec.Scope, ours.Spec.Scope)
	case theirs.Spec.Names.Kind == v1alpha1.KindScaledJob &&
		(version.Subresources == nil || version.Subresources.Status == nil):
		return nil, errors.New("it has no status subresource, in which Offboard says what a ScaledJob does")
	}
	foreign := &Foreign{Name: ours.Name}
	if version.Schema != nil && version.Schema.OpenAPIV3Schema != nil {
		foreign.Unknown = unknown("", versionOf(ours).Schema.OpenAPIV3Schema, version.Schema.OpenAPIV3Schema)
	}
	return foreign, nil
}

func versionOf(definition *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinitionVersion {
	for i := range definition.Spec.Versions {
		if definition.Spec.Versions[i].Name == v1alpha1.Version {
			return &definition.Spec.Versions[i]
		}
	}
	return nil
}

// unknown returns the outermost properties of ours that theirs has not.
func unknown(path string, ours, theirs *apiextensionsv1.JSONSchemaProps) []string {
	if theirs.XPreserveUnknownFields != nil && *theirs.XPreserveUnknownFields {
		return nil
	}
	var paths []string
	for name, our := range ours.Properties {
		at := strings.TrimPrefix(path+"."+name, ".")
		their, found := theirs.Properties[name]
		if !found {
			paths = append(paths, at)
			continue
		}
		paths = append(paths, unknown(at, &our, &their)...)
	}
	if our, their := ours.Items, theirs.Items; our != nil && their != nil && our.Schema != nil && their.Schema != nil {
		paths = append(paths, unknown(path+"[]", our.Schema, their.Schema)...)
	}
	if our, their := ours.AdditionalProperties, theirs.AdditionalProperties; our != nil && their != nil &&
		our.Schema != nil && their.Schema != nil {
		paths = append(paths, unknown(path+"[]", our.Schema, their.Schema)...)
	}
	slices.Sort(paths)
	return paths
}

// waitEstablished waits until the API server has accepted the names of a definition and serves it.
func waitEstablished(ctx context.Context, client clientv1.CustomResourceDefinitionInterface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	state := "it has no condition yet"
	err := wait.PollUntilContextCancel(ctx, interval, true, func(ctx context.Context) (bool, error) {
		definition, err := client.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, condition := range definition.Status.Conditions {
			switch {
			case condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue:
				return true, nil
			case condition.Type == apiextensionsv1.NamesAccepted && condition.Status == apiextensionsv1.ConditionFalse:
				return false, fmt.Errorf("its names are not accepted: %s: %s", condition.Reason, condition.Message)
			case condition.Status == apiextensionsv1.ConditionFalse:
				state = fmt.Sprintf("condition %s is False: %s: %s", condition.Type, condition.Reason, condition.Message)
			}
		}
		return false, nil
	})
	if wait.Interrupted(err) {
		return fmt.Errorf("the API server does not serve it: %s: %w", state, err)
	}
	return err
}

// waitServed waits until the API server tells clients of the resources, without which they cannot ask for them.
func waitServed(ctx context.Context, client clientset.Interface, resources []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	missing := resources
	var lastErr error
	err := wait.PollUntilContextCancel(ctx, interval, true, func(context.Context) (bool, error) {
		list, err := client.Discovery().ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
		if lastErr = err; err != nil {
			return false, nil
		}
		missing = slices.DeleteFunc(slices.Clone(resources), func(name string) bool {
			return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == name })
		})
		return len(missing) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("the API server does not tell of the resources %s of %s: %w",
			strings.Join(missing, ", "), v1alpha1.GroupVersion, errors.Join(err, lastErr))
	}
	return nil
}
