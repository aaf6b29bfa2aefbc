package v1alpha1

// The types of this file are the sources of a TriggerAuthentication outside of the cluster: identities of Pods, and
// stores of secrets. They are declared so that an object that holds them is read and written whole.

// PodIdentityProvider is what gives a Pod its identity.
type PodIdentityProvider string

// The providers of identities.
const (
	PodIdentityNone          PodIdentityProvider = "none"
	PodIdentityAzureWorkload PodIdentityProvider = "azure-workload"
	PodIdentityGCP           PodIdentityProvider = "gcp"
	PodIdentityAWS           PodIdentityProvider = "aws"
	PodIdentityAWSEKS        PodIdentityProvider = "aws-eks"
)

// AuthPodIdentity is the identity, given by the platform, that a trigger takes on.
type AuthPodIdentity struct {
	// Provider of the identity; none stands for no identity.
	// +kubebuilder:validation:Enum=azure-workload;gcp;aws;aws-eks;none
	Provider PodIdentityProvider `json:"provider"`
	// IdentityID is the client id on Azure, where the operator's own is the default, or the service account on GCP.
	// +optional
	IdentityID *string `json:"identityId,omitempty"`
	// IdentityTenantID is the tenant on Azure, when it is another than the default; identityId must be given with it.
	// +optional
	IdentityTenantID *string `json:"identityTenantId,omitempty"`
	// IdentityAuthorityHost is the host that signs in on Azure; identityTenantId must be given with it.
	// +optional
	IdentityAuthorityHost *string `json:"identityAuthorityHost,omitempty"`
	// RoleArn is the AWS role to assume; it excludes identityOwner.
	// +optional
	RoleArn *string `json:"roleArn,omitempty"`
	// ExternalID is sent when the AWS role is assumed; it has a meaning with roleArn only.
	// +optional
	ExternalID *string `json:"externalID,omitempty"`
	// IdentityOwner says whose AWS identity is taken: the operator's (keda) or that of the Jobs (workload). It excludes
	// roleArn.
	// +optional
	// +kubebuilder:validation:Enum=keda;workload
	IdentityOwner *string `json:"identityOwner,omitempty"`
}

// ValueFromSecret is a value that a Secret holds.
type ValueFromSecret struct {
	// SecretKeyRef names the Secret and the key.
	SecretKeyRef SecretKeyRef `json:"secretKeyRef"`
}

// SecretKeyRef names one key of a Secret.
type SecretKeyRef struct {
	// Name is the Secret's name.
	Name string `json:"name"`
	// Key is the key within it.
	Key string `json:"key"`
}

// HashiCorpVault reads parameters from HashiCorp Vault.
type HashiCorpVault struct {
	// Address is the server's URL.
	Address string `json:"address"`
	// Authentication is how to sign in: token or kubernetes.
	Authentication VaultAuthentication `json:"authentication"`
	// Secrets are the values to read.
	// +kubebuilder:validation:MinItems=1
	Secrets []VaultSecret `json:"secrets"`
	// Namespace is that of Vault, not of Kubernetes.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Credential is what to sign in with.
	// +optional
	Credential *Credential `json:"credential,omitempty"`
	// Role is Vault's role for authentication kubernetes.
	// +optional
	Role string `json:"role,omitempty"`
	// Mount is the path at which authentication kubernetes is mounted in Vault.
	// +optional
	Mount string `json:"mount,omitempty"`
}

// VaultAuthentication is a way to sign in to HashiCorp Vault.
//
// +kubebuilder:validation:Enum=token;kubernetes
type VaultAuthentication string

// The ways to sign in to HashiCorp Vault.
const (
	VaultAuthenticationToken      VaultAuthentication = "token"
	VaultAuthenticationKubernetes VaultAuthentication = "kubernetes"
)

// Credential is what to sign in to HashiCorp Vault with.
type Credential struct {
	// Token is for authentication token.
	// +optional
	Token string `json:"token,omitempty"`
	// ServiceAccount is the path of a file with a token of a service account, for authentication kubernetes.
	// +optional
	ServiceAccount string `json:"serviceAccount,omitempty"`
	// ServiceAccountName is the service account for which a token is asked for, for authentication kubernetes.
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
}

// VaultSecretType is an engine of HashiCorp Vault; empty means to find out.
//
// +kubebuilder:validation:Enum="";secretV2;secret;pki
type VaultSecretType string

// The engines of HashiCorp Vault.
const (
	VaultSecretTypeAny      VaultSecretType = ""
	VaultSecretTypeSecretV2 VaultSecretType = "secretV2"
	VaultSecretTypeSecret   VaultSecretType = "secret"
	VaultSecretTypePKI      VaultSecretType = "pki"
)

