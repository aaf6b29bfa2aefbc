package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TriggerAuthentication says where the parameters of a trigger come from that do not belong into its metadata.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=triggerauthentications,scope=Namespaced,shortName=ta;triggerauth
type TriggerAuthentication struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec TriggerAuthenticationSpec `json:"spec"`
}

// ClusterTriggerAuthentication is a TriggerAuthentication for every namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=clustertriggerauthentications,scope=Cluster,shortName=cta;clustertriggerauth
type ClusterTriggerAuthentication struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec TriggerAuthenticationSpec `json:"spec"`
}

// TriggerAuthenticationSpec lists the sources of parameters.
type TriggerAuthenticationSpec struct {
	// SecretTargetRef reads parameters from keys of Secrets.
	// +optional
	SecretTargetRef []AuthTargetRef `json:"secretTargetRef,omitempty"`
	// ConfigMapTargetRef reads parameters from keys of ConfigMaps.
	// +optional
	ConfigMapTargetRef []AuthTargetRef `json:"configMapTargetRef,omitempty"`
	// Env reads parameters from the environment of the Job's containers.
	// +optional
	Env []AuthEnvironment `json:"env,omitempty"`
}

// AuthTargetRef takes one parameter from a key of a Secret or a ConfigMap.
type AuthTargetRef struct {
	// Parameter is the trigger's parameter that is filled.
	Parameter string `json:"parameter"`
	// Name is the Secret's or ConfigMap's name.
	Name string `json:"name"`
	// Key is the key within it.
	Key string `json:"key"`
}

// AuthEnvironment takes one parameter from an environment variable of a container of the Job.
type AuthEnvironment struct {
	// Parameter is the trigger's parameter that is filled.
	Parameter string `json:"parameter"`
	// Name is the variable's name.
	Name string `json:"name"`
	// ContainerName is the container; default: the first one, as in KEDA, whatever envSourceContainerName says.
	// +optional
	ContainerName string `json:"containerName,omitempty"`
}
