package v1alpha1

import (
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Group, version and kinds of the API.
const (
	Group                            = "keda.sh"
	Version                          = "v1alpha1"
	KindScaledJob                    = "ScaledJob"
	KindTriggerAuthentication        = "TriggerAuthentication"
	KindClusterTriggerAuthentication = "ClusterTriggerAuthentication"
)

// GroupVersion is keda.sh/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version}

// Annotations and labels that users and their dashboards know from KEDA.
const (
	// AnnotationPaused on a ScaledJob stops new Jobs. Any value that is not a false boolean pauses.
	AnnotationPaused = "autoscaling.keda.sh/paused"
	// AnnotationExcludedLabels on a ScaledJob lists, separated by commas, labels that its Jobs do not inherit.
	AnnotationExcludedLabels = "scaledjob.keda.sh/job-excluded-labels"
	// AnnotationGeneration on a Job is the generation of the ScaledJob that it was made from.
	AnnotationGeneration = "scaledjob.keda.sh/generation"
	// LabelScaledJob on Jobs and Pods names their ScaledJob.
	LabelScaledJob = "scaledjob.keda.sh/name"
)

// Defaults of optional fields of a ScaledJob.
const (
	DefaultPollingInterval  = 30 * time.Second
	DefaultMaxReplicaCount  = 100
	DefaultJobsHistoryLimit = 100
)

// Values of enumerated fields of a ScaledJob.
const (
	RolloutGradual        = "gradual"
	RolloutImmediate      = "immediate"
	PropagationForeground = "foreground"
	PropagationBackground = "background"

	StrategyDefault  = "default"
	StrategyCustom   = "custom"
	StrategyAccurate = "accurate"
	StrategyEager    = "eager"

	CalculationMax = "max"
	CalculationMin = "min"
	CalculationAvg = "avg"
	CalculationSum = "sum"
)

// ScaledJob says which triggers start which Jobs, and how many at once.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=scaledjobs,scope=Namespaced,shortName=sj
// +kubebuilder:printcolumn:name="Min",type="integer",JSONPath=".spec.minReplicaCount"
// +kubebuilder:printcolumn:name="Max",type="integer",JSONPath=".spec.maxReplicaCount"
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=".status.conditions[?(@.type==\"Ready\")].status"
// +kubebuilder:printcolumn:name="Active",type="string",JSONPath=".status.conditions[?(@.type==\"Active\")].status"
// +kubebuilder:printcolumn:name="Paused",type="string",JSONPath=".status.conditions[?(@.type==\"Paused\")].status"
// +kubebuilder:printcolumn:name="Triggers",type="string",JSONPath=".status.triggersTypes"
// +kubebuilder:printcolumn:name="Authentications",type="string",JSONPath=".status.authenticationsTypes"
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=".metadata.creationTimestamp"
type ScaledJob struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ScaledJobSpec   `json:"spec,omitempty"`
	Status ScaledJobStatus `json:"status,omitempty"`
}

// ScaledJobList is a list of ScaledJobs.
//
// +kubebuilder:object:root=true
type ScaledJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ScaledJob `json:"items"`
}