// VaultSecret takes one parameter from HashiCorp Vault.
type VaultSecret struct {
	// Parameter is the trigger's parameter that is filled.
	Parameter string `json:"parameter"`
	// Path is the path of the secret.
	Path string `json:"path"`
	// Key is the key within it.
	Key string `json:"key"`
	// Type is the engine behind the path.
	// +optional
	Type VaultSecretType `json:"type,omitempty"`
	// PkiData describes the certificate to issue, for type pki.
	// +optional
	PkiData VaultPkiData `json:"pkiData,omitempty"`
}

// VaultPkiData describes a certificate that HashiCorp Vault issues; the fields are the parameters of its API, of the
// same names in snake case.
type VaultPkiData struct {
	// CommonName is the certificate's common name.
	// +optional
	CommonName string `json:"commonName,omitempty"`
	// AltNames are further names, separated by commas.
	// +optional
	AltNames string `json:"altNames,omitempty"`
	// IPSans are IP addresses, separated by commas.
	// +optional
	IPSans string `json:"ipSans,omitempty"`
	// URISans are URIs, separated by commas.
	// +optional
	URISans string `json:"uriSans,omitempty"`
	// OtherSans are alternative names of other types, separated by commas.
	// +optional
	OtherSans string `json:"otherSans,omitempty"`
	// TTL is how long the certificate is valid.
	// +optional
	TTL string `json:"ttl,omitempty"`
	// Format is the encoding of the certificate.
	// +optional
	Format string `json:"format,omitempty"`
}

// AzureKeyVault reads parameters from an Azure Key Vault.
type AzureKeyVault struct {
	// VaultURI is the vault's URL.
	VaultURI string `json:"vaultUri"`
	// Secrets are the values to read.
	// +kubebuilder:validation:MinItems=1
	Secrets []AzureKeyVaultSecret `json:"secrets"`
	// Credentials are those of an application; without them podIdentity signs in.
	// +optional
	Credentials *AzureKeyVaultCredentials `json:"credentials,omitempty"`
	// PodIdentity signs in where there are no credentials.
	// +optional
	PodIdentity *AuthPodIdentity `json:"podIdentity,omitempty"`
	// Cloud is for clouds other than the public one.
	// +optional
	Cloud *AzureKeyVaultCloudInfo `json:"cloud,omitempty"`
}

// AzureKeyVaultCredentials are the credentials of an application that Azure knows.
type AzureKeyVaultCredentials struct {
	// ClientID is the application's id.
	ClientID string `json:"clientId"`
	// TenantID is the id of its tenant.
	TenantID string `json:"tenantId"`
	// ClientSecret is its secret.
	ClientSecret *AzureKeyVaultClientSecret `json:"clientSecret"`
}

// AzureKeyVaultClientSecret is the secret of an application.
type AzureKeyVaultClientSecret struct {
	// ValueFrom says where it is.
	ValueFrom ValueFromSecret `json:"valueFrom"`
}

// AzureKeyVaultSecret takes one parameter from an Azure Key Vault.
type AzureKeyVaultSecret struct {
	// Parameter is the trigger's parameter that is filled.
	Parameter string `json:"parameter"`
	// Name is the name of the secret in the vault.
	Name string `json:"name"`
	// Version of the secret; empty means the latest.
	// +optional
	Version string `json:"version,omitempty"`
}

// AzureKeyVaultCloudInfo says which of Azure's clouds holds a vault.
type AzureKeyVaultCloudInfo struct {
	// Type is the name of the cloud, or Private, for which the other fields must be given.
	Type string `json:"type"`
	// KeyVaultResourceURL is for type Private.
	// +optional
	KeyVaultResourceURL string `json:"keyVaultResourceURL,omitempty"`
	// ActiveDirectoryEndpoint is for type Private.
	// +optional
	ActiveDirectoryEndpoint string `json:"activeDirectoryEndpoint,omitempty"`
}

// GCPSecretManager reads parameters from Google's Secret Manager.
type GCPSecretManager struct {
	// Secrets are the values to read.
	// +kubebuilder:validation:MinItems=1
	Secrets []GCPSecretManagerSecret `json:"secrets"`
	// Credentials are those of a service account; without them podIdentity signs in.
	// +optional
	Credentials *GCPCredentials `json:"credentials,omitempty"`
	// PodIdentity signs in where there are no credentials.
	// +optional
	PodIdentity *AuthPodIdentity `json:"podIdentity,omitempty"`
}

