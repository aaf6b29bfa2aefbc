package v1alpha1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ConditionType names one aspect of a ScaledJob's state.
type ConditionType string

// The conditions of a ScaledJob.
const (
	// ConditionReady tells whether the ScaledJob is well defined and its triggers answer.
	ConditionReady ConditionType = "Ready"
	// ConditionActive tells whether a trigger says that there is work.
	ConditionActive ConditionType = "Active"
	// ConditionPaused tells whether the user has stopped new Jobs.
	ConditionPaused ConditionType = "Paused"
	// ConditionLimited tells whether Jobs wait because of a limit over all ScaledJobs. It is there only where there are
	// such limits.
	ConditionLimited ConditionType = "Limited"
	// ConditionFallback tells whether triggers cannot be measured and the ScaledJob's fallback holds. It is there only
	// where the ScaledJob has one.
	ConditionFallback ConditionType = "Fallback"
)

// Condition is one aspect of a ScaledJob's state, in KEDA's shape: it has no transition time.
type Condition struct {
	// Type is the aspect: Ready, Active, Paused, Limited or Fallback.
	// +required
	Type ConditionType `json:"type"`
	// Status is True, False or Unknown.
	// +required
	Status metav1.ConditionStatus `json:"status"`
	// Reason is one CamelCase word.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message is for people.
	// +optional
	Message string `json:"message,omitempty"`
}

// Conditions holds at most one Condition of each type.
type Conditions []Condition

// Get returns the condition of the type; one with status Unknown when there is none.
func (c Conditions) Get(t ConditionType) Condition {
	for _, condition := range c {
		if condition.Type == t {
			return condition
		}
	}
	return Condition{Type: t, Status: metav1.ConditionUnknown}
}

// Remove takes the condition of the type away.
func (c *Conditions) Remove(t ConditionType) {
	*c = slices.DeleteFunc(*c, func(condition Condition) bool { return condition.Type == t })
}

// Set replaces the condition of the same type, or adds it.
func (c *Conditions) Set(condition Condition) {
	for i := range *c {
		if (*c)[i].Type == condition.Type {
			(*c)[i] = condition
			return
		}
	}
	*c = append(*c, condition)
}
