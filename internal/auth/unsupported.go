package auth

import (
	"fmt"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// NotSupported says of a field that Unsupported has named what is wrong with it.
const NotSupported = "KEDA has this field, but Offboard does not support it yet; " +
	"it supports boundServiceAccountToken, configMapTargetRef, env, filePath, hashiCorpVault, secretTargetRef"

// Unsupported returns the fields of a TriggerAuthentication, by their names in manifests, that are given and that
// Resolve cannot read yet: to ignore one would leave a trigger without credentials. A podIdentity of provider none is
// KEDA's way to say that there is none.
func Unsupported(spec *v1alpha1.TriggerAuthenticationSpec) []string {
	var names []string
	for _, field := range []struct {
		name  string
		given bool
	}{
		{"podIdentity", spec.PodIdentity != nil && spec.PodIdentity.Provider != v1alpha1.PodIdentityNone},
		{"azureKeyVault", spec.AzureKeyVault != nil},
		{"gcpSecretManager", spec.GCPSecretManager != nil},
		{"awsSecretManager", spec.AwsSecretManager != nil},
		{"oauth2", spec.OAuth2 != nil},
	} {
		if field.given {
			names = append(names, field.name)
		}
	}
	return names
}

// refuseUnsupported returns an error for the first field that is not supported.
func refuseUnsupported(spec *v1alpha1.TriggerAuthenticationSpec) error {
	if names := Unsupported(spec); len(names) > 0 {
		return fmt.Errorf("%s: %s", names[0], NotSupported)
	}
	return nil
}