// GCPCredentials are the credentials of a service account of Google's.
type GCPCredentials struct {
	// ClientSecret is its key, in JSON.
	ClientSecret GCPSecretmanagerClientSecret `json:"clientSecret"`
}

// GCPSecretmanagerClientSecret is the key of a service account of Google's.
type GCPSecretmanagerClientSecret struct {
	// ValueFrom says where it is.
	ValueFrom ValueFromSecret `json:"valueFrom"`
}

// GCPSecretManagerSecret takes one parameter from Google's Secret Manager.
type GCPSecretManagerSecret struct {
	// Parameter is the trigger's parameter that is filled.
	Parameter string `json:"parameter"`
	// ID is the secret's id.
	ID string `json:"id"`
	// Version of the secret; empty means the latest.
	// +optional
	Version string `json:"version,omitempty"`
}

// AwsSecretManager reads parameters from AWS Secrets Manager.
type AwsSecretManager struct {
	// Secrets are the values to read.
	// +kubebuilder:validation:MinItems=1
	Secrets []AwsSecretManagerSecret `json:"secrets"`
	// Credentials are those of a user; without them podIdentity signs in.
	// +optional
	Credentials *AwsSecretManagerCredentials `json:"credentials,omitempty"`
	// PodIdentity signs in where there are no credentials.
	// +optional
	PodIdentity *AuthPodIdentity `json:"podIdentity,omitempty"`
	// Region is the AWS region.
	// +optional
	Region string `json:"region,omitempty"`
}

// AwsSecretManagerCredentials are an AWS access key.
type AwsSecretManagerCredentials struct {
	// AccessKey is the key's id.
	AccessKey *AwsSecretManagerValue `json:"accessKey"`
	// AccessSecretKey is its secret.
	AccessSecretKey *AwsSecretManagerValue `json:"accessSecretKey"`
	// AccessToken is the token of a session, for keys that are temporary.
	// +optional
	AccessToken *AwsSecretManagerValue `json:"accessToken,omitempty"`
}

// AwsSecretManagerValue is one part of an AWS access key.
type AwsSecretManagerValue struct {
	// ValueFrom says where it is.
	ValueFrom ValueFromSecret `json:"valueFrom"`
}

// AwsSecretManagerSecret takes one parameter from AWS Secrets Manager.
type AwsSecretManagerSecret struct {
	// Parameter is the trigger's parameter that is filled.
	Parameter string `json:"parameter"`
	// Name is the secret's name or ARN.
	Name string `json:"name"`
	// VersionID is the version to read; empty means the one of versionStage.
	// +optional
	VersionID string `json:"versionId,omitempty"`
	// VersionStage is the label of the version to read; empty means the current one.
	// +optional
	VersionStage string `json:"versionStage,omitempty"`
	// SecretKey is a key of the secret when that is a JSON object; empty means the whole secret.
	// +optional
	SecretKey string `json:"secretKey,omitempty"`
}

// BoundServiceAccountToken fills a parameter with a token, valid for a short time, of a service account.
type BoundServiceAccountToken struct {
	// Parameter is the trigger's parameter that is filled.
	Parameter string `json:"parameter"`
	// ServiceAccountName is the service account.
	ServiceAccountName string `json:"serviceAccountName"`
}

// OAuth2 asks an authorization server for a token.
type OAuth2 struct {
	// Type is the grant: clientCredentials.
	// +kubebuilder:validation:Enum=clientCredentials
	// +kubebuilder:default=clientCredentials
	Type OAuth2GrantType `json:"type"`
	// ClientID is the client's id.
	ClientID string `json:"clientId"`
	// ClientSecret is the client's secret.
	// +optional
	ClientSecret OAuth2ClientSecret `json:"clientSecret,omitempty"`
	// TokenURL is where the token is asked for.
	TokenURL string `json:"tokenUrl"`
	// Scopes are what the token is to permit.
	// +optional
	Scopes []string `json:"scopes,omitempty"`
	// TokenURLParams are further parameters of the request.
	// +optional
	TokenURLParams map[string]string `json:"tokenUrlParams,omitempty"`
}

// OAuth2GrantType is a grant of OAuth 2.0 (RFC 6749).
type OAuth2GrantType string

// OAuth2ClientCredentials is the grant of RFC 6749, section 4.4.
const OAuth2ClientCredentials OAuth2GrantType = "clientCredentials"

// OAuth2ClientSecret is the secret of a client.
type OAuth2ClientSecret struct {
	// ValueFrom says where it is.
	ValueFrom ValueFromSecret `json:"valueFrom"`
}
