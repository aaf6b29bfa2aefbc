package auth

import (
	"net/url"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// Check returns what is wrong with a TriggerAuthentication or ClusterTriggerAuthentication, with paths below spec, as
// far as the words of it tell: what Resolve would refuse, whatever else there is. The kind is that of the object. What
// secretTargetRef, configMapTargetRef and env lack, the reader of manifests says.
func Check(kind string, spec *v1alpha1.TriggerAuthenticationSpec) field.ErrorList {
	var problems field.ErrorList
	if spec.FilePath != "" {
		path := field.NewPath("filePath")
		if kind != v1alpha1.KindClusterTriggerAuthentication {
			problems = append(problems, field.Forbidden(path, "only a ClusterTriggerAuthentication may read files"))
		}
		if !filepath.IsLocal(filepath.FromSlash(spec.FilePath)) {
			problems = append(problems, field.Invalid(path, spec.FilePath,
				"must be a path relative to the folder of --filepath-auth-root-path that does not lead out of it"))
		}
	}
	for i, source := range spec.BoundServiceAccountToken {
		path := field.NewPath("boundServiceAccountToken").Index(i)
		problems = append(problems, given(path.Child("parameter"), source.Parameter)...)
		problems = append(problems, serviceAccount(path.Child("serviceAccountName"), source.ServiceAccountName)...)
	}
	if spec.HashiCorpVault != nil {
		problems = append(problems, checkVault(field.NewPath("hashiCorpVault"), spec.HashiCorpVault)...)
	}
	return problems
}

// ServiceAccounts returns the fields, below spec, that name service accounts, of which only a cluster has any.
func ServiceAccounts(spec *v1alpha1.TriggerAuthenticationSpec) []*field.Path {
	var paths []*field.Path
	for i := range spec.BoundServiceAccountToken {
		paths = append(paths, field.NewPath("boundServiceAccountToken").Index(i).Child("serviceAccountName"))
	}
	if v := spec.HashiCorpVault; v != nil && v.Authentication == v1alpha1.VaultAuthenticationKubernetes &&
		v.Credential != nil && v.Credential.ServiceAccountName != "" {
		paths = append(paths, field.NewPath("hashiCorpVault", "credential", "serviceAccountName"))
	}
	return paths
}

func given(path *field.Path, value string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "it must be given and not be empty")}
	}
	return nil
}

func serviceAccount(path *field.Path, name string) field.ErrorList {
	problems := given(path, name)
	if name == "" {
		return problems
	}
	for _, message := range validation.IsDNS1123Subdomain(name) {
		problems = append(problems, field.Invalid(path, name, message))
	}
	return problems
}

func checkVault(path *field.Path, spec *v1alpha1.HashiCorpVault) field.ErrorList {
	problems := given(path.Child("address"), spec.Address)
	if spec.Address != "" && !isAddress(spec.Address) {
		// The value is not shown, since a URL may hold a password.
		problems = append(problems, field.Invalid(path.Child("address"), field.OmitValueType{},
			"must be a URL that begins with https:// or http:// and has a host"))
	}
	switch spec.Authentication {
	case v1alpha1.VaultAuthenticationToken:
	case v1alpha1.VaultAuthenticationKubernetes:
		problems = append(problems, given(path.Child("role"), spec.Role)...)
		problems = append(problems, given(path.Child("mount"), spec.Mount)...)
		if c := spec.Credential; c != nil && c.ServiceAccountName != "" {
			problems = append(problems,
				serviceAccount(path.Child("credential", "serviceAccountName"), c.ServiceAccountName)...)
		} else if c != nil && c.ServiceAccount == "" {
			problems = append(problems, field.Required(path.Child("credential", "serviceAccount"),
				"authentication kubernetes needs it, or serviceAccountName, or no credential at all for the "+
					"operator's own token"))
		}
	case "":
		problems = append(problems, given(path.Child("authentication"), "")...)
	default:
		problems = append(problems, field.NotSupported(path.Child("authentication"), spec.Authentication,
			[]v1alpha1.VaultAuthentication{v1alpha1.VaultAuthenticationToken, v1alpha1.VaultAuthenticationKubernetes}))
	}
	if len(spec.Secrets) == 0 {
		problems = append(problems, field.Required(path.Child("secrets"), "name at least one"))
	}
	kinds := []v1alpha1.VaultSecretType{v1alpha1.VaultSecretTypeSecret, v1alpha1.VaultSecretTypeSecretV2,
		v1alpha1.VaultSecretTypePKI}
	for i, secret := range spec.Secrets {
		at := path.Child("secrets").Index(i)
		problems = append(problems, given(at.Child("parameter"), secret.Parameter)...)
		problems = append(problems, given(at.Child("path"), secret.Path)...)
		problems = append(problems, given(at.Child("key"), secret.Key)...)
		if secret.Type != v1alpha1.VaultSecretTypeAny && !slices.Contains(kinds, secret.Type) {
			problems = append(problems, field.NotSupported(at.Child("type"), secret.Type, kinds))
		}
	}
	return problems
}

func isAddress(address string) bool {
	u, err := url.Parse(address)
	return err == nil && ((u.Scheme == "http" || u.Scheme == "https") && u.Host != "" || u.Scheme == "unix")
}

// Besides returns the sources, by their names in manifests, that are given and that a filePath makes useless.
func Besides(spec *v1alpha1.TriggerAuthenticationSpec) []string {
	var names []string
	for _, source := range []struct {
		name  string
		given bool
	}{
		{"env", len(spec.Env) > 0},
		{"configMapTargetRef", len(spec.ConfigMapTargetRef) > 0},
		{"secretTargetRef", len(spec.SecretTargetRef) > 0},
		{"hashiCorpVault", spec.HashiCorpVault != nil},
		{"boundServiceAccountToken", len(spec.BoundServiceAccountToken) > 0},
	} {
		if source.given {
			names = append(names, source.name)
		}
	}
	return names
}
