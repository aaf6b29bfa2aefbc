package v1alpha1

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Annotations and labels that users and their dashboards know from KEDA.
const (
	// AnnotationPaused on a ScaledJob stops new Jobs. Any value that is not a false boolean pauses.
	AnnotationPaused = "autoscaling.keda.sh/paused"
	// AnnotationExcludedLabels on a ScaledJob lists, separated by commas, labels that its Jobs do not inherit.
	AnnotationExcludedLabels = "scaledjob.keda.sh/job-excluded-labels"
	// AnnotationGeneration on a Job is the generation of the ScaledJob that it was made from.
	AnnotationGeneration = "scaledjob.keda.sh/generation"
	// AnnotationPriority on a ScaledJob is its weight where limits over all ScaledJobs bind; see ScaledJob.Priority. It is
	// not KEDA's.
	AnnotationPriority = "offboard.dev/priority"
	// LabelScaledJob on Jobs and Pods names their ScaledJob.
	LabelScaledJob = "scaledjob.keda.sh/name"
)

// Defaults of optional fields of a ScaledJob.
const (
	DefaultPollingInterval  = 30 * time.Second
	DefaultMaxReplicaCount  = 100
	DefaultJobsHistoryLimit = 100
	DefaultPriority         = 1
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

	FallbackStatic                  = "static"
	FallbackCurrentReplicas         = "currentReplicas"
	FallbackCurrentReplicasIfHigher = "currentReplicasIfHigher"
	FallbackCurrentReplicasIfLower  = "currentReplicasIfLower"
	FallbackScalingModifiers        = "scalingModifiers"

	// MetricTypeAverageValue is the only metric type that a formula's result can have in a ScaledJob.
	MetricTypeAverageValue = "AverageValue"
)

// ScaledJob says which triggers start which Jobs, and how many at once.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=scaledjobs,scope=Namespaced,shortName=sj
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=offboard"
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
	// Delivery says how an item reaches the Job that works on it: by pop, KEDA's way and the default, or by claim.
	// +optional
	Delivery *Delivery `json:"delivery,omitempty"`
	// Fallback says how many Jobs there are to be while triggers cannot be measured. KEDA has it for ScaledObjects only.
	// +optional
	Fallback *Fallback `json:"fallback,omitempty"`
	// Advanced combines the triggers by a formula. KEDA has it for ScaledObjects only.
	// +optional
	Advanced *Advanced `json:"advanced,omitempty"`
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

// Fallback says how many Jobs there are to be while triggers cannot be measured.
type Fallback struct {
	// FailureThreshold is how many times in a row, a polling interval apart, a trigger may fail before the fallback holds.
	// +kubebuilder:validation:Minimum=0
	FailureThreshold int32 `json:"failureThreshold"`
	// Replicas is how many unfinished Jobs there are to be then.
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas"`
	// Behavior static (default) keeps Replicas Jobs; currentReplicas as many as there were when the triggers were last
	// measured, currentReplicasIfHigher and currentReplicasIfLower the larger and the smaller of the two;
	// scalingModifiers hands nil for such a trigger to the formula.
	// +optional
	// +kubebuilder:validation:Enum=static;currentReplicas;currentReplicasIfHigher;currentReplicasIfLower;scalingModifiers
	Behavior string `json:"behavior,omitempty"`
}

// Advanced holds what most ScaledJobs do without.
type Advanced struct {
	// ScalingModifiers makes one measurement of those of several triggers.
	// +optional
	ScalingModifiers *ScalingModifiers `json:"scalingModifiers,omitempty"`
}

// ScalingModifiers makes one measurement of those of several triggers.
type ScalingModifiers struct {
	// Formula is an expression over the triggers' names that gives a number, in the language of
	// github.com/expr-lang/expr.
	// +kubebuilder:validation:MinLength=1
	Formula string `json:"formula"`
	// Target is how much of the formula's result one Job takes, a number above 0 such as "5".
	// +kubebuilder:validation:MinLength=1
	Target string `json:"target"`
	// ActivationTarget is the result above which there is work, a number. Default "0".
	// +optional
	ActivationTarget string `json:"activationTarget,omitempty"`
	// MetricType is AverageValue, which it need not say; accepted so that it can be written as in a ScaledObject.
	// +optional
	// +kubebuilder:validation:Enum=AverageValue
	MetricType string `json:"metricType,omitempty"`
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
	// Name is the object's name.
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
	// Conditions are Ready, Active and Paused, and Limited where there are limits over all ScaledJobs.
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
	// IsActive tells whether the trigger says that there is work. It is written also when it is false, as KEDA does.
	// +optional
	IsActive bool `json:"isActive"`
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

// maxPriority keeps the arithmetic with weights exact.
const maxPriority = 1_000_000

// Priority returns the ScaledJob's weight where limits over all ScaledJobs bind: of two that want more Jobs than they
// can have, one with twice the weight gets twice as many. An annotation that is no such weight gives an error.
func (s *ScaledJob) Priority() (float64, error) {
	text, found := s.Annotations[AnnotationPriority]
	if !found {
		return DefaultPriority, nil
	}
	weight, err := strconv.ParseFloat(text, 64)
	if err != nil || !(weight > 0 && weight <= maxPriority) {
		return 0, fmt.Errorf("annotation %s is %q, want a number above 0 and up to %d, such as \"10\"; it counts as %d",
			AnnotationPriority, text, maxPriority, DefaultPriority)
	}
	return weight, nil
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
