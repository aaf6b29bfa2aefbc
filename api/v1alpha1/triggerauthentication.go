package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TriggerAuthentication says where the parameters of a trigger come from that do not belong into its metadata.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=triggerauthentications,scope=Namespaced,shortName=ta;triggerauth
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=offboard"
// +kubebuilder:printcolumn:name="PodIdentity",type="string",JSONPath=".spec.podIdentity.provider"
// +kubebuilder:printcolumn:name="Secret",type="string",JSONPath=".spec.secretTargetRef[*].name"
// +kubebuilder:printcolumn:name="Env",type="string",JSONPath=".spec.env[*].name"
// +kubebuilder:printcolumn:name="VaultAddress",type="string",JSONPath=".spec.hashiCorpVault.address"
// +kubebuilder:printcolumn:name="ScaledObjects",type="string",priority=1,JSONPath=".status.scaledobjects"
// +kubebuilder:printcolumn:name="ScaledJobs",type="string",priority=1,JSONPath=".status.scaledjobs"
type TriggerAuthentication struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TriggerAuthenticationSpec   `json:"spec"`
	Status TriggerAuthenticationStatus `json:"status,omitempty"`
}

// TriggerAuthenticationList is a list of TriggerAuthentications.
//
// +kubebuilder:object:root=true
type TriggerAuthenticationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TriggerAuthentication `json:"items"`
}

// ClusterTriggerAuthentication is a TriggerAuthentication for every namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=clustertriggerauthentications,scope=Cluster,shortName=cta;clustertriggerauth
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=offboard"
// +kubebuilder:printcolumn:name="PodIdentity",type="string",JSONPath=".spec.podIdentity.provider"
// +kubebuilder:printcolumn:name="Secret",type="string",JSONPath=".spec.secretTargetRef[*].name"
// +kubebuilder:printcolumn:name="Env",type="string",JSONPath=".spec.env[*].name"
// +kubebuilder:printcolumn:name="FilePath",type="string",JSONPath=".spec.filePath"
// +kubebuilder:printcolumn:name="VaultAddress",type="string",JSONPath=".spec.hashiCorpVault.address"
// +kubebuilder:printcolumn:name="ScaledObjects",type="string",priority=1,JSONPath=".status.scaledobjects"
// +kubebuilder:printcolumn:name="ScaledJobs",type="string",priority=1,JSONPath=".status.scaledjobs"
type ClusterTriggerAuthentication struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TriggerAuthenticationSpec   `json:"spec"`
	Status TriggerAuthenticationStatus `json:"status,omitempty"`
}

// ClusterTriggerAuthenticationList is a list of ClusterTriggerAuthentications.
//
// +kubebuilder:object:root=true
type ClusterTriggerAuthenticationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterTriggerAuthentication `json:"items"`
}

// TriggerAuthenticationSpec lists the sources of parameters.
type TriggerAuthenticationSpec struct {
	// PodIdentity is an identity that the platform gives.
	// +optional
	PodIdentity *AuthPodIdentity `json:"podIdentity,omitempty"`
	// SecretTargetRef reads parameters from keys of Secrets.
	// +optional
	SecretTargetRef []AuthTargetRef `json:"secretTargetRef,omitempty"`
	// ConfigMapTargetRef reads parameters from keys of ConfigMaps.
	// +optional
	ConfigMapTargetRef []AuthTargetRef `json:"configMapTargetRef,omitempty"`
	// Env reads parameters from the environment of the Job's containers.
	// +optional
	Env []AuthEnvironment `json:"env,omitempty"`
	// FilePath is a file of the operator with a JSON object of parameters, which are taken in place of all others.
	// +optional
	FilePath string `json:"filePath,omitempty"`
	// HashiCorpVault reads parameters from HashiCorp Vault.
	// +optional
	HashiCorpVault *HashiCorpVault `json:"hashiCorpVault,omitempty"`
	// AzureKeyVault reads parameters from an Azure Key Vault.
	// +optional
	AzureKeyVault *AzureKeyVault `json:"azureKeyVault,omitempty"`
	// GCPSecretManager reads parameters from Google's Secret Manager.
	// +optional
	GCPSecretManager *GCPSecretManager `json:"gcpSecretManager,omitempty"`
	// AwsSecretManager reads parameters from AWS Secrets Manager.
	// +optional
	AwsSecretManager *AwsSecretManager `json:"awsSecretManager,omitempty"`
	// BoundServiceAccountToken fills parameters with tokens of service accounts.
	// +optional
	BoundServiceAccountToken []BoundServiceAccountToken `json:"boundServiceAccountToken,omitempty"`
	// OAuth2 asks an authorization server for a token.
	// +optional
	OAuth2 *OAuth2 `json:"oauth2,omitempty"`
}

// TriggerAuthenticationStatus says who uses an authentication. KEDA writes it.
type TriggerAuthenticationStatus struct {
	// ScaledObjectNamesStr are the ScaledObjects that refer to it, separated by commas.
	// +optional
	ScaledObjectNamesStr string `json:"scaledobjects,omitempty"`
	// ScaledJobNamesStr are the ScaledJobs that refer to it, separated by commas.
	// +optional
	ScaledJobNamesStr string `json:"scaledjobs,omitempty"`
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
