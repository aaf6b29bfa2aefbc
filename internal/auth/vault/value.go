package vault

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

// valueOf takes the value of a key out of a secret. Without a type it is that of KV version 2 if it has the form of it,
// as in KEDA.
func valueOf(secret *api.Secret, wanted v1alpha1.VaultSecret) (string, error) {
	data := secret.Data
	nested, isNested := data["data"].(map[string]any)
	switch wanted.Type {
	case v1alpha1.VaultSecretTypeSecretV2:
		if !isNested {
			return "", fmt.Errorf("%s is no secret of KV version 2, or is deleted; for version 1 give type secret",
				quoted(wanted.Path))
		}
		data = nested
	case v1alpha1.VaultSecretTypeAny:
		if isNested {
			data = nested
		}
	}
	value, found := data[wanted.Key]
	if !found {
		return "", noKey(wanted, data)
	}
	if chain, isList := value.([]any); isList && wanted.Type == v1alpha1.VaultSecretTypePKI && wanted.Key == "ca_chain" {
		return joined(chain, wanted)
	}
	text, isText := value.(string)
	if !isText {
		return "", noText(wanted)
	}
	return text, nil
}

// joined writes the certificates of a chain one after the other.
func joined(chain []any, wanted v1alpha1.VaultSecret) (string, error) {
	parts := make([]string, len(chain))
	for i, part := range chain {
		text, isText := part.(string)
		if !isText {
			return "", noText(wanted)
		}
		parts[i] = text
	}
	return strings.Join(parts, "\n"), nil
}

func noText(wanted v1alpha1.VaultSecret) error {
	return fmt.Errorf("%s: the value of key %s is no string; store it as one", quoted(wanted.Path), quoted(wanted.Key))
}

func noKey(wanted v1alpha1.VaultSecret, data map[string]any) error {
	if len(data) == 0 {
		return fmt.Errorf("%s has no key %s; it has no keys", quoted(wanted.Path), quoted(wanted.Key))
	}
	const most = 10
	keys, more := slices.Sorted(maps.Keys(data)), ""
	if len(keys) > most {
		keys, more = keys[:most], fmt.Sprintf(" and %d more", len(keys)-most)
	}
	for i, key := range keys {
		keys[i] = quoted(key)
	}
	return fmt.Errorf("%s has no key %s; its keys are %s%s", quoted(wanted.Path), quoted(wanted.Key),
		strings.Join(keys, ", "), more)
}

// missing is the error when nothing is at a path.
func missing(q request, secret *api.Secret) error {
	if secret != nil && slices.ContainsFunc(secret.Warnings, func(text string) bool {
		return strings.Contains(text, "versioned K/V")
	}) {
		return fmt.Errorf("%s: this engine is KV version 2, whose paths have data/ after the mount, for example "+
			"secret/data/queue", quoted(q.path))
	}
	return fmt.Errorf("there is nothing at %s; create it, or correct the path", quoted(q.path))
}

// life is for how long a secret that was made for its reader is valid; 0 for one that is there for all, which has no
// lease or whose lease_duration is a mere proposal (KV version 1).
func life(secret *api.Secret, q request, began time.Time) time.Duration {
	if secret.LeaseID != "" && secret.LeaseDuration > 0 {
		return time.Duration(secret.LeaseDuration) * time.Second
	}
	if q.kind != v1alpha1.VaultSecretTypePKI {
		return 0
	}
	// The engine pki says when a certificate ends, in seconds since 1970.
	number, isNumber := secret.Data["expiration"].(json.Number)
	if !isNumber {
		return 0
	}
	seconds, err := number.Int64()
	if err != nil {
		return 0
	}
	return max(0, time.Unix(seconds, 0).Sub(began))
}