// ScaledJobSpec is what the user asks for.
type ScaledJobSpec struct {
	// JobTargetRef is the specification of every Job that is made.
	JobTargetRef *batchv1.JobSpec `json:"jobTargetRef"`
	// PollingInterval is the longest time in seconds between two measurements. Default 30.
	// +optional
	// +kubebuilder:validation:Minimum=1
	PollingInterval *int32 `json:"pollingInterval,omitempty"`
	// SuccessfulJobsHistoryLimit is how many succeeded Jobs are kept. Default 100.
	// +optional
	// +kubebuilder:validation:Minimum=0
	SuccessfulJobsHistoryLimit *int32 `json:"successfulJobsHistoryLimit,omitempty"`
	// FailedJobsHistoryLimit is how many failed Jobs are kept. Default 100.
	// +optional
	// +kubebuilder:validation:Minimum=0
	FailedJobsHistoryLimit *int32 `json:"failedJobsHistoryLimit,omitempty"`
	// RolloutStrategy is the deprecated form of rollout.strategy and wins over it, as in KEDA.
	// +optional
	// +kubebuilder:validation:Enum=gradual;immediate
	RolloutStrategy string `json:"rolloutStrategy,omitempty"`
	// Rollout says what happens to running Jobs when the ScaledJob changes.
	// +optional
	Rollout Rollout `json:"rollout,omitempty"`
	// EnvSourceContainerName is the container whose environment answers …FromEnv parameters. Default: the first one.
	// +optional
	EnvSourceContainerName string `json:"envSourceContainerName,omitempty"`
	// MinReplicaCount is how many Jobs always run, whether or not there is work. Default 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	MinReplicaCount *int32 `json:"minReplicaCount,omitempty"`
	// MaxReplicaCount is how many unfinished Jobs there may be at once. Default 100.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxReplicaCount *int32 `json:"maxReplicaCount,omitempty"`
	// ScalingStrategy says how the number of new Jobs follows from the measurements.
	// +optional
	ScalingStrategy ScalingStrategy `json:"scalingStrategy,omitempty"`
	// Triggers say how much work waits.
	// +kubebuilder:validation:MinItems=1
	Triggers []ScaleTriggers `json:"triggers"`
}

// ScalingStrategy chooses and tunes the formula for the number of new Jobs.
type ScalingStrategy struct {
	// Strategy is one of default, custom, accurate, eager; empty means default.
	// +optional
	// +kubebuilder:validation:Enum=default;custom;accurate;eager
	Strategy string `json:"strategy,omitempty"`
	// CustomScalingQueueLengthDeduction is subtracted from the queue length by strategy custom.
	// +optional
	CustomScalingQueueLengthDeduction *int32 `json:"customScalingQueueLengthDeduction,omitempty"`
	// CustomScalingRunningJobPercentage is the share of running Jobs that strategy custom subtracts, a decimal number
	// such as "0.5". When it is absent or not a number, custom behaves as default.
	// +optional
	CustomScalingRunningJobPercentage string `json:"customScalingRunningJobPercentage,omitempty"`
	// PendingPodConditions are the Pod conditions that must all be true before a Job no longer counts as pending.
	// +optional
	PendingPodConditions []string `json:"pendingPodConditions,omitempty"`
	// MultipleScalersCalculation combines several triggers: max (default), min, avg or sum.
	// +optional
	// +kubebuilder:validation:Enum=min;avg;sum;max
	MultipleScalersCalculation string `json:"multipleScalersCalculation,omitempty"`
}

// Rollout says what happens to the Jobs of an older generation.
type Rollout struct {
	// Strategy gradual (also when empty, which differs from KEDA) lets them end; immediate deletes them.
	// +optional
	// +kubebuilder:validation:Enum=gradual;immediate
	Strategy string `json:"strategy,omitempty"`
	// PropagationPolicy is how immediate deletes: background (default) or foreground.
	// +optional
	// +kubebuilder:validation:Enum=foreground;background
	PropagationPolicy string `json:"propagationPolicy,omitempty"`
}

// ScaleTriggers is one source that says how much work waits.
type ScaleTriggers struct {
	// Type names the kind of source, for example redis.
	// +kubebuilder:validation:MinLength=1
	Type string `json:"type"`
	// Name identifies the trigger within its ScaledJob; no two may share one.
	// +optional
	Name string `json:"name,omitempty"`
	// UseCachedMetrics has no meaning for ScaledJobs, as in KEDA; accepted so that manifests work unchanged.
	UseCachedMetrics bool `json:"useCachedMetrics,omitempty"`
	// Metadata holds the parameters of the type.
	Metadata map[string]string `json:"metadata"`
	// AuthenticationRef names where further parameters, mostly secret ones, come from.
	// +optional
	AuthenticationRef *AuthenticationRef `json:"authenticationRef,omitempty"`
	// MetricType cannot be set in a ScaledJob, as in KEDA; it exists so that the error can say so.
	// +optional
	MetricType string `json:"metricType,omitempty"`
}

