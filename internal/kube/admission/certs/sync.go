package certs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type configuration = admissionregistrationv1.ValidatingWebhookConfiguration

// errOvertaken means that another replica wrote an object after it was read here.
var errOvertaken = errors.New("another replica was quicker")

// sync looks at both objects once, puts right what is not, and takes over the certificate.
func (m *Manager) sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	for range maxConflicts {
		err := m.attempt(ctx)
		if !errors.Is(err, errOvertaken) {
			return err
		}
	}
	return fmt.Errorf("gave up after %d attempts: %w", maxConflicts, errOvertaken)
}

// attempt reads the configuration before the Secret: what it then writes into the configuration is either from the
// newest Secret or overtaken, so a replica that was held up cannot take a new authority out again.
func (m *Manager) attempt(ctx context.Context) error {
	config, err := m.readConfiguration(ctx)
	if err != nil {
		return err
	}
	secret, found, err := m.readSecret(ctx)
	if err != nil {
		return err
	}
	known := config == nil || trusts(config, secret.Data[keyAuthorities])
	current, reason, err := m.issue.next(secret.Data, m.opts.Clock.Now(), known)
	if err != nil {
		return err
	}
	if reason != "" {
		if err := m.writeSecret(ctx, secret, found, current); err != nil {
			return err
		}
		m.opts.Log.Info("wrote the webhook's certificates", "secret", m.opts.Namespace+"/"+m.opts.SecretName,
			"reason", reason, "notAfter", current.serving.Leaf.NotAfter)
	}
	if config != nil {
		if err := m.writeConfiguration(ctx, config, current.bundle()); err != nil {
			return err
		}
	}
	m.serving.Store(&current.serving)
	return nil
}

// readConfiguration returns nil when there is none, and logs that when it is news.
func (m *Manager) readConfiguration(ctx context.Context) (*configuration, error) {
	name := m.opts.WebhookConfiguration
	config := &configuration{}
	err := m.opts.Client.Get(ctx, types.NamespacedName{Name: name}, config)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return nil, fmt.Errorf("reading ValidatingWebhookConfiguration %s: %w", name, err)
	}
	if missing && !m.configMissing {
		m.opts.Log.Info("there is no webhook configuration, so no manifest is checked on admission",
			"validatingWebhookConfiguration", name)
	}
	m.configMissing = missing
	if missing {
		return nil, nil
	}
	return config, nil
}

func (m *Manager) readSecret(ctx context.Context) (secret *corev1.Secret, found bool, err error) {
	secret = &corev1.Secret{}
	err = m.opts.Client.Get(ctx, types.NamespacedName{Namespace: m.opts.Namespace, Name: m.opts.SecretName}, secret)
	if apierrors.IsNotFound(err) {
		return &corev1.Secret{}, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading Secret %s/%s: %w", m.opts.Namespace, m.opts.SecretName, err)
	}
	return secret, true, nil
}

// writeSecret puts the material into the Secret, unless that has changed since it was read.
func (m *Manager) writeSecret(ctx context.Context, secret *corev1.Secret, found bool, current material) error {
	data, err := current.data()
	if err != nil {
		return err
	}
	if found {
		if secret.Data == nil {
			secret.Data = map[string][]byte{}
		}
		maps.Copy(secret.Data, data)
		err = m.opts.Client.Update(ctx, secret)
	} else {
		err = m.opts.Client.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: m.opts.Namespace, Name: m.opts.SecretName,
				Labels: map[string]string{"app.kubernetes.io/managed-by": "offboard"},
			},
			Type: corev1.SecretTypeTLS,
			Data: data,
		})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), found && apierrors.IsNotFound(err):
		return errOvertaken
	case err != nil:
		return fmt.Errorf("writing Secret %s/%s: %w", m.opts.Namespace, m.opts.SecretName, err)
	}
	return nil
}

// trusts tells whether every webhook of the configuration has the bundle.
func trusts(config *configuration, bundle []byte) bool {
	for _, hook := range config.Webhooks {
		if !bytes.Equal(hook.ClientConfig.CABundle, bundle) {
			return false
		}
	}
	return true
}

// writeConfiguration makes every webhook of the configuration trust the bundle, unless the configuration has changed
// since it was read. It sends nothing but the bundles, so it keeps fields that this version does not know.
func (m *Manager) writeConfiguration(ctx context.Context, config *configuration, bundle []byte) error {
	if trusts(config, bundle) {
		return nil
	}
	hooks := make([]map[string]any, 0, len(config.Webhooks))
	for _, hook := range config.Webhooks {
		hooks = append(hooks, map[string]any{"name": hook.Name, "clientConfig": map[string]any{"caBundle": bundle}})
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": config.ResourceVersion},
		"webhooks": hooks,
	})
	if err != nil {
		return err
	}
	err = m.opts.Client.Patch(ctx, config, client.RawPatch(types.StrategicMergePatchType, patch))
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return errOvertaken
	case err != nil:
		return fmt.Errorf("writing the authority into ValidatingWebhookConfiguration %s: %w", config.Name, err)
	}
	return nil
}
