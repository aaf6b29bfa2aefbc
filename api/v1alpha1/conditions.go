package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
)

// Condition is one aspect of a ScaledJob's state, in KEDA's shape: it has no transition time.
type Condition struct {
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
