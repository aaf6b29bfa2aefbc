package manifest

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// structField is a field of a Go struct as JSON sees it.
type structField struct {
	index    []int
	required bool
}

// structFields are a struct's fields by their names in JSON, those of embedded structs included.
type structFields struct {
	byName   map[string]structField
	names    []string
	required []string
}

// fieldsCache remembers structFields by reflect.Type: the types never change and a template has thousands of structs.
var fieldsCache sync.Map

func fieldsOf(t reflect.Type) *structFields {
	if cached, ok := fieldsCache.Load(t); ok {
		return cached.(*structFields)
	}
	fields := &structFields{byName: map[string]structField{}}
	collectFields(t, nil, fields)
	fields.names = slices.Sorted(maps.Keys(fields.byName))
	for _, name := range fields.names {
		if fields.byName[name].required {
			fields.required = append(fields.required, name)
		}
	}
	cached, _ := fieldsCache.LoadOrStore(t, fields)
	return cached.(*structFields)
}

func collectFields(t reflect.Type, prefix []int, fields *structFields) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		index := append(slices.Clone(prefix), i)
		switch {
		case name == "-" || !field.IsExported():
		case field.Anonymous && name == "":
			collectFields(field.Type, index, fields)
		default:
			// The Kubernetes types leave omitempty away exactly where a field must be given; a few are laxer.
			optional := strings.Contains(options, "omitempty") || laxFields[t][name]
			fields.byName[name] = structField{index: index, required: !optional}
		}
	}
}

// laxFields need not be given although their declaration has no omitempty.
var laxFields = map[reflect.Type]map[string]bool{
	reflect.TypeFor[batchv1.PodFailurePolicyOnPodConditionsPattern](): {"status": true}, // the API server fills in True
	reflect.TypeFor[corev1.TypedLocalObjectReference]():               {"apiGroup": true},
	reflect.TypeFor[corev1.TypedObjectReference]():                    {"apiGroup": true},
	reflect.TypeFor[corev1.GRPCAction]():                              {"service": true},
	reflect.TypeFor[v1alpha1.TriggerActivityStatus]():                 {"isActive": true},
}

// enums are the values of the Kubernetes types that allow only some; the empty string stands for the default.
var enums = map[reflect.Type][]string{
	reflect.TypeFor[batchv1.CompletionMode]():                         words("NonIndexed Indexed"),
	reflect.TypeFor[batchv1.PodFailurePolicyAction]():                 words("FailJob FailIndex Ignore Count"),
	reflect.TypeFor[batchv1.PodFailurePolicyOnExitCodesOperator]():    words("In NotIn"),
	reflect.TypeFor[batchv1.PodReplacementPolicy]():                   words("TerminatingOrFailed Failed"),
	reflect.TypeFor[corev1.ConditionStatus]():                         words("True False Unknown"),
	reflect.TypeFor[corev1.ContainerRestartPolicy]():                  words("Always Never OnFailure"),
	reflect.TypeFor[corev1.ContainerRestartRuleAction]():              words("Restart RestartAllContainers"),
	reflect.TypeFor[corev1.ContainerRestartRuleOnExitCodesOperator](): words("In NotIn"),
	reflect.TypeFor[corev1.DNSPolicy]():                               dnsPolicies,
	reflect.TypeFor[corev1.MountPropagationMode]():                    words("None HostToContainer Bidirectional"),
	reflect.TypeFor[corev1.NodeInclusionPolicy]():                     words("Honor Ignore"),
	reflect.TypeFor[corev1.NodeSelectorOperator]():                    words("In NotIn Exists DoesNotExist Gt Lt"),
	reflect.TypeFor[corev1.OSName]():                                  words("linux windows"),
	reflect.TypeFor[corev1.PodFSGroupChangePolicy]():                  words("Always OnRootMismatch"),
	reflect.TypeFor[corev1.PreemptionPolicy]():                        words("Never PreemptLowerPriority"),
	reflect.TypeFor[corev1.ProcMountType]():                           words("Default Unmasked"),
	reflect.TypeFor[corev1.Protocol]():                                words("TCP UDP SCTP"),
	reflect.TypeFor[corev1.PullPolicy]():                              words("Always IfNotPresent Never"),
	reflect.TypeFor[corev1.RestartPolicy]():                           words("Always OnFailure Never"),
	reflect.TypeFor[corev1.SeccompProfileType]():                      words("Unconfined RuntimeDefault Localhost"),
	reflect.TypeFor[corev1.TaintEffect]():                             words("NoSchedule PreferNoSchedule NoExecute"),
	reflect.TypeFor[corev1.TerminationMessagePolicy]():                words("File FallbackToLogsOnError"),
	reflect.TypeFor[corev1.TolerationOperator]():                      words("Exists Equal"),
	reflect.TypeFor[corev1.URIScheme]():                               words("HTTP HTTPS"),
	reflect.TypeFor[corev1.UnsatisfiableConstraintAction]():           words("DoNotSchedule ScheduleAnyway"),
}

func words(separated string) []string { return strings.Fields(separated) }

var dnsPolicies = words("ClusterFirst ClusterFirstWithHostNet Default None")

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()