// AuthenticationRef names a TriggerAuthentication or a ClusterTriggerAuthentication.
type AuthenticationRef struct {
	Name string `json:"name"`
	// Kind is TriggerAuthentication (default) or ClusterTriggerAuthentication.
	// +optional
	// +kubebuilder:validation:Enum=TriggerAuthentication;ClusterTriggerAuthentication
	Kind string `json:"kind,omitempty"`
}

// ScaledJobStatus is what the controller last saw.
type ScaledJobStatus struct {
	// LastActiveTime is when a trigger was last seen active.
	// +optional
	LastActiveTime *metav1.Time `json:"lastActiveTime,omitempty"`
	// Conditions are Ready, Active and Paused.
	// +optional
	Conditions Conditions `json:"conditions,omitempty"`
	// Paused is kept for objects that KEDA wrote.
	// +optional
	Paused string `json:"Paused,omitempty"`
	// TriggersTypes lists the trigger types, separated by commas.
	// +optional
	TriggersTypes *string `json:"triggersTypes,omitempty"`
	// AuthenticationsTypes lists the names of the authentications, separated by commas.
	// +optional
	AuthenticationsTypes *string `json:"authenticationsTypes,omitempty"`
	// ExternalMetricNames are the triggers' metric names.
	// +optional
	ExternalMetricNames []string `json:"externalMetricNames,omitempty"`
	// TriggersActivity tells per metric name whether the trigger is active.
	// +optional
	TriggersActivity map[string]TriggerActivityStatus `json:"triggersActivity,omitempty"`
}

// TriggerActivityStatus tells whether one trigger is active.
type TriggerActivityStatus struct {
	IsActive bool `json:"isActive,omitempty"`
}

// Key returns the namespace and the name.
func (s *ScaledJob) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

// Polling returns the longest time between two measurements.
func (s *ScaledJob) Polling() time.Duration {
	if s.Spec.PollingInterval != nil {
		return time.Duration(*s.Spec.PollingInterval) * time.Second
	}
	return DefaultPollingInterval
}

// HistoryLimits returns how many succeeded and how many failed Jobs are kept.
func (s *ScaledJob) HistoryLimits() (succeeded, failed int) {
	succeeded, failed = DefaultJobsHistoryLimit, DefaultJobsHistoryLimit
	if s.Spec.SuccessfulJobsHistoryLimit != nil {
		succeeded = int(*s.Spec.SuccessfulJobsHistoryLimit)
	}
	if s.Spec.FailedJobsHistoryLimit != nil {
		failed = int(*s.Spec.FailedJobsHistoryLimit)
	}
	return succeeded, failed
}

// PausedByAnnotation tells whether the user has paused the ScaledJob. As in KEDA, a value that is not a boolean pauses.
func (s *ScaledJob) PausedByAnnotation() bool {
	value, found := s.Annotations[AnnotationPaused]
	if !found {
		return false
	}
	paused, err := strconv.ParseBool(value)
	return err != nil || paused
}

// ReplacesRunningJobs tells whether a change of the ScaledJob deletes the Jobs of older generations. The deprecated
// rolloutStrategy wins over rollout.strategy, as in KEDA; unlike there, nothing is deleted unless immediate is asked
// for.
func (s *ScaledJob) ReplacesRunningJobs() bool {
	if s.Spec.RolloutStrategy != "" {
		return s.Spec.RolloutStrategy == RolloutImmediate
	}
	return s.Spec.Rollout.Strategy == RolloutImmediate
}

// ExcludedLabels returns the labels of the ScaledJob that its Jobs do not inherit.
func (s *ScaledJob) ExcludedLabels() map[string]bool {
	excluded := map[string]bool{}
	for label := range strings.SplitSeq(s.Annotations[AnnotationExcludedLabels], ",") {
		if label = strings.TrimSpace(label); label != "" {
			excluded[label] = true
		}
	}
	return excluded
}
