// Package v1alpha1 holds the API types of the keda.sh/v1alpha1 group as Offboard reads and writes them: ScaledJob,
// TriggerAuthentication and ClusterTriggerAuthentication, field for field as KEDA defines them, with their defaults.
//
// It holds types, deep copies and defaults and nothing else: no I/O, no validation that needs more than the object.
//
// +kubebuilder:object:generate=true
// +groupName=keda.sh
package v1alpha1
